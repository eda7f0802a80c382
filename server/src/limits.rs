//! Bounds of the receiver, with the reason beside each number.

use std::time::Duration;

use crate::admission::{Rate, Share};

/// Sessions at one time, each with a thread and a socket: more hosts than that do not crash at once.
pub const SESSIONS_MAX: usize = 1024;

/// A herald that has brought no data for so long gives its place to a newcomer when all places are taken: a real client
/// sends data within milliseconds of the first acknowledgement, so that spoofed heralds cannot lock real ones out.
pub const HALF_OPEN_KEPT: Duration = Duration::from_secs(2);

/// Answered heralds that a receiver finds again after a restart; beyond that the oldest are written over.
pub const ANSWERED_PLACES: usize = 1024;

/// How long such a herald is remembered: stock clients repeat it for 12 s, and begin anew after that.
pub const HALF_OPEN_FORGOTTEN: Duration = Duration::from_secs(15);

/// A herald that comes again later than this was repeated by its sender, who hears nothing; stock clients do so after 1 s. One
/// that comes sooner was doubled by the network.
pub const REPEATED_AFTER: Duration = Duration::from_millis(500);

/// A session that was heard from within this time is alive: stock clients send something every second.
pub const ALIVE_FOR: Duration = Duration::from_secs(3);

/// How long a session that outlived its receiver waits for its sender: stock clients and ours give up after 12 s.
pub const RESUMED_KEPT: Duration = Duration::from_secs(15);

/// Datagrams that reached the listening port and wait for their session, which takes them within milliseconds: several bursts.
pub const INBOX_DATAGRAMS_MAX: usize = 256;

/// Datagrams taken from the listening port before anything else is looked at.
pub const HERALDS_AT_ONCE: usize = 256;

/// Datagrams taken from a socket before anything is written: the most that a client has in flight.
pub const BATCH_DATAGRAMS: usize = 64;

/// Longest train of datagrams that the kernel hands out at once (udp(7), UDP_GRO): what fits into one IP packet.
pub const TRAIN_BYTES_MAX: usize = 65_536;

/// Largest payload of a UDP datagram over IPv4 (65 535 less 20 bytes of IP and 8 of UDP header).
pub const DATAGRAM_BYTES_MAX: usize = 65_507;

/// Receive buffer asked of the kernel: several bursts of 64 KiB while a disk is slow. It counts with overhead.
pub const SOCKET_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// The same of a listening port: a thousand hosts that crash at once, and a moment in which no processor is free for the
/// thread behind it while others send forged heralds. One takes 768 bytes of it.
pub const LISTENING_BUFFER_BYTES: usize = 16 * 1024 * 1024;

/// How often a thread that waits for packets looks whether it should stop.
pub const STOP_LOOK: Duration = Duration::from_millis(200);

/// Pages that an export remembers, so that their content is stored once: 1 GiB of different ones, in some 20 MiB.
pub const KNOWN_PAGES_MAX: usize = 1 << 18;

/// Chunk over which a digest is made.
pub const CHUNK_BYTES: u64 = 1024 * 1024;

/// Chunks that are hashed as their bytes come, at one time; a hasher has 2 KiB, and clients send in file order.
pub const OPEN_HASHERS_MAX: usize = 64;

/// What is written and not synced stays below what the disk takes in this time: a third of the 12 s that stock senders wait
/// for the acknowledgement of FINISHED, which needs a last sync and the records.
pub const BACKLOG_TIME: Duration = Duration::from_secs(4);

/// So much may wait on the slowest disk: less would be synced burst by burst, at the price of the disk's latency.
pub const BACKLOG_BYTES_MIN: u64 = 4 * 1024 * 1024;

/// Bytes written before a sync is asked for on a slow disk: below, its latency would count for more than its rate.
pub const SYNC_BYTES_MIN: u64 = 4 * 1024 * 1024;

/// The same on a fast disk: half a second of it, so that the last sync is short.
pub const SYNC_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Bytes that have waited for so long are synced however few they are.
pub const SYNC_TIME: Duration = Duration::from_secs(1);

