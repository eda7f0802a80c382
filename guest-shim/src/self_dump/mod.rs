//! A guest that dumps itself, as one with netdump(4) does: the polled driver of an em, the netdump client, and a loop
//! between them. One thread, nothing allocated, no interrupts; it runs after a panic when nothing else of the guest does.
//!
//! ```text
//!  all RAM ──► chunk ──► Client (window) ──► Polled (one chain a burst) ──► em ──► receiver
//!                           ▲                     │
//!                           └── Station (ARP, UDP) ◄── acknowledgements
//! ```
//!
//! What the loop itself writes while it runs, it writes to memory that the caller gave it: the driver's window, a
//! [`Scratch`], and the caller's stack. So the caller knows which bytes of the dump may be older than the memory.
//!
//! - [`CoreLayout`]: the file, one page of ELF headers and all RAM
//! - [`KernelHeader`]: how the dump introduces itself
mod error;
mod feed;
mod file;
mod kernel_header;

use netdump::time::Duration;
use netdump::wire::HERALD_PORT;
use netdump::{Client, ClientConfig, ClientEvent, ClientStats, Instant, Station, StationConfig, StationState};
use nic_emu::polled::{Bus, FRAME_LEN_MAX, Polled, PolledError, QueueError, Window};

pub use error::SelfDumpError;
use feed::Feed;
pub use file::{CoreLayout, HEADERS_LEN};
pub use kernel_header::{KERNEL_HEADER_LEN, KernelHeader};
pub use netdump as protocol;
pub use nic_emu::polled;

/// Bytes that the client keeps until they are acknowledged.
pub const SEND_BUFFER_LEN: usize = netdump::limits::WINDOW_BYTES_MAX;
/// Bytes of memory that are copied at a time: one burst of a stock dumper (`MAXDUMPPGS * PAGE_SIZE`).
pub const CHUNK_LEN: usize = 64 * 1024;
/// How long a link may take to come up.
const LINK_WAIT: Duration = Duration::from_secs(5);
/// How long a full transmit ring is waited for; then the packet counts as lost and comes again.
const RING_WAIT: Duration = Duration::from_millis(100);

/// The guest's em, its clock and its memory.
pub trait Machine: Bus {
    /// The time since any fixed moment.
    fn now(&mut self) -> Instant;

    /// Copies RAM at a guest-physical address. It may be memory that changes just now.
    fn read_ram(&mut self, gpa: u64, buf: &mut [u8]);

    /// Nothing to do just now.
    fn pause(&mut self);
}

/// What is to be dumped, and to whom.
#[derive(Clone, Copy, Debug)]
pub struct SelfDump<'a> {
    /// This guest and its receiver.
    pub station: StationConfig,
    /// The receiver's UDP port for HERALDs, [`HERALD_PORT`] unless told otherwise.
    pub herald_port: u16,
    /// Memory for the driver's rings.
    pub window: Window,
    /// The file.
    pub layout: CoreLayout,
    /// How it introduces itself.
    pub header: KernelHeader<'a>,
}

/// The UDP port that receivers listen on.
pub const RECEIVER_PORT: u16 = HERALD_PORT;

/// Memory to work with.
#[derive(Debug)]
pub struct Scratch<'a> {
    /// What is on its way.
    pub send_buffer: &'a mut [u8; SEND_BUFFER_LEN],
    /// What is sent next.
    pub chunk: &'a mut [u8; CHUNK_LEN],
    /// One frame, or what one carries.
    pub frame: &'a mut [u8; FRAME_LEN_MAX],
}

impl SelfDump<'_> {
    /// Dumps the guest; returns when the receiver has confirmed that it keeps everything.
    ///
    /// # Errors
    /// [`SelfDumpError`].
    pub fn run(&self, machine: &mut impl Machine, scratch: Scratch<'_>) -> Result<ClientStats, SelfDumpError> {
        let Scratch {
            send_buffer,
            chunk,
            frame,
        } = scratch;
        let driver = start_driver(machine, self.window, self.station.mac)?;
        let config = ClientConfig::stock(self.station.mtu);
        let window_len = config.window_bytes.min(64 * config.payload_len_max);
        let mut conversation = Conversation {
            plan: self,
            station: Station::new(self.station, machine.now())?,
            client: None,
            buffer: Some(send_buffer),
            connected: false,
            config,
            refill_at: window_len / 2,
            feed: Feed::new(self.layout, self.header.encode(self.layout.len_bytes()), chunk),
            frame,
            driver,
        };
        let outcome = conversation.run(machine);
        conversation.driver.stop(machine);
        outcome
    }
}

