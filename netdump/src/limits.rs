//! Every number that bounds this crate, with the reason beside it.

use crate::time::Duration;

/// Packets that may be in flight: stock clients refuse to count further (`DEBUGNET_MAX_IN_FLIGHT` in
/// `sys/net/debugnet_int.h`), and the window of the client here is one 64-bit mask.
pub const WINDOW_PACKETS_MAX: u32 = 64;

/// Data bytes in flight: what one burst of a stock client is (`MAXDUMPPGS * PAGE_SIZE`), so that the socket buffer of
/// every receiver made for stock clients holds a whole window.
pub const WINDOW_BYTES_MAX: usize = 64 * 1024;

/// The smallest MTU: every IPv4 host must take a datagram of 576 bytes (RFC 791, section 3.1).
pub const MTU_MIN: u16 = 576;

/// The largest MTU: the usual jumbo frame, and what the buffers of the dump port hold.
pub const MTU_MAX: u16 = 9000;

/// Header bytes that an MTU pays for before the data: IPv4 20, UDP 8, netdump 24.
pub const MTU_OVERHEAD: usize = 52;

/// The longest path in a HERALD with its NUL: the buffer of the sysctl `net.netdump.path` (`MAXPATHLEN`), and what
/// netdumpd takes.
pub const HERALD_LEN_MAX: usize = 1024;

/// How long the first acknowledgement may take before a receiver counts as absent. Stock clients try for 12 s; a
/// receiver behind a slow ARP and a slow resolver is given a little more.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(15);

/// How long nothing may be newly acknowledged before a dump is given up: twelve transmissions one second apart, as
/// stock clients do (`net.debugnet.nretries`).
pub const GIVE_UP_AFTER: Duration = Duration::from_secs(12);

/// How long the acknowledgement of FINISHED may take: a receiver syncs the whole core before it, which on a disk of
/// 100 MB/s is 3 GB of page cache.
pub const FINISHED_WITHIN: Duration = Duration::from_secs(30);

/// A call later than this after its deadline means that the whole process stood still (suspended, migrated, stopped by
/// a debugger); that time does not count as silence of the receiver.
pub const CALLER_AWAY_MIN: Duration = Duration::from_secs(1);

/// What a retransmission time-out exceeds the measured round trip by at least: a receiver on a busy machine answers a
/// few scheduler slices late now and then.
pub const RTO_MIN: Duration = Duration::from_millis(20);

/// The retransmission time-out before anything was measured: well above a path across a continent.
pub const RTO_INITIAL: Duration = Duration::from_millis(200);

/// The longest retransmission time-out, backed off: the fixed resend time of stock clients.
pub const RTO_MAX: Duration = Duration::from_secs(1);

/// A packet counts as lost when one that was sent this many packets later is acknowledged: RFC 9002, section 6.1.1.
pub const REORDER_PACKETS: u64 = 3;

/// What the number above may grow to on a path that reorders more: half a window, so that a lost packet is still found
/// by acknowledgements and not by a time-out.
pub const REORDER_PACKETS_MAX: u64 = 32;

/// What the window may shrink to after time-outs: still four times the acknowledgements that reveal a loss.
pub const WINDOW_PACKETS_FLOOR: u32 = 12;

/// First-time acknowledgements for which a shrunk window grows by one packet: back at full size after a few windows.
pub const WINDOW_GROWTH_ACKS: u32 = 4;

/// ARP requests before a server or gateway counts as unreachable (`net.debugnet.arp_nretries` in `sys/net/debugnet.c`).
pub const ARP_TRIES: u32 = 3;

/// The time between two ARP requests, as stock clients wait.
pub const ARP_RETRY_AFTER: Duration = Duration::from_secs(1);

/// The largest vmcore a session takes by default: 16 TiB, the largest file of ext4.
pub const FILE_LEN_MAX: u64 = 16 << 40;

/// The largest kernel dump header: it is 512 bytes; one dump block leaves room for a successor.
pub const KERNEL_HEADER_LEN_MAX: u64 = 4096;

/// The largest key: 37 bytes and an RSA modulus of 16384 bits are 2085 bytes, padded to one block; four leave room.
pub const KEY_LEN_MAX: u64 = 16 * 1024;

/// Separate ranges that the coverage of one session may consist of. Two million are every second page of 16 GiB; they
/// cost about 64 MiB, which only a sender that had as many packets stored can cause. Beyond the bound, data that would
/// open another range is not acknowledged, so its sender keeps it.
pub const EXTENTS_MAX: usize = 1 << 21;

/// Acknowledgements that may wait to be sent. A sender has at most 64 packets in flight, or 126 at an MTU of 576;
/// duplicates add to that. One that does not fit is dropped and its packet comes again.
pub const ACKS_MAX: usize = 1024;

/// Silence after which a stock sender is dead: it gives up after 12 s itself.
pub const SILENT_AFTER_STOCK: Duration = Duration::from_secs(60);

/// Silence after which a sender that gave a dump id is dead.
pub const SILENT_AFTER_OURS: Duration = Duration::from_secs(30);

/// How long FINISHED is answered again after its first acknowledgement: stock clients repeat it for 12 s.
pub const LINGER: Duration = Duration::from_secs(15);

/// Data bytes of one burst of a stock client (`MAXDUMPPGS * PAGE_SIZE`, `sys/netinet/netdump/netdump_client.c`).
pub const BURST_BYTES_MAX: u32 = 64 * 1024;

/// Bytes of a dump block: every write of a stock dumper is made of whole ones (`NETDUMP_DATASIZE`).
pub const DUMP_BLOCK_LEN: u32 = 4096;

/// With so much data in a packet a burst has 32 packets at most, and a stock client tells them all apart.
pub const UNSHARED_LEN_MIN: u32 = 2048;

/// Silence after which all packets of one resend round have come: a tenth of the time to the next (`net.debugnet.npolls`),
/// and more than a path reorders.
pub const QUIET_AFTER: Duration = Duration::from_millis(100);

/// Resend rounds that bring nothing new, after which their end need not be seen: a client with a smaller
/// `net.debugnet.npolls` never pauses for [`QUIET_AFTER`].
pub const ROUNDS_WITHOUT_QUIET: u32 = 4;

/// Resend rounds that bring nothing new, after which nothing is held any more whatever is missing: a client tries
/// eleven times (`net.debugnet.nretries`), and three are left for the acknowledgements to arrive.
pub const ROUNDS_MAX: u32 = 8;

/// Resend rounds that all end before the last held packets, after which a sender is no stock client: that one resends all
/// that is not acknowledged, a sender with a window only as much as the window takes.
pub const ROUNDS_CUT_SHORT_MAX: u32 = 3;

/// How many held packets these are at least: so many are not lost at the end of three rounds in a row.
pub const PACKETS_CUT_OFF_MIN: u32 = 4;

/// Bursts of a length that no stock dumper writes, one after the other, after which a sender is none. Fewer may be bursts
/// whose end was lost with all its repeats: at 1 % loss this many are in one burst of a hundred million.
pub const STRIKES_MAX: u32 = 3;

/// The same for a sender that has never sent two packets in a row: a stock client does so only if the line broke after the
/// first packet of its first burst.
pub const STRIKES_ALONE_MAX: u32 = 2;
