//! How fast frames pass from the polled driver through the device to a sink, against copying the same bytes once:
//! `cargo run --release -p nic-emu --example throughput`.

use std::hint::black_box;
use std::time::{Duration, Instant};

use nic_emu::polled::WINDOW_LEN;
use nic_emu::{Bus, Dma, DmaError, Em, EmConfig, FrameSink, Offloads, Polled, TxFrame, Window};

/// A window at address 0, and a device that transmits inline.
struct Port {
    em: Em,
    memory: Memory,
    sink: Count,
}

struct Memory(Vec<u8>);

impl Dma for Memory {
    fn read(&mut self, gpa: u64, buf: &mut [u8]) -> Result<(), DmaError> {
        let error = DmaError {
            gpa,
            len_bytes: buf.len(),
        };
        let start = usize::try_from(gpa).map_err(|_| error)?;
        buf.copy_from_slice(self.0.get(start..start + buf.len()).ok_or(error)?);
        Ok(())
    }

    fn write(&mut self, gpa: u64, bytes: &[u8]) -> Result<(), DmaError> {
        let error = DmaError {
            gpa,
            len_bytes: bytes.len(),
        };
        let start = usize::try_from(gpa).map_err(|_| error)?;
        self.0
            .get_mut(start..start + bytes.len())
            .ok_or(error)?
            .copy_from_slice(bytes);
        Ok(())
    }
}

#[derive(Default)]
struct Count {
    frames: u64,
    bytes: u64,
}

impl FrameSink for Count {
    fn offloads(&self) -> Offloads {
        Offloads::default()
    }

    fn send(&mut self, frames: &[TxFrame<'_>]) {
        for frame in frames {
            self.frames += 1;
            self.bytes += black_box(frame.bytes).len() as u64;
        }
    }
}

impl Bus for Port {
    fn read_register(&mut self, offset: u32) -> u32 {
        let mut data = [0; 4];
        self.em.mmio_read(0, offset, &mut data);
        u32::from_le_bytes(data)
    }

    fn write_register(&mut self, offset: u32, value: u32) {
        if self.em.mmio_write(0, offset, &value.to_le_bytes()).transmit {
            while self.em.transmit_pending() {
                self.em.transmit(0, &mut self.memory, &mut self.sink);
            }
        }
    }

    fn read_memory(&mut self, gpa: u64, buf: &mut [u8]) {
        let known_good = self.memory.read(gpa, buf);
        debug_assert!(known_good.is_ok());
    }

    fn write_memory(&mut self, gpa: u64, bytes: &[u8]) {
        let known_good = self.memory.write(gpa, bytes);
        debug_assert!(known_good.is_ok());
    }
}

fn main() {
    println!("frame   batch   frames/s     GB/s   memcpy GB/s   ratio");
    for len in [60, 1500, 4148, 9014] {
        for batch in [1, 16] {
            let frame: Vec<u8> = (0..len).map(|n: usize| n.to_le_bytes()[0]).collect();
            let copied = memcpy_rate(&frame);
            match port_rate(&frame, batch) {
                Ok(frames) => println!(
                    "{len:5}   {batch:5}   {frames:8.0}   {:6.2}   {:11.2}   {:5.3}",
                    frames * len as f64 / 1e9,
                    copied * len as f64 / 1e9,
                    frames / copied
                ),
                Err(error) => println!("{len:5}   {batch:5}   {error}"),
            }
        }
    }
}

/// Frames per second from `queue` to the sink.
fn port_rate(frame: &[u8], batch: usize) -> Result<f64, Box<dyn std::error::Error>> {
    let mut em = Em::new(EmConfig::new([2, 0, 0, 0, 0, 1]));
    em.set_bus_master(true);
    let mut port = Port {
        em,
        memory: Memory(vec![0; WINDOW_LEN]),
        sink: Count::default(),
    };
    let mut driver = Polled::start(
        &mut port,
        Window {
            gpa: 0,
            len_bytes: WINDOW_LEN as u64,
        },
        [2, 0, 0, 0, 0, 1],
    )?;
    let start = Instant::now();
    while start.elapsed() < RUN {
        for _ in 0..64 {
            for _ in 0..batch {
                driver.queue(&mut port, frame)?;
            }
            driver.kick(&mut port);
        }
    }
    Ok(port.sink.frames as f64 / start.elapsed().as_secs_f64())
}

/// Frames per second of one plain copy each, over as much memory as the driver's byte ring.
fn memcpy_rate(frame: &[u8]) -> f64 {
    let mut ring = vec![0; 256 * 1024];
    let (mut at, mut frames) = (0, 0_u64);
    let start = Instant::now();
    while start.elapsed() < RUN {
        for _ in 0..1024 {
            if let Some(to) = ring.get_mut(at..at + frame.len()) {
                to.copy_from_slice(black_box(frame));
            }
            black_box(&mut ring);
            at = (at + frame.len()) % (ring.len() - frame.len());
            frames += 1;
        }
    }
    frames as f64 / start.elapsed().as_secs_f64()
}

const RUN: Duration = Duration::from_millis(300);