/// A sync of fewer bytes says nothing about the disk's rate.
pub const RATE_SAMPLE_BYTES: u64 = 2 * 1024 * 1024;

/// The disk's rate in bytes per second before one was measured, milliseconds later on a fast disk: a slow one, so that the
/// first second does no harm.
pub const RATE_FIRST: u64 = 2 * 1024 * 1024;

/// Acknowledgements of data are held no longer: stock senders send again after 1 s (`net.netdump.npolls`).
pub const HOLD_MAX: Duration = Duration::from_millis(800);

/// And no shorter, once they are: the sender's own tick is 0.5 ms, a sync takes milliseconds.
pub const HOLD_MIN: Duration = Duration::from_millis(5);

/// How often a session that holds acknowledgements looks whether they may go.
pub const HOLD_LOOK: Duration = Duration::from_millis(10);

/// Space set aside for the records of a core, so that they can be written on a full disk.
pub const RESERVE_BYTES_MIN: u64 = 128 * 1024;

/// Reserve for each chunk's digest in the manifest: 64 hexadecimal digits, the index and punctuation.
pub const RESERVE_BYTES_PER_CHUNK: u64 = 96;

/// Reserve for each received range in the manifest: two numbers of up to 14 digits and punctuation, listed twice where
/// what lies between is lost.
pub const RESERVE_BYTES_PER_EXTENT: u64 = 80;

/// Separate ranges of the received bytes that are kept; a sender that leaves more holes than this is refused.
pub const EXTENTS_MAX: usize = 1 << 20;

/// Separate ranges of the kernel dump header and of the key: the largest comes in eight messages at the smallest MTU.
pub const SMALL_EXTENTS_MAX: usize = 16;

/// Longest text taken from a guest (panic, host name, label), in characters after escaping.
pub const TEXT_CHARS_MAX: usize = 512;

/// End of the memory that is exported: what the bitmaps of a kdump file are read up to. Three bitmaps of it are 384 MiB.
pub const EXPORT_GPA_END_MAX: u64 = 4 << 40;

/// Memory that an ELF core may claim for each byte of its file: it can call zero what is not in the file, and would have pages without
/// end written. makedumpfile's own leave out some hundred times what they hold, of guests that do nothing.
pub const EXPORT_MEMORY_PER_FILE: u64 = 1024;

/// And this much of it without a reason.
pub const EXPORT_MEMORY_MIN: u64 = 1 << 30;

/// Cores that wait for their explanation; one takes a fraction of a second, and a hundred guests that crash at once are few.
pub const EXPLAIN_QUEUE: usize = 1024;

/// The longest time for one explanation: reading a log takes milliseconds, a hostile core may take as long as it can.
pub const EXPLAIN_TIME: Duration = Duration::from_secs(60);

/// Address space of the process that explains a core. The program itself takes a quarter of it; a log of 64 MiB as records, as text and
/// escaped, or a trailer of 256 MiB, were seen to take less than 300 MiB.
pub const EXPLAIN_MEMORY_BYTES: u64 = 1 << 30;

/// Its processor time in seconds: a log takes milliseconds.
pub const EXPLAIN_CPU_S: u64 = 30;

/// What it may print into a file: more than an explanation has, whose log is cut.
pub const EXPLAIN_PRINTED_BYTES: u64 = 64 << 20;

/// The processor time in which a core is read for its explanation: half of what its process has, since what was found by then must
/// still be told. All of 32 GiB is searched in less.
pub const EXPLAIN_CPU_TIME: Duration = Duration::from_secs(15);

/// The same where a person asks for the log, who may stop it.
pub const LOG_CPU_TIME: Duration = Duration::from_secs(60);

/// Longest log in an explanation, in bytes after escaping: 1 MiB is four times what distribution kernels keep by default
/// (CONFIG_LOG_BUF_SHIFT 17 and the CPUs' share), and its end is what matters.
pub const EXPLAINED_LOG_CHARS_MAX: usize = 1 << 20;

/// Processors whose registers an explanation shows: each takes 1 KiB, and guests with more are rare.
pub const EXPLAINED_CPUS_MAX: usize = 512;

