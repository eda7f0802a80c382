//! The devices that a user gives a guest, from their description to their place on the bus.
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, Mutex};

pub use nic_emu::device::EepromWrites;
use nic_emu::device::EmConfig;

use super::Interrupts;
use super::bus::lock;
use super::em::{EmFunction, LinkJob};
use super::pci::intx::IntxLines;
use super::pci::{PciError, PciRoot};
use super::posted::Posted;
use super::virtio::balloon::Balloon;
use super::virtio::block::{Block, DiskError};
use super::virtio::entropy::Entropy;
use super::virtio::limits::{DISKS_MAX, NETS_MAX};
use super::virtio::net::Net;
use super::virtio::queue::Broken;
use super::virtio::{VirtioDevice, VirtioPci};
use super::worker::{Waker, Workers};
use crate::memory::GuestMemory;
use crate::net::{Capture, Wire, WireError, WireSpec, WireSpecError};

/// The devices of a guest, beside those that every guest has.
#[derive(Clone, Debug, Default)]
pub struct DevicesConfig {
    /// Its network devices, in the order of their slots.
    pub nets: Vec<NetConfig>,
    /// Its disks, raw images, likewise.
    pub disks: Vec<PathBuf>,
    /// Where what crosses the network devices' wires is written down.
    pub capture: Option<Capture>,
}

/// A network device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetConfig {
    /// Where its frames go.
    pub wire: WireSpec,
    /// What it is to the guest.
    pub model: NetModel,
    /// Its address.
    pub mac: [u8; 6],
    /// What becomes of the guest's writes to an em's EEPROM. What is kept is kept until the guest is started anew.
    pub eeprom_writes: EepromWrites,
    /// A `user` wire reaches all of this host, its loopback addresses too, and takes the guest's own ports, as the dump port's
    /// does. Only for a guest that this program brings itself.
    pub trusted: bool,
}

/// What a network device is to the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NetModel {
    /// Intel 82540EM: `e1000` to Linux, `em` to FreeBSD.
    Em,
    /// Virtio network device: also for kernels that have no driver for the em.
    #[default]
    Virtio,
}

/// A network device as a user names it: `tap=IF|stream=SOCKET|user[,model=em|virtio][,mac=MAC][,eeprom=ignore|keep]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetSpec {
    /// Where its frames go.
    pub wire: WireSpec,
    /// What it is to the guest.
    pub model: NetModel,
    /// Its address, if the user gave one.
    pub mac: Option<[u8; 6]>,
    /// What becomes of the guest's writes to an em's EEPROM.
    pub eeprom_writes: EepromWrites,
}

/// What is wrong with the text of a network device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetSpecError {
    /// The wire.
    #[error(transparent)]
    Wire(#[from] WireSpecError),
    /// The model.
    #[error("`{0}` is no model of a network device: it is `em` or `virtio`")]
    Model(String),
    /// What becomes of writes to the EEPROM.
    #[error("`eeprom={0}` is neither `eeprom=ignore` nor `eeprom=keep`")]
    Eeprom(String),
    /// An EEPROM for a device that has none.
    #[error("`eeprom=` needs `model=em`: a virtio device has no EEPROM")]
    NoEeprom,
    /// The address.
    #[error("`{0}` is no unicast Ethernet address such as 02:00:00:00:00:9d")]
    Mac(String),
}

