//! `run`: a guest with its agent, in this process, until the guest ends.

use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::{ApiListener, ListenOn};
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::{AccessFlags, faccessat};
use vmcore::linux::filter::FilterLevel;
use vmm_agent::agent::policy::{CrashAction, OnCrash, RestartLimit, Verdict};
use vmm_agent::boot::{KernelError, KernelImage};
use vmm_agent::devices::guest::{DevicesConfig, NetConfig, NetSpec};
use vmm_agent::dump::{ClientAddress, ClientNetwork, Target, mac_for_vm};
use vmm_agent::incarnation::BootError;
use vmm_agent::limits::{MEM_MIB_MAX, VCPUS_MAX};
use vmm_agent::net::limits::{CAPTURE_SNAP_LEN, CAPTURE_SNAP_LEN_MAX};
use vmm_agent::net::{Capture, FaultPlan, Instruments, WireSpec};
use vmm_agent::{Agent, AgentConfig, AgentEvent, CoreFate, RunEnd};

use crate::cli_failure::{Exit, Failure, OrExit as _, Outcome};
use crate::host_port::HostPort;
use crate::output::{self, LogArgs};
use crate::{signals, vm_sockets};

/// What to do about a socket that cannot be had.
const CHOOSE_ANOTHER: &str = "choose another --name or --api";

/// How long the end waits for the answers of its API: whoever told the machine to stop shall hear that it does.
const ANSWERS_WAIT: Duration = Duration::from_secs(1);

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 the guest powered off or was stopped, 10 it crashed and its core is safe (received or\n\
                        spooled), 11 it crashed and its core is lost.\n\n\
                        Example: coreferry run --kernel guest.elf --mem-mib 512 --netdump 192.0.2.7 --spool /var/spool/coreferry"
)]
pub(crate) struct Args {
    /// Kernel to boot: a Linux bzImage (vmlinuz), an ELF kernel with a PVH entry (vmlinux), or an ELF64 executable with a `coreferry` note.
    #[arg(long, value_name = "FILE")]
    kernel: PathBuf,
    /// Put the kernel's file into the cores, so that it is there when they are debugged; `cores kernel` takes it out again.
    #[arg(long)]
    keep_kernel: bool,
    /// Initial RAM disk of a Linux kernel.
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,
    /// Its command line.
    #[arg(long, value_name = "STR", default_value = "", allow_hyphen_values = true)]
    append: String,
    /// Memory in MiB.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..=MEM_MIB_MAX))]
    mem_mib: u64,
    /// Number of processors.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=i64::from(VCPUS_MAX)))]
    vcpus: u8,
    /// Disk of the guest, a raw image, as a virtio block device; may repeat. Read-only if the file is not writable.
    #[arg(long, value_name = "FILE")]
    disk: Vec<PathBuf>,
    /// Network device of the guest; may repeat. Its wire is tap=IF, stream=SOCKET or user (ARP and UDP only); the model is
    /// virtio unless it is em (Intel 82540EM), whose EEPROM takes no writes unless they are to be kept while the guest runs.
    #[arg(long, value_name = "WIRE[,model=em|virtio][,mac=MAC][,eeprom=ignore|keep]")]
    net: Vec<NetSpec>,
    /// Name of the machine, in its dumps and for `coreferry vms`.
    #[arg(long, value_name = "NAME", default_value = "guest", value_parser = vm_sockets::check_name)]
    name: String,
    /// Receiver of dumps; may repeat, tried in order. 127.0.0.1 where neither this nor --spool is given.
    #[arg(long, value_name = "HOST[:PORT]")]
    netdump: Vec<HostPort>,
    /// Address of the dump port, needed with tap and stream.
    #[arg(long, value_name = "IP/PREFIX")]
    netdump_client: Option<ClientAddress>,
    /// Gateway to receivers outside the dump port's network.
    #[arg(long, value_name = "IP")]
    netdump_gateway: Option<Ipv4Addr>,
    /// Wire of the dump port: user (sockets of this host), tap=IF or stream=SOCKET.
    #[arg(long, value_name = "user|tap=IF|stream=SOCKET", default_value = "user")]
    dump_net: WireSpec,
    /// Ethernet address of the dump port; auto makes one from the name.
    #[arg(long, value_name = "auto|MAC", default_value = "auto")]
    dump_mac: DumpMac,
    /// Largest IP packet of a dump, 576 to 9000; chosen by the wire where not given.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(576..=9000))]
    dump_mtu: Option<u16>,
    /// Directory for cores that no receiver takes; `coreferry send` ships them later.
    #[arg(long, value_name = "DIR")]
    spool: Option<PathBuf>,
    /// Leave pages of a Linux guest out of its cores that a debugger hardly needs, as `makedumpfile -d` does: the sum of 1 zero
    /// pages (they never take room), 2 page cache, 4 page cache with private data, 8 pages of user processes, 16 free pages.
    #[arg(long, value_name = "LEVEL", default_value = "0")]
    filter: FilterLevel,
    /// Longest time for one attempt to save a core, such as 10m; without it only silence ends one.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    dump_deadline: Option<Duration>,
    /// What happens to a guest that crashed: dump-preserve, dump-restart, dump-destroy, preserve, restart, destroy.
    #[arg(long, value_name = "POLICY", default_value = "dump-destroy")]
    on_crash: OnCrash,
    /// Restarts in how long; one more, and the guest is preserved instead.
    #[arg(long, value_name = "N/TIME", default_value = "3/1h")]
    restart_limit: RestartLimit,
    /// Take "Kernel panic - not syncing" (FreeBSD: "panic: ") on the serial console for a crash.
    #[arg(long)]
    panic_console: bool,
    /// Write down what crosses the dump port's wire (interface `dump`) and the guest's network devices (`net0`, …) as a
    /// pcapng file for tcpdump and Wireshark, at most 1 GiB. Frames hold the guest's memory: only this user may read it.
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,
    /// Bytes of each frame that --pcap keeps; the default is all headers and little else.
    #[arg(long, value_name = "N", default_value_t = CAPTURE_SNAP_LEN, requires = "pcap",
          value_parser = clap::value_parser!(u32).range(64..=i64::from(CAPTURE_SNAP_LEN_MAX)))]
    pcap_snaplen: u32,
    /// For developers: frames of the dump port's wire are lost, doubled, …, such as seed=7,loss=1%,delay=5ms.
    #[arg(long, value_name = "FAULTS", hide = true)]
    dump_faults: Option<FaultPlan>,
    /// Socket of this machine's API.
    #[arg(long, value_name = "SOCKET")]
    api: Option<PathBuf>,
    #[command(flatten)]
    pub(super) log: LogArgs,
}