/// Names of guests, and of kernels, that a group of cores shows: a fault of more is everywhere.
pub const GROUP_NAMES_MAX: usize = 100;

/// Longest sentence of an explanation about what could not be told.
pub const EXPLAINED_PROBLEM_CHARS_MAX: usize = 1024;

/// Longest explanation that is read: the log with every character escaped once more, as JSON may, and the rest.
pub const EXPLANATION_BYTES_MAX: u64 = 8 << 20;

/// Troubles of a note that are kept: a sentence for each vCPU and each device of a large guest.
pub const TROUBLES_MAX: usize = 64;

/// Longest console tail shown.
pub const CONSOLE_CHARS_MAX: usize = 64 * 1024;

/// Largest journal that is read back: 24 bytes for each of far more ranges than are kept.
pub const JOURNAL_BYTES_MAX: u64 = 1 << 30;

/// Largest manifest that is read: [`EXTENTS_MAX`] ranges and the digests of 16 TiB are below it.
pub const MANIFEST_BYTES_MAX: u64 = 2 << 30;

/// Bytes of a core's head that are looked at for facts: the header room of our own files, enough of others.
pub const HEAD_BYTES_MAX: u64 = 1024 * 1024;

/// Largest trailer that is read: the page states and digests of 16 TiB would be 2 GiB; this is enough for 2 TiB.
pub const TRAILER_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Longest file of one dump: the memory of the largest guests in common use; larger ones are to be named. Our senders
/// send no zero pages, so that this bounds the length, and the other limits the bytes.
pub const DUMP_MAX: Share = Share::Bytes(4 << 40);

/// What the cores of one guest may take: a guest in a crash loop leaves as much for all others. It does not count for
/// 127.0.0.1, from which the agents of all guests on the receiver's own host send.
pub const GUEST_MAX: Share = Share::Percent(50);

/// What all cores may take: as much as there is, since [`FREE_MIN`] keeps its reserve. Where cores share their file system
/// with something else, less is to be named.
pub const TOTAL_MAX: Share = Share::Percent(100);

/// What stays free whatever else lies on the file system: room for the records of running dumps, and for others' logs.
/// A large disk needs no more of it than a small one, and evidence is worth more than empty space.
pub const FREE_MIN: Share = Share::PercentUpTo(2, 1 << 30);

/// Space given to a running dump at a time: asking for each packet would cost a system call, and what is given and not
/// used is missing to others.
pub const GRANT_BYTES: u64 = 1024 * 1024;

/// Sessions that have had nothing but a herald, each a socket. A client goes on within milliseconds, but on a machine that is
/// busy with a thousand of them within seconds, and who is forgotten before fails: forged heralds, of which [`HERALDS`] lets in a
/// few hundred a second, have to leave that time.
pub const HALF_OPEN_MAX: usize = 4096;

/// Sessions that one address may open: a guest needs one for each crash; behind address translation a whole rack has one
/// address, and its other clients come again each second for 12 s.
pub const SOURCE_HERALDS: Rate = Rate { per_s: 10, burst: 40 };

/// Sessions that all together may open: a thousand hosts that crash at once are in within their 12 s, and a flood costs
/// one core a few per cent.
pub const HERALDS: Rate = Rate { per_s: 200, burst: 512 };

/// Addresses whose rate is watched one by one, 24 bytes each; beyond that they share.
pub const SOURCES_WATCHED: usize = 16_384;

/// Refused heralds that are remembered, 8 bytes each: two seconds of a flood of 100 000 a second leave most of them.
pub const REFUSED_REMEMBERED: usize = 1 << 18;

/// A herald comes again if it does after this time: stock clients wait a second (`net.netdump.npolls`).
pub const AGAIN_AFTER: Duration = Duration::from_millis(400);

/// And before this: stock clients give up after 12 s.
pub const AGAIN_BEFORE: Duration = Duration::from_secs(15);

/// Sources of which it is remembered that they were told of; one entry has about 40 bytes.
pub const REFUSED_SOURCES_MAX: usize = 4096;