/// A device cannot be given to the guest.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// A network device's wire.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// A disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The bus.
    #[error(transparent)]
    Pci(#[from] PciError),
    /// A device whose queues cannot be made.
    #[error(transparent)]
    Queue(#[from] Broken),
    /// Too many of a kind.
    #[error("{count} {what}: at most {max}")]
    TooMany {
        /// What.
        what: &'static str,
        /// How many were asked for.
        count: usize,
        /// The bound.
        max: usize,
    },
    /// The host had no thread, descriptor or randomness left.
    #[error("cannot make a worker for {device}")]
    Resource {
        /// Which device.
        device: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

/// Puts the devices on the bus and starts their workers. Every guest gets an entropy device and a balloon.
///
/// # Errors
/// [`DeviceError`]: its text and its sources say what to do.
pub fn attach(
    config: &DevicesConfig,
    memory: &Arc<GuestMemory>,
    pci: &mut PciRoot,
    interrupts: &Arc<dyn Interrupts>,
    posted: &Arc<Posted>,
) -> Result<Workers, DeviceError> {
    for (what, count, max) in [
        ("network devices", config.nets.len(), NETS_MAX),
        ("disks", config.disks.len(), DISKS_MAX),
    ] {
        if count > max {
            return Err(DeviceError::TooMany { what, count, max });
        }
    }
    let mut board = Board {
        lines: IntxLines::new(Arc::clone(interrupts)),
        interrupts,
        posted,
        memory,
        pci,
        workers: Workers::default(),
    };
    let no_source = |source| DeviceError::Resource {
        device: "entropy".to_owned(),
        source,
    };
    board.add_virtio("entropy", Box::new(Entropy::open().map_err(no_source)?))?;
    board.add_virtio("balloon", Box::new(Balloon::new()))?;
    for (index, net) in config.nets.iter().enumerate() {
        let name = format!("net{index}");
        let mut wire = if net.trusted {
            net.wire.open()
        } else {
            open_wire(&net.wire)
        }?;
        if let Some(capture) = &config.capture {
            wire = capture.around(wire, &name);
        }
        match net.model {
            NetModel::Virtio => board.add_virtio(&name, Box::new(Net::new(wire, net.mac)))?,
            NetModel::Em => {
                let config = EmConfig {
                    mac: net.mac,
                    eeprom_writes: net.eeprom_writes,
                };
                board.add_em(&name, wire, config)?;
            }
        }
    }
    for (index, path) in config.disks.iter().enumerate() {
        let name = format!("disk{index}");
        let disk = Block::open(path, &name)?;
        if disk.is_read_only() {
            tracing::info!(disk = %path.display(), "not writable: the guest may only read it");
        }
        board.add_virtio(&name, Box::new(disk))?;
    }
    Ok(board.workers)
}

/// Opens a guest's wire. Other than the dump port's, it never waits for its peer, does not reach the loopback addresses of
/// this host, and takes no port that something else of this host may need.
///
/// # Errors
/// [`WireError::Open`].
pub fn open_wire(spec: &WireSpec) -> Result<Box<dyn Wire>, WireError> {
    spec.open_for_guest()
}

/// What devices are put on.
struct Board<'a> {
    lines: Arc<IntxLines>,
    interrupts: &'a Arc<dyn Interrupts>,
    posted: &'a Arc<Posted>,
    memory: &'a Arc<GuestMemory>,
    pci: &'a mut PciRoot,
    workers: Workers,
}

impl Board<'_> {
    fn add_virtio(&mut self, name: &str, device: Box<dyn VirtioDevice>) -> Result<(), DeviceError> {
        let waker = waker(name)?;
        let messages = Arc::clone(self.interrupts);
        let memory = Arc::clone(self.memory);
        let (function, job) = VirtioPci::new(device, memory, &self.lines, messages, waker.clone())?;
        let function = Arc::new(Mutex::new(function));
        let place = self.pci.add(function.clone())?;
        if let Some(gsi) = place.gsi {
            lock(&function).connect(gsi);
        }
        self.workers.spawn(name, waker, job).map_err(resource(name))
    }

    fn add_em(&mut self, name: &str, wire: Box<dyn Wire>, config: EmConfig) -> Result<(), DeviceError> {
        let waker = waker(name)?;
        let memory = Arc::clone(self.memory);
        let posted = Arc::clone(self.posted);
        let link = wire.link();
        let (function, job) = EmFunction::new(wire, config, memory, self.lines.pin(), waker.clone(), posted);
        let place = self.pci.add(function.clone())?;
        if let Some(gsi) = place.gsi {
            lock(&function).connect(gsi);
        }
        if let Some(link) = link {
            let job = LinkJob::new(function, link);
            let name = format!("{name}-link");
            self.workers
                .spawn(&name, self::waker(&name)?, job)
                .map_err(resource(&name))?;
        }
        self.workers.spawn(name, waker, job).map_err(resource(name))
    }
}

fn waker(name: &str) -> Result<Waker, DeviceError> {
    Waker::new().map_err(resource(name))
}

fn resource(device: &str) -> impl FnOnce(std::io::Error) -> DeviceError {
    let device = device.to_owned();
    |source| DeviceError::Resource { device, source }
}

impl FromStr for NetSpec {
    type Err = NetSpecError;

    fn from_str(text: &str) -> Result<Self, NetSpecError> {
        let (mut model, mut mac, mut eeprom_writes) = (None, None, None);
        let mut rest = text;
        // From the end, because a socket's path may hold commas.
        while let Some((before, option)) = rest.rsplit_once(',') {
            match option.split_once('=') {
                Some(("model", name)) if model.is_none() => model = Some(parse_model(name)?),
                Some(("mac", address)) if mac.is_none() => mac = Some(parse_mac(address)?),
                Some(("eeprom", policy)) if eeprom_writes.is_none() => eeprom_writes = Some(parse_eeprom(policy)?),
                _ => break,
            }
            rest = before;
        }
        let spec = NetSpec {
            wire: rest.parse()?,
            model: model.unwrap_or_default(),
            mac,
            eeprom_writes: eeprom_writes.unwrap_or(EepromWrites::Ignored),
        };
        if eeprom_writes.is_some() && spec.model != NetModel::Em {
            return Err(NetSpecError::NoEeprom);
        }
        Ok(spec)
    }
}

fn parse_model(name: &str) -> Result<NetModel, NetSpecError> {
    match name {
        "em" => Ok(NetModel::Em),
        "virtio" => Ok(NetModel::Virtio),
        _ => Err(NetSpecError::Model(name.to_owned())),
    }
}

fn parse_eeprom(policy: &str) -> Result<EepromWrites, NetSpecError> {
    match policy {
        "ignore" => Ok(EepromWrites::Ignored),
        "keep" => Ok(EepromWrites::Kept),
        _ => Err(NetSpecError::Eeprom(policy.to_owned())),
    }
}

fn parse_mac(text: &str) -> Result<[u8; 6], NetSpecError> {
    let octet = |octet: &str| u8::from_str_radix(octet, 16).ok().filter(|_| octet.len() == 2);
    let octets: Option<Vec<u8>> = text.split(':').map(octet).collect();
    octets
        .and_then(|octets| <[u8; 6]>::try_from(octets).ok())
        .filter(|mac| mac[0] & 1 == 0 && *mac != [0; 6])
        .ok_or_else(|| NetSpecError::Mac(text.to_owned()))
}

impl fmt::Display for NetModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NetModel::Em => "em",
            NetModel::Virtio => "virtio",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::super::PioDevice;
    use super::super::pci::intx::Recorder;
    use super::*;

    #[test]
    fn a_network_device_is_a_wire_with_options_in_any_order() {
        let tap = WireSpec::Tap("tap0".to_owned());
        let spec: NetSpec = "tap=tap0,mac=02:00:00:00:00:9d,model=em".parse().unwrap();
        assert_eq!((spec.wire, spec.model), (tap, NetModel::Em));
        assert_eq!(spec.mac, Some([2, 0, 0, 0, 0, 0x9d]));
        assert_eq!(spec.eeprom_writes, EepromWrites::Ignored);
        let spec: NetSpec = "user,eeprom=keep,model=em".parse().unwrap();
        assert_eq!(spec.eeprom_writes, EepromWrites::Kept);
        let spec: NetSpec = "stream=/run/a,b.sock,model=virtio".parse().unwrap();
        assert_eq!(spec.wire, WireSpec::Stream("/run/a,b.sock".into()));
        let spec: NetSpec = "user".parse().unwrap();
        assert_eq!(
            (spec.wire, spec.model, spec.mac),
            (WireSpec::User, NetModel::Virtio, None)
        );
    }

    #[test]
    fn wrong_texts_are_refused_by_name() {
        let error = |text: &str| text.parse::<NetSpec>().unwrap_err().to_string();
        assert!(error("user,model=e1000").contains("`e1000`"));
        assert!(error("user,mac=01:00:00:00:00:01").contains("`01:00:00:00:00:01`"));
        assert!(error("user,speed=10").contains("`user,speed=10`"));
        assert!(error("model=em").contains("`model=em`"));
        assert!(error("user,model=em,model=em").contains("user,model=em"));
        assert!(error("user,model=em,eeprom=yes").contains("`eeprom=yes`"));
        assert!(error("user,eeprom=keep").contains("needs `model=em`"));
    }

    #[test]
    fn every_device_finds_its_slot() {
        let memory = Arc::new(GuestMemory::create(8).unwrap());
        let interrupts: Arc<dyn Interrupts> = Arc::new(Recorder::default());
        let mut pci = PciRoot::new().unwrap();
        let mut image = tempfile::NamedTempFile::new().unwrap();
        image.write_all(&[0; 512]).unwrap();
        let net = |model| NetConfig {
            wire: WireSpec::User,
            model,
            mac: [2, 0, 0, 0, 0, 1],
            eeprom_writes: EepromWrites::Ignored,
            trusted: false,
        };
        let config = DevicesConfig {
            nets: vec![net(NetModel::Em), net(NetModel::Virtio)],
            disks: vec![image.path().to_owned()],
            capture: None,
        };
        let mut workers = attach(&config, &memory, &mut pci, &interrupts, &Arc::default()).unwrap();
        let mut pci = Arc::new(Mutex::new(pci));
        let mut ids = Vec::new();
        for device in 1..=5_u32 {
            let address = 0x8000_0000 | device << 11;
            assert_eq!(
                PioDevice::write(&mut pci, 0, &address.to_le_bytes()),
                super::super::IoOutcome::Done
            );
            let mut data = [0; 4];
            assert_eq!(PioDevice::read(&mut pci, 4, &mut data), super::super::IoOutcome::Done);
            ids.push(u32::from_le_bytes(data));
        }
        assert_eq!(ids, [0x1044_1af4, 0x1045_1af4, 0x100e_8086, 0x1041_1af4, 0x1042_1af4]);
        // Once the workers have ended, the disk is free for the next incarnation.
        assert!(matches!(
            Block::open(image.path(), "disk0"),
            Err(DiskError::InUse { .. })
        ));
        workers.stop(std::time::Duration::from_secs(5));
        Block::open(image.path(), "disk0").unwrap();
    }

    #[test]
    fn too_many_devices_and_a_missing_disk_are_refused() {
        let memory = Arc::new(GuestMemory::create(8).unwrap());
        let interrupts: Arc<dyn Interrupts> = Arc::new(Recorder::default());
        let attach_disks = |disks: Vec<PathBuf>| {
            let config = DevicesConfig {
                disks,
                ..DevicesConfig::default()
            };
            attach(
                &config,
                &memory,
                &mut PciRoot::new().unwrap(),
                &interrupts,
                &Arc::default(),
            )
            .unwrap_err()
            .to_string()
        };
        assert!(attach_disks(vec!["/nonexistent".into(); 17]).contains("17 disks: at most 16"));
        assert!(attach_disks(vec!["/nonexistent".into()]).contains("/nonexistent"));
    }
}
