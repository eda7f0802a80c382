//! From the guest's panic to the first packet of its dump.

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use vmm_agent::agent::policy::{CrashAction, OnCrash, RestartLimit};
use vmm_agent::boot::KernelImage;
use vmm_agent::dump::{ClientNetwork, Target};
use vmm_agent::net::{Instruments, WireSpec};
use vmm_agent::{Agent, AgentConfig, AgentEvent};

use crate::Size;
use crate::floor::TwoBuffers;
use crate::median::median;
use crate::table;

/// How long a guest may take to panic.
const PANIC_WITHIN: Duration = Duration::from_secs(60);

/// One guest's last moments, in milliseconds.
struct Death {
    /// From the last character on its console, which it prints before the panic is reported.
    from_console: f64,
    /// From the trigger.
    from_trigger: f64,
    /// From the freeze.
    from_frozen: f64,
    /// For copying the bytes that it touched.
    memcpy: f64,
    touched_bytes: u64,
}

/// Runs the group.
pub(crate) fn run(size: Size) -> Result<()> {
    println!("\npanic to first packet on the wire ({} guests)", size.panics);
    if let Err(why) = std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        println!("skipped: needs /dev/kvm ({why})");
        return Ok(());
    }
    let deaths = (0..size.panics)
        .map(|_| one_guest(size.touched_mib))
        .collect::<Result<Vec<_>>>()?;
    let touched_bytes = deaths.first().map_or(0, |death| death.touched_bytes);
    println!("the guest touched {:.1} MB", touched_bytes as f64 / 1e6);
    println!(
        "{:<46} {:>9} {:>9} {:>9} {:>9}  limited by",
        "", "min ms", "median ms", "max ms", "memcpy ="
    );
    print_row("memcpy of what the guest touched", "memory", &deaths, |death| {
        death.memcpy
    });
    let limit = "exits of the serial port, record, then as below";
    print_row(
        "last character of the console to first packet",
        limit,
        &deaths,
        |death| death.from_console,
    );
    let limit = "kicking the vCPUs, then as below";
    print_row("trigger to first packet", limit, &deaths, |death| death.from_trigger);
    let limit = "link of the em, ARP, HERALD";
    print_row("all vCPUs frozen to first packet", limit, &deaths, |death| {
        death.from_frozen
    });
    Ok(())
}

fn print_row(name: &str, limit: &str, deaths: &[Death], time: impl Fn(&Death) -> f64) {
    let times: Vec<f64> = deaths.iter().map(&time).collect();
    let (shortest, longest) = table::ends(&times);
    let (middle, ratio) = (
        median(times),
        median(deaths.iter().map(|death| time(death) / death.memcpy)),
    );
    println!("{name:<46} {shortest:>9.3} {middle:>9.3} {longest:>9.3} {ratio:>8.3}x  {limit}");
}

/// Boots a guest that fills its memory and panics, and ends it when the first packet of its dump is here.
fn one_guest(touched_mib: u64) -> Result<Death> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.set_read_timeout(Some(PANIC_WITHIN))?;
    let SocketAddr::V4(address) = socket.local_addr()? else {
        bail!("an IPv4 socket has no IPv4 address");
    };
    let console = Console::default();
    let (events, heard) = mpsc::channel();
    let agent = Agent::start(machine(touched_mib, Target::from(address), console.clone(), events))?;
    let arrived = socket.recv_from(&mut [0; 64]).map(|_| Instant::now());
    let touched_bytes = agent.handle().memory().allocated_bytes()?;
    // The first ends the machine after the dump, the second the dump.
    agent.handle().stop();
    agent.handle().stop();
    let _ = agent.wait();
    let arrived = arrived.context("no packet of the guest's dump came")?;
    let (mut trigger, mut frozen) = (None, None);
    for (event, at) in heard.try_iter() {
        match event {
            AgentEvent::Triggered(_) => trigger = trigger.or(Some(at)),
            AgentEvent::Frozen { .. } => frozen = frozen.or(Some(at)),
            _ => {}
        }
    }
    let mut buffers = TwoBuffers::new(touched_bytes)?;
    let memcpy = buffers.copy();
    let before = |at: Option<Instant>| at.map(|at| ms(arrived.saturating_duration_since(at)));
    Ok(Death {
        from_console: before(console.last(trigger)).context("the guest printed nothing")?,
        from_trigger: before(trigger).context("no trigger was told")?,
        from_frozen: before(frozen).context("no freeze was told")?,
        memcpy: ms(memcpy),
        touched_bytes,
    })
}

fn machine(
    touched_mib: u64,
    target: Target,
    console: Console,
    events: mpsc::Sender<(AgentEvent, Instant)>,
) -> AgentConfig {
    AgentConfig {
        name: "bench".to_owned(),
        kernel: KernelImage::Bytes(guest_shim::DEMO_GUEST_ELF),
        keep_kernel: false,
        initrd: None,
        devices: vmm_agent::devices::guest::DevicesConfig::default(),
        append: format!("mode=panic touch_mib={touched_mib}"),
        mem_mib: touched_mib + 64,
        vcpus: 2,
        panic_console: false,
        open_console: Box::new(move || Box::new(console.clone())),
        targets: vec![target],
        wire: WireSpec::User,
        instruments: Instruments::default(),
        network: ClientNetwork::for_user_wire("bench"),
        spool: None,
        filter: vmcore::linux::filter::FilterLevel::default(),
        dump_deadline: None,
        on_crash: OnCrash {
            dump: true,
            action: CrashAction::Destroy,
        },
        restart_limit: RestartLimit::DEFAULT,
        observer: Box::new(move |event| {
            let _ = events.send((event.clone(), Instant::now()));
        }),
    }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Remembers when the guest printed.
#[derive(Debug, Clone, Default)]
struct Console(Arc<Mutex<Vec<Instant>>>);

impl Console {
    /// The last time before `trigger`.
    fn last(&self, trigger: Option<Instant>) -> Option<Instant> {
        let times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        times.iter().rev().copied().find(|at| Some(*at) <= trigger)
    }
}

impl Write for Console {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Instant::now());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