/// Brings the em up; its link may need a moment.
fn start_driver(machine: &mut impl Machine, window: Window, mac: [u8; 6]) -> Result<Polled, PolledError> {
    let give_up_at = machine.now() + LINK_WAIT;
    loop {
        match Polled::start(machine, window, mac) {
            Err(PolledError::NoLink { .. }) if machine.now() < give_up_at => machine.pause(),
            other => return other,
        }
    }
}

/// The state of the dump.
struct Conversation<'a> {
    plan: &'a SelfDump<'a>,
    driver: Polled,
    station: Station,
    /// Made when the next hop is known, so that the receiver's time to answer begins then.
    client: Option<Client<&'a mut [u8; SEND_BUFFER_LEN]>>,
    /// The client's buffer until then.
    buffer: Option<&'a mut [u8; SEND_BUFFER_LEN]>,
    /// The receiver has answered, from the port that the client knows now.
    connected: bool,
    config: ClientConfig,
    /// Bytes of room from which on the client is fed again: half a window, so that packets leave in trains.
    refill_at: usize,
    feed: Feed<'a>,
    frame: &'a mut [u8; FRAME_LEN_MAX],
}

impl Conversation<'_> {
    fn run(&mut self, machine: &mut impl Machine) -> Result<ClientStats, SelfDumpError> {
        loop {
            self.resolve(machine)?;
            self.transmit(machine)?;
            self.driver.kick(machine);
            if self.receive(machine) == 0 {
                machine.pause();
            }
            if let Some(stats) = self.take_events()? {
                return Ok(stats);
            }
        }
    }

    /// Looks for the next hop, answers ARP, and makes the client once the way is known.
    fn resolve(&mut self, machine: &mut impl Machine) -> Result<(), SelfDumpError> {
        let now = machine.now();
        self.station.handle_timeout(now);
        while let Some(len) = self.station.poll_frame(now, self.frame) {
            let frame = self.frame.get(..len).unwrap_or_default();
            // A request that finds no room is lost, and comes again.
            let _ = self.driver.queue(machine, frame);
        }
        match self.station.state() {
            StationState::Ready => {
                if let Some(buffer) = self.buffer.take() {
                    self.client = Some(Client::new(self.config, "", buffer, now)?);
                }
                Ok(())
            }
            StationState::Resolving => Ok(()),
            StationState::Unreachable { who, .. } => Err(SelfDumpError::NoNextHop { who }),
        }
    }

    fn transmit(&mut self, machine: &mut impl Machine) -> Result<(), SelfDumpError> {
        let Some(client) = &mut self.client else { return Ok(()) };
        let now = machine.now();
        client.handle_timeout(now);
        if client.capacity() >= self.refill_at {
            self.feed.fill(machine, client, self.config.payload_len_max);
        }
        while let Some(transmit) = client.poll_transmit(now, self.frame) {
            let port = if self.connected {
                transmit.port
            } else {
                self.plan.herald_port
            };
            let headers = self.station.datagram_headers(port)?;
            let payload = self.frame.get(..transmit.len).unwrap_or_default();
            let give_up_at = now + RING_WAIT;
            while self.driver.queue_datagram(machine, &headers, payload) == Err(QueueError::Full)
                && machine.now() < give_up_at
            {
                self.driver.kick(machine);
                machine.pause();
            }
        }
        Ok(())
    }

    fn receive(&mut self, machine: &mut impl Machine) -> usize {
        let now = machine.now();
        let Self {
            driver,
            station,
            client,
            ..
        } = self;
        driver.poll(machine, &mut |frame| {
            if let (Some(udp), Some(client)) = (station.handle_frame(now, frame), client.as_mut()) {
                client.handle_datagram(now, udp.source_port, udp.payload);
            }
        })
    }

    /// The statistics once the receiver has confirmed everything.
    fn take_events(&mut self) -> Result<Option<ClientStats>, SelfDumpError> {
        while let Some(client) = &mut self.client {
            match client.poll_event() {
                Some(ClientEvent::Connected { .. }) => self.connected = true,
                Some(ClientEvent::Finished) => return Ok(Some(client.stats())),
                Some(ClientEvent::Failed(error)) => return Err(error.into()),
                None => break,
            }
        }
        Ok(None)
    }
}