/// `auto`, or an Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DumpMac {
    Auto,
    Given([u8; 6]),
}

impl std::str::FromStr for DumpMac {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let octets: Option<Vec<u8>> = text
            .split(':')
            .map(|octet| u8::from_str_radix(octet, 16).ok().filter(|_| octet.len() == 2))
            .collect();
        match octets.and_then(|octets| <[u8; 6]>::try_from(octets).ok()) {
            Some(mac) if mac[0] & 1 == 0 && mac != [0; 6] => Ok(Self::Given(mac)),
            _ => Err("it is `auto` or a unicast Ethernet address such as 02:00:00:00:00:9d".to_owned()),
        }
    }
}

/// Runs the command.
pub(crate) fn run(args: Args) -> Outcome {
    let socket = args
        .api
        .clone()
        .unwrap_or_else(|| vm_sockets::socket_in(&vm_sockets::own_folder(), &args.name));
    let kernel = args.kernel.clone();
    let config = args.into_config()?;
    check_name_is_free(&socket)?;
    let agent = Agent::start(config).map_err(|why| does_not_boot(&kernel, why))?;
    let handle = agent.handle();
    let listening = ApiListener::start(
        ListenOn::Unix(socket),
        api::vm_router(std::sync::Arc::new(handle.clone())),
    );
    let serving = match listening {
        Ok(serving) => serving,
        Err(why) => {
            handle.stop();
            let _ = agent.wait();
            return Err(Failure::new(Exit::Failed, format!("{why}; {CHOOSE_ANOTHER}")));
        }
    };
    signals::on_stop(move || handle.stop()).or_exit(Exit::Failed)?;
    let end = agent.wait();
    serving.finish(ANSWERS_WAIT);
    Ok(match end {
        RunEnd::PoweredOff | RunEnd::Stopped => Exit::Ok,
        RunEnd::Crashed(CoreFate::Safe) => Exit::CoreSafe,
        RunEnd::Crashed(CoreFate::Lost) => Exit::CoreLost,
        RunEnd::BootFailed => Exit::Failed,
    })
}

