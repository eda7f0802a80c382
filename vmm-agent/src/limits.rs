//! Every limit of this crate, with its reason.
use std::time::Duration;

/// How long a guest that said CRASHLOADED may take for a dump of its own before the host dumps it. A kdump of a large
/// guest over a slow link takes minutes, and a hung one must not wait for ever.
pub const CRASH_LOADED_GRACE: Duration = Duration::from_secs(10 * 60);

/// Most vCPUs of a guest. The dump header room and the demo guest are sized for it.
pub const VCPUS_MAX: u8 = 8;

/// Most memory of a guest in MiB: 1 TiB, far below what one memfd and the 46-bit addresses of common hosts carry.
pub const MEM_MIB_MAX: u64 = 1 << 20;

/// Most RAM below 4 GiB in bytes; the rest up to 4 GiB is for devices, as on common PC chipsets.
pub const LOW_RAM_MAX_BYTES: u64 = 3 << 30;

/// Largest kernel image that is read, in bytes. A debug vmlinux with its symbols is about 800 MB.
pub const KERNEL_LEN_MAX: u64 = 2 << 30;

/// Bytes of serial output that are kept for the dump's console tail (64 KiB is about the last 800 lines).
pub const CONSOLE_TAIL_LEN: usize = 64 * 1024;

/// Longest console line that is searched for a panic; a line that is longer is searched in pieces.
pub const CONSOLE_LINE_MAX: usize = 1024;

/// Console output that waits to be written, in bytes; more is left out. A guest prints about 10 KiB/s at 115200 baud, and
/// much more only when nobody paces it.
pub const CONSOLE_QUEUE_LEN: usize = 1 << 20;

/// How long the end of a guest waits for its last console output to be written.
pub const CONSOLE_DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a vCPU gets to leave the guest when it is asked to. It needs microseconds; an emulating KVM under load
/// needs milliseconds. More means that KVM is stuck.
pub const VCPU_STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// How often a vCPU that has not left the guest is kicked again.
pub const VCPU_KICK_INTERVAL: Duration = Duration::from_millis(10);

/// How long devices get to end what they are at when the guest is frozen. A request to a healthy disk takes milliseconds.
pub const DEVICE_STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a round of a device's worker may go on before it looks whether the guest is to be frozen: far less than
/// [`DEVICE_STOP_TIMEOUT`], and long enough that looking costs nothing.
pub const ROUND_TIME: Duration = Duration::from_millis(20);

/// Longest panic text that is taken over into a trigger, in bytes.
pub const PANIC_TEXT_MAX: usize = 2048;

/// How far into a kernel its notes may lie, in bytes: they follow its code and read-only data, which are 24 MiB at Debian's
/// 6.12 and about 60 MiB of a kernel with everything built in. As much is unpacked at most.
pub const KERNEL_NOTES_OFFSET_MAX: u64 = 256 << 20;

/// Longest note segment of a kernel that is read, in bytes. Linux has about 500.
pub const KERNEL_NOTES_LEN_MAX: usize = 64 << 10;

/// Most program headers of a kernel. Linux has five.
pub const KERNEL_PROGRAM_HEADERS_MAX: u16 = 64;

/// Most memory for unpacking a kernel by xz, in bytes. Linux's own Makefile asks for a dictionary of 128 MiB
/// (scripts/xz_wrap.sh); only what comes out of it is ever touched.
pub const KERNEL_DICTIONARY_LEN_MAX: u32 = 136 << 20;

/// Largest window of a kernel packed by zstd, as a power of two: that of level 22, which Linux's Makefile uses.
pub const KERNEL_ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// Bytes of a kept kernel that have a digest of their own: what is read and sent at a time. A kernel of 600 MB then takes 300 KB
/// of memory.
pub const KERNEL_PIECE_LEN: usize = 64 << 10;

/// How much the thread that looks at the kernel file stands back behind the vCPUs (setpriority(2)).
pub const KERNEL_THREAD_NICENESS: i32 = 10;

/// How long a dump waits for what the kernel file tells. It was looked at while the guest started, within a second if it has no
/// symbols: only who crashes at once waits at all.
pub const KERNEL_FACTS_PATIENCE: Duration = Duration::from_secs(5);

/// The same for a kernel that is to be in the core. With its symbols it is read in a second by an idle host, and the frozen guest's
/// processors are free for it now; a busy one with an emulated processor took 20 seconds.
pub const KEPT_KERNEL_PATIENCE: Duration = Duration::from_secs(60);

/// Which part of a dump's time is waited for that at most, as a divisor: memory matters more.
pub const KERNEL_SHARE_OF_TIME: u32 = 4;
