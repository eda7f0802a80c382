//! The entropy device (5.4): fills buffers with randomness of the host's.
use std::fs::File;
use std::io::{self, Read};

use super::device::{Identity, VirtioDevice};
use super::limits::{ENTROPY_LEN_MAX, QUEUE_SIZE_MAX};
use super::queue::{Broken, Chain, VirtQueue};
use crate::devices::worker::{After, Round};
use crate::memory::GuestMemory;

/// The device.
#[derive(Debug)]
pub struct Entropy {
    source: File,
    chain: Chain,
    buffer: Vec<u8>,
}

impl Entropy {
    /// A device that reads /dev/urandom (random(4)).
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open() -> io::Result<Entropy> {
        Ok(Entropy {
            source: File::open("/dev/urandom")?,
            chain: Chain::default(),
            buffer: Vec::new(),
        })
    }

    fn fill(&mut self, memory: &GuestMemory) -> u32 {
        let len = self.chain.writable.len_bytes().min(ENTROPY_LEN_MAX);
        self.buffer.resize(usize::try_from(len).unwrap_or(0), 0);
        let filled = self.source.read_exact(&mut self.buffer);
        let written = filled.is_ok() && self.chain.writable.write(memory.ram(), 0, &self.buffer).is_ok();
        if written { u32::try_from(len).unwrap_or(0) } else { 0 }
    }
}

impl VirtioDevice for Entropy {
    fn identity(&self) -> Identity {
        Identity {
            device_type: 4,
            // Base system peripheral, other.
            class: 0x08_80_00,
        }
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE_MAX]
    }

    fn config(&self) -> Vec<u8> {
        Vec::new()
    }

    fn work(&mut self, queues: &mut [VirtQueue], memory: &GuestMemory) -> Result<After, Broken> {
        let Some(queue) = queues.first_mut() else {
            return Ok(After::KICK);
        };
        let round = Round::begin();
        while !round.is_over() {
            if !queue.pop(memory.ram(), &mut self.chain)? {
                let more = queue.listen(memory.ram())?;
                queue.signal(memory.ram())?;
                return Ok(if more { After::Again } else { After::KICK });
            }
            let len = self.fill(memory);
            queue.push_used(memory.ram(), &self.chain, len)?;
        }
        queue.signal(memory.ram())?;
        Ok(After::Again)
    }
}

#[cfg(test)]
mod tests {
    use super::super::rig::Rig;
    use super::*;

    #[test]
    fn buffers_are_filled_with_randomness() {
        let mut rig = Rig::new(Box::new(Entropy::open().unwrap()), 0);
        rig.offer(0, &[], &[(0x1_0000, 64), (0x1_1000, 64)]);
        assert_eq!(rig.run(), After::KICK);
        assert_eq!(rig.used(0), [(0, 128)]);
        let (first, second) = (rig.read(0x1_0000, 64), rig.read(0x1_1000, 64));
        assert_ne!(first, second);
        assert_ne!(first, vec![0; 64]);
    }

    #[test]
    fn a_notification_without_a_buffer_interrupts_nobody() {
        let mut rig = Rig::new(Box::new(Entropy::open().unwrap()), 0);
        rig.run();
        assert_eq!(rig.raised(), []);
        rig.offer(0, &[], &[(0x1_0000, 64)]);
        rig.run();
        assert_eq!(rig.raised().len(), 1);
        rig.run();
        assert_eq!(rig.raised(), []);
    }

    #[test]
    fn a_buffer_outside_ram_gets_nothing_and_does_no_harm() {
        let mut rig = Rig::new(Box::new(Entropy::open().unwrap()), 0);
        rig.offer(0, &[], &[(u64::MAX - 8, 64)]);
        rig.offer(0, &[(0x1_0000, 8)], &[]);
        rig.offer(0, &[], &[(0x1_0000, u32::MAX)]);
        rig.run();
        assert_eq!(rig.used(0).len(), 3);
        assert_eq!(rig.used(0)[..2], [(0, 0), (1, 0)]);
    }
}