impl Args {
    fn into_config(self) -> Result<AgentConfig, Failure> {
        let network = self.network()?;
        let capture = self
            .pcap
            .as_deref()
            .map(|file| Capture::create(file, self.pcap_snaplen));
        let capture = capture.transpose().or_exit(Exit::Failed)?;
        let devices = self.devices(capture.clone())?;
        check_wire(&self.dump_net)?;
        if let Some(spool) = &self.spool {
            make_spool(spool)?;
        }
        Ok(AgentConfig {
            targets: self.targets()?,
            name: self.name,
            kernel: KernelImage::File(self.kernel),
            keep_kernel: self.keep_kernel,
            initrd: self.initrd.map(KernelImage::File),
            append: self.append,
            mem_mib: self.mem_mib,
            vcpus: self.vcpus,
            devices,
            panic_console: self.panic_console,
            open_console: Box::new(|| Box::new(std::io::stdout())),
            wire: self.dump_net,
            instruments: Instruments {
                capture,
                faults: self.dump_faults,
            },
            network,
            spool: self.spool,
            filter: self.filter,
            dump_deadline: self.dump_deadline,
            on_crash: self.on_crash,
            restart_limit: self.restart_limit,
            observer: Box::new(|event| output::say(&describe(event))),
        })
    }

    fn devices(&self, capture: Option<Capture>) -> Result<DevicesConfig, Failure> {
        let is_tap = matches!(self.dump_net, WireSpec::Tap(_));
        if let Some(both) = self.net.iter().find(|net| is_tap && net.wire == self.dump_net) {
            let sentence = format!(
                "--net and --dump-net are both {}: give the dump port an interface of its own",
                both.wire
            );
            return Err(Failure::new(Exit::Usage, sentence));
        }
        let net = |(index, spec): (usize, &NetSpec)| NetConfig {
            wire: spec.wire.clone(),
            model: spec.model,
            mac: spec
                .mac
                .unwrap_or_else(|| mac_for_vm(&format!("{} net{index}", self.name))),
            eeprom_writes: spec.eeprom_writes,
            trusted: false,
        };
        Ok(DevicesConfig {
            nets: self.net.iter().enumerate().map(net).collect(),
            disks: self.disk.clone(),
            capture,
        })
    }

    fn targets(&self) -> Result<Vec<Target>, Failure> {
        if self.netdump.is_empty() && self.spool.is_none() {
            return Ok(vec![Target::from(Ipv4Addr::LOCALHOST)]);
        }
        let target = |named: &HostPort| {
            let address = named.resolve().or_exit(Exit::Failed)?;
            Ok(Target {
                address,
                name: named.to_string(),
            })
        };
        self.netdump.iter().map(target).collect()
    }

    fn network(&self) -> Result<ClientNetwork, Failure> {
        let user = ClientNetwork::for_user_wire(&self.name);
        let mac = match self.dump_mac {
            DumpMac::Auto => mac_for_vm(&self.name),
            DumpMac::Given(mac) => mac,
        };
        let gateway = self.netdump_gateway;
        let (address, gateway) = match (self.netdump_client, &self.dump_net) {
            (Some(address), _) => (address, gateway),
            (None, WireSpec::User) => (user.address, gateway.or(user.gateway)),
            (None, wire) => {
                let sentence = format!(
                    "--dump-net {wire} needs --netdump-client IP/PREFIX: the address of the dump port in that network"
                );
                return Err(Failure::new(Exit::Usage, sentence));
            }
        };
        Ok(ClientNetwork {
            address,
            gateway,
            mac,
            mtu: self.dump_mtu,
        })
    }
}