/// Lines about refusals in the log, a second; more are counted only, so that a flood of forged sources costs no time.
pub const REFUSALS_TOLD_PER_S: u32 = 20;

/// A source that was told of is told of again after this time: once an hour shows that it goes on.
pub const REFUSAL_TOLD_AGAIN_AFTER: Duration = Duration::from_secs(3600);

/// The cores on disk are counted anew before a dump is refused, but not more often than this.
pub const RECOUNT_AFTER: Duration = Duration::from_secs(1);

/// Largest bitmap of a minidump that is counted: one bit per page of 8 TiB, read within a fraction of a second.
pub const BITMAP_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Largest labels.json that is read: all labels and the note at their bounds fit, escaped, several times over.
pub const LABELS_FILE_BYTES_MAX: u64 = 256 * 1024;

/// Largest tokens.json that is read: thousands of tokens.
pub const TOKENS_FILE_BYTES_MAX: u64 = 1024 * 1024;

/// How often running dumps are looked at for those who listen: what an eye follows, and what the contract promises (2/s).
pub const PROGRESS_LOOK: Duration = Duration::from_millis(500);

/// Time that a hook has: enough to copy what is small and to tell somebody; what takes longer belongs behind it.
pub const HOOK_DEADLINE: Duration = Duration::from_secs(60);

/// Events that may wait for their hook. More happen only when hundreds of dumps end within one hook's time.
pub const HOOK_QUEUE: usize = 256;

/// Time that all waiting hooks have together when the receiver stops: service managers wait 90 s (systemd,
/// `DefaultTimeoutStopSec=`).
pub const HOOK_STOP_TIME: Duration = Duration::from_secs(30);

/// How often a running hook is looked at.
pub const HOOK_LOOK: Duration = Duration::from_millis(20);

/// Lost ranges in a hook's JSON: at some 40 bytes each all of it fits into a pipe.
pub const HOOK_HOLES_MAX: usize = 200;

/// How long to wait after each delivery to a webhook that failed: five tries in six minutes, which outlast a restart over there.
pub const WEBHOOK_DELAYS: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(7),
    Duration::from_secs(45),
    Duration::from_secs(300),
];

/// Letters that may wait for one address, each a file of about a kilobyte.
pub const WEBHOOK_WAITING_MAX: usize = 10_000;

/// Addresses that may be told: each has a task, and its copy of every event.
pub const WEBHOOKS_MAX: usize = 16;

/// Dead letters kept: enough to see what was missed; the oldest go first.
pub const DEAD_LETTERS_MAX: usize = 1000;

/// Longest letter that is read: an event is some kilobytes, its texts are cut where they come in.
pub const LETTER_BYTES_MAX: u64 = 256 * 1024;

/// Bounds of the histogram of core sizes: from the demo's guest to the largest hosts.
pub const CORE_BOUNDS_BYTES: [u64; 9] = [
    1 << 20,
    1 << 24,
    1 << 27,
    1 << 30,
    1 << 32,
    1 << 34,
    1 << 36,
    1 << 38,
    1 << 40,
];

/// A millisecond in nanoseconds.
const MS: u64 = 1_000_000;

/// Bounds of the histogram of receiving: from a canary to a large guest over a slow line.
pub const RECEIVE_BOUNDS_NS: [u64; 9] = [
    100 * MS,
    1000 * MS,
    5000 * MS,
    15_000 * MS,
    60_000 * MS,
    300_000 * MS,
    900_000 * MS,
    3_600_000 * MS,
    14_400_000 * MS,
];

/// Bounds of the histogram of acknowledgements: stock senders send again after 1 s.
pub const ACK_BOUNDS_NS: [u64; 8] = [MS, 2 * MS, 5 * MS, 20 * MS, 100 * MS, 500 * MS, 1000 * MS, 5000 * MS];

/// Bounds of the histogram of syncs: stock senders give up when FINISHED is not answered within 12 s.
pub const FSYNC_BOUNDS_NS: [u64; 8] = [
    MS,
    5 * MS,
    20 * MS,
    100 * MS,
    500 * MS,
    2000 * MS,
    5000 * MS,
    12_000 * MS,
];
