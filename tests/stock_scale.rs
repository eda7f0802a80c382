//! Many stock clients at once into `coreferry serve`, and forged heralds beside them.

mod common;
#[path = "stock/mod.rs"]
mod stock;

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use common::Serve;
use stock::{Order, StockSender, dense_core, kernel_dump_header};

/// What a receiver may use: a base, and so much for each session.
const RSS_BASE_KIB: u64 = 256 * 1024;
const RSS_SESSION_KIB: u64 = 512;

/// How large a run is.
struct Size {
    clients: usize,
    pages: u64,
    heralds: u64,
}

impl Size {
    /// All that is promised with `--all`, else what takes seconds.
    fn of_this_run() -> Self {
        if std::env::var_os("COREFERRY_ALL").is_some() {
            Self {
                clients: 256,
                pages: 4096,
                heralds: 100_000,
            }
        } else {
            Self {
                clients: 32,
                pages: 512,
                heralds: 5000,
            }
        }
    }
}

/// Forged heralds from addresses that never answer: each from another one of 127.0.0.0/8, from the port of stock clients.
/// Gives how many went out.
fn forge_heralds(to: SocketAddr, count: u64) -> u64 {
    let mut herald = [0_u8; 24];
    (herald[3], herald[7]) = (1, 1);
    let mut sent = 0;
    while sent < count {
        let number = u32::try_from(sent % 0x00ff_ffff).expect("24 bits");
        let [_, high, middle, low] = number.to_be_bytes();
        // 127.128.0.0/9, where no client of the test is.
        let from = Ipv4Addr::new(127, 128 | (high >> 1), middle, low.max(1));
        if let Ok(socket) = UdpSocket::bind((from, stock::CLIENT_PORT)) {
            sent += u64::from(socket.send_to(&herald, to).is_ok());
        }
    }
    sent
}

/// The largest resident size of a process so far, in KiB (`VmHWM`, proc(5)).
fn rss_peak_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.expect("VmHWM is a number")
}

/// Waits for the receiver to be done with all dumps, and gives its cores.
fn settled(dir: &Path, serve: &Serve, count: usize) -> Vec<serde_json::Value> {
    let began = Instant::now();
    loop {
        let cores = common::cores_list(dir);
        if cores.len() == count && cores.iter().all(|core| core["state"] != "receiving") {
            return cores;
        }
        assert!(
            began.elapsed() < 4 * common::PATIENCE,
            "{} cores of {count}\n{}",
            cores.len(),
            serve.daemon.stderr_text()
        );
        thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn many_clients_at_once_all_complete_while_heralds_are_forged() {
    let Size {
        clients,
        pages,
        heralds,
    } = Size::of_this_run();
    let dir = common::temp_dir();
    // Many cores come from one machine here, and all at once.
    let serve = Serve::start(dir.path());
    let to = SocketAddr::V4(serve.netdump);
    let cores: Vec<Arc<Vec<u8>>> = (0..4).map(|seed| Arc::new(dense_core(seed, pages))).collect();
    let began = Instant::now();
    let resent = AtomicU64::new(0);
    let forged = thread::scope(|scope| {
        let forger = scope.spawn(|| forge_heralds(to, heralds));
        let running: Vec<_> = (0..clients)
            .map(|index| {
                let core = Arc::clone(&cores[index % cores.len()]);
                let sender = StockSender::new(Order::FreeBsd13, 1500, serve.netdump);
                let resent = &resent;
                scope.spawn(move || {
                    let header = kernel_dump_header(core.len() as u64, &format!("host-{index}"), "none");
                    let sent = sender.dump(&core, &header);
                    resent.fetch_add(sent.unwrap_or(0), Ordering::Relaxed);
                    sent.map(drop)
                })
            })
            .collect();
        let mut failed = Vec::new();
        for (index, sent) in running.into_iter().enumerate() {
            if let Err(why) = sent.join().expect("a sender does not panic") {
                failed.push((index, why));
            }
        }
        assert!(failed.is_empty(), "{failed:?} gave up\n{}", serve.daemon.stderr_text());
        forger.join().expect("the forger does not panic")
    });
    let took = began.elapsed();
    let listed = settled(dir.path(), &serve, clients);
    let peak_kib = rss_peak_kib(serve.daemon.pid());
    eprintln!(
        "{clients} clients of {} MiB in {:.1} s, {} packets sent again, {forged} forged heralds, receiver's peak {} MiB",
        pages * 4096 / (1 << 20),
        took.as_secs_f64(),
        resent.load(Ordering::Relaxed),
        peak_kib / 1024
    );
    assert_eq!(forged, heralds);
    let allowed_kib = RSS_BASE_KIB + RSS_SESSION_KIB * clients as u64;
    assert!(
        peak_kib < allowed_kib,
        "{peak_kib} KiB resident, {allowed_kib} are allowed"
    );
    for index in 0..clients {
        let mine = listed.iter().find(|core| core["guest"] == format!("host-{index}"));
        let mine = mine.unwrap_or_else(|| panic!("no core of host-{index}"));
        assert_eq!(mine["state"], "complete", "{mine}");
        let stored = serve.vmcore_path(mine["id"].as_str().expect("an id"));
        let same = std::fs::read(stored).expect("the stored core can be read") == **cores[index % cores.len()];
        assert!(same, "the core of host-{index} differs");
    }
}