/// Opens the wire once before the guest runs: a crash is a bad moment to learn that an interface is missing.
fn check_wire(wire: &WireSpec) -> Result<(), Failure> {
    match wire {
        // Connecting to some peers (passt --one-off) ends them, so a socket is only looked at.
        WireSpec::Stream(socket) if socket.exists() => Ok(()),
        WireSpec::Stream(socket) => {
            let sentence = format!(
                "{wire}: there is no socket {}; start its server (passt, …) first",
                socket.display()
            );
            Err(Failure::new(Exit::Failed, sentence))
        }
        WireSpec::User | WireSpec::Tap(_) => wire.open().map(drop).or_exit(Exit::Failed),
    }
}

/// Makes the spool and looks whether a core can be put there: after a crash it is too late.
fn make_spool(spool: &Path) -> Result<(), Failure> {
    let writable = AccessFlags::W_OK | AccessFlags::X_OK;
    std::fs::create_dir_all(spool)
        .and_then(|()| Ok(faccessat(AT_FDCWD, spool, writable, AtFlags::AT_EACCESS)?))
        .map_err(|why| {
            let sentence = format!(
                "cannot use {} as the spool: {why}; name a directory that can be written",
                spool.display()
            );
            Failure::new(Exit::Failed, sentence)
        })
}

/// Refuses a name that another machine has before a guest is started for nothing; who binds the socket later decides.
fn check_name_is_free(socket: &Path) -> Result<(), Failure> {
    match UnixStream::connect(socket) {
        Err(_) => Ok(()),
        Ok(_) => {
            let sentence = format!("another machine answers at {}; {CHOOSE_ANOTHER}", socket.display());
            Err(Failure::new(Exit::Failed, sentence))
        }
    }
}

/// Why the guest does not start, with the option that is to blame.
fn does_not_boot(kernel: &Path, why: BootError) -> Failure {
    let is_kernel = matches!(why, BootError::Kernel(_));
    let is_load = matches!(why, BootError::Kernel(KernelError::Load { .. }));
    let mut sentence = format!("{:#}", anyhow::Error::new(why));
    if is_kernel {
        sentence = format!("--kernel {}: {sentence}", kernel.display());
    }
    if is_load {
        sentence.push_str("; --mem-mib gives it more");
    }
    Failure::new(Exit::Failed, sentence)
}

/// An event as a sentence.
pub(crate) fn describe(event: &AgentEvent) -> String {
    match event {
        AgentEvent::Booted { incarnation: 1 } => "the guest runs".to_owned(),
        AgentEvent::Booted { incarnation } => format!("the guest runs again, incarnation {incarnation}"),
        AgentEvent::Recorded(trigger) => format!("{trigger}; nothing is done about it for now"),
        AgentEvent::Triggered(trigger) => trigger.to_string(),
        AgentEvent::Frozen { took, vcpus } => format!("frozen: {vcpus} vCPUs stand still after {took:.1?}"),
        AgentEvent::DumpStarted { id } => format!("dump {id} begins"),
        AgentEvent::DumpEnded { outcome, .. } => outcome.to_string(),
        AgentEvent::Policy(Verdict { braked: true, .. }) => {
            "the guest crashes too often and is preserved instead of restarted (--restart-limit)".to_owned()
        }
        AgentEvent::Policy(verdict) => match verdict.action {
            CrashAction::Preserve => "the guest is preserved; `coreferry vms stop` ends it".to_owned(),
            CrashAction::Restart => "the guest is restarted".to_owned(),
            CrashAction::Destroy => "the guest is destroyed".to_owned(),
        },
        AgentEvent::Reset => "the guest reset itself".to_owned(),
        AgentEvent::Trouble(sentence) => sentence.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dump_mac_is_auto_or_a_unicast_address() {
        assert_eq!("auto".parse(), Ok(DumpMac::Auto));
        assert_eq!("02:00:00:00:00:9d".parse(), Ok(DumpMac::Given([2, 0, 0, 0, 0, 0x9d])));
        for text in [
            "",
            "guest",
            "02:00:00:00:00",
            "02:00:00:00:00:9d:01",
            "2:0:0:0:0:0",
            "01:00:00:00:00:00",
            "00:00:00:00:00:00",
        ] {
            assert!(text.parse::<DumpMac>().is_err(), "`{text}` was taken");
        }
    }
}
