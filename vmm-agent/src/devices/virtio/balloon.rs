//! The memory balloon (5.5) with free page reporting (5.5.6.7): pages that the guest gives away, or says are free, are
//! punched out of its memfd, so that a dump never sends them. Hinting is not offered: a guest may have reused hinted pages.
use rustix::fs::{FallocateFlags, fallocate};

use super::device::{Identity, VirtioDevice};
use super::limits::{BALLOON_FRAMES_MAX, QUEUE_SIZE_MAX};
use super::queue::{Broken, Chain, VirtQueue};
use crate::devices::worker::{After, Round};
use crate::memory::GuestMemory;

/// The guest may take pages back when it runs out (5.5.3, `VIRTIO_BALLOON_F_DEFLATE_ON_OOM`).
const F_DEFLATE_ON_OOM: u64 = 1 << 2;
/// Free page reporting (`VIRTIO_BALLOON_F_REPORTING`).
const F_REPORTING: u64 = 1 << 5;

/// Bytes of a balloon page, whatever the guest's pages are (5.5.6).
const PAGE: u64 = 4096;

const INFLATE: usize = 0;
const DEFLATE: usize = 1;
/// Queues that are not negotiated are left out of the count, as Linux and others do it (drivers/virtio/virtio_balloon.c).
const REPORTING: usize = 2;

/// The device.
#[derive(Debug, Default)]
pub struct Balloon {
    chain: Chain,
    /// Parts of the first waiting report that are holes already: the rest comes in a later round.
    reported_parts: usize,
    /// Bytes punched out so far.
    punched_bytes: u64,
}

impl Balloon {
    /// A balloon that the host never asks to be inflated.
    #[must_use]
    pub fn new() -> Balloon {
        Balloon::default()
    }

    /// Page frame numbers lie in the buffer; runs of them are punched at once.
    fn inflate(&mut self, memory: &GuestMemory) {
        let readable = &self.chain.readable;
        let count = (readable.len_bytes() / 4).min(BALLOON_FRAMES_MAX);
        let mut frames = vec![0; usize::try_from(count * 4).unwrap_or(0)];
        if readable.read(memory.ram(), 0, &mut frames).is_err() {
            return;
        }
        let mut run = 0..0;
        let mut punched = 0;
        for frame in frames.as_chunks::<4>().0 {
            let gpa = u64::from(u32::from_le_bytes(*frame)) * PAGE;
            if gpa != run.end {
                punched += punch(memory, run.start, run.end - run.start);
                run.start = gpa;
            }
            run.end = gpa + PAGE;
        }
        punched += punch(memory, run.start, run.end - run.start);
        self.punched_bytes += punched;
    }

    /// The buffers themselves are the free pages: many, where the guest has much free, so they may take several rounds. Whether
    /// all of this report is done.
    fn report(&mut self, memory: &GuestMemory, is_over: &dyn Fn() -> bool) -> bool {
        let writable = &self.chain.writable;
        for (gpa, len) in writable.parts(0, writable.len_bytes()).skip(self.reported_parts) {
            // One part in each round at least.
            self.punched_bytes += punch(memory, gpa.0, len.into());
            self.reported_parts += 1;
            if is_over() {
                return false;
            }
        }
        self.reported_parts = 0;
        tracing::debug!(
            reported_bytes = writable.len_bytes(),
            punched_bytes = self.punched_bytes,
            "the guest reported free pages"
        );
        true
    }

    fn serve(
        &mut self,
        queue: &mut VirtQueue,
        kind: usize,
        memory: &GuestMemory,
        is_over: &dyn Fn() -> bool,
    ) -> Result<After, Broken> {
        while !is_over() {
            if !queue.pop(memory.ram(), &mut self.chain)? {
                let more = queue.listen(memory.ram())?;
                queue.signal(memory.ram())?;
                return Ok(if more { After::Again } else { After::KICK });
            }
            match kind {
                INFLATE => self.inflate(memory),
                REPORTING if !self.report(memory, is_over) => {
                    queue.unpop();
                    break;
                }
                _ => {}
            }
            queue.push_used(memory.ram(), &self.chain, 0)?;
        }
        queue.signal(memory.ram())?;
        Ok(After::Again)
    }
}

/// Makes holes of the whole pages inside `len_bytes` bytes of RAM at `gpa`; returns how many bytes.
fn punch(memory: &GuestMemory, gpa: u64, len_bytes: u64) -> u64 {
    let place = || {
        let end = gpa.checked_add(len_bytes)? / PAGE * PAGE;
        let start = gpa.checked_next_multiple_of(PAGE)?;
        let len = end.checked_sub(start).filter(|len| *len > 0)?;
        Some((memory.memfd_offset(start, len)?, len))
    };
    let Some((offset, len)) = place() else {
        return 0;
    };
    match fallocate(
        &**memory.memfd(),
        FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
        offset,
        len,
    ) {
        Ok(()) => len,
        Err(error) => {
            tracing::debug!(%error, gpa = format_args!("{gpa:#x}"), len_bytes, "no hole for ballooned pages");
            0
        }
    }
}

impl VirtioDevice for Balloon {
    fn identity(&self) -> Identity {
        Identity {
            device_type: 5,
            // Memory controller, other.
            class: 0x05_80_00,
        }
    }

    fn features(&self) -> u64 {
        F_DEFLATE_ON_OOM | F_REPORTING
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE_MAX; 3]
    }

    /// `num_pages`, which stays zero, and `actual`, which the driver writes (5.5.4).
    fn config(&self) -> Vec<u8> {
        vec![0; 8]
    }

    fn config_writable(&self) -> std::ops::Range<usize> {
        4..8
    }

    fn reset(&mut self) {
        self.reported_parts = 0;
    }

    fn work(&mut self, queues: &mut [VirtQueue], memory: &GuestMemory) -> Result<After, Broken> {
        let mut after = After::KICK;
        let round = Round::begin();
        for kind in [INFLATE, DEFLATE, REPORTING] {
            if let Some(queue) = queues.get_mut(kind)
                && self.serve(queue, kind, memory, &|| round.is_over())? == After::Again
            {
                after = After::Again;
            }
        }
        Ok(after)
    }
}

#[cfg(test)]
mod tests {
    use super::super::rig::Rig;
    use super::*;

    /// A rig whose pages from 1 MiB to 2 MiB hold ones.
    fn rig() -> Rig {
        let mut rig = Rig::new(Box::new(Balloon::new()), 0);
        rig.write(1 << 20, &vec![1; 1 << 20]);
        rig
    }

    fn data_bytes(rig: &Rig) -> u64 {
        let range = vmcore::MemoryRange {
            gpa: 1 << 20,
            len_bytes: 1 << 20,
        };
        let extents = rig.memory().data_extents(range).unwrap();
        extents.iter().map(|extent| extent.len_bytes).sum()
    }

    #[test]
    fn inflated_pages_become_holes_and_deflated_ones_come_back_as_zeroes() {
        let mut rig = rig();
        let frames: Vec<u8> = [0x100_u32, 0x101, 0x102, 0x180]
            .iter()
            .flat_map(|frame| frame.to_le_bytes())
            .collect();
        rig.write(0x1_0000, &frames);
        rig.offer(INFLATE, &[(0x1_0000, 16)], &[]);
        rig.offer(DEFLATE, &[(0x1_0000, 16)], &[]);
        rig.run();
        assert_eq!(data_bytes(&rig), (1 << 20) - 4 * 4096);
        assert_eq!(rig.used(INFLATE), [(0, 0)]);
        assert_eq!(rig.used(DEFLATE), [(0, 0)]);
        assert_eq!(rig.read(0x10_1000, 4), [0; 4]);
        rig.write(0x10_1000, &[7; 4]);
        assert_eq!(rig.read(0x10_1000, 4), [7; 4]);
    }

    #[test]
    fn reported_pages_become_holes_at_once_and_reused_ones_hold_what_is_written_later() {
        let mut rig = rig();
        rig.offer(REPORTING, &[], &[(0x10_0000, 0x4_0000), (0x18_0000, 0x1000)]);
        rig.run();
        assert_eq!(data_bytes(&rig), (1 << 20) - 0x4_1000);
        rig.write(0x10_0000, &[9; 4096]);
        assert_eq!(data_bytes(&rig), (1 << 20) - 0x4_0000);
        assert_eq!(rig.read(0x10_0000, 4), [9; 4]);
    }

    #[test]
    fn a_report_that_takes_longer_than_a_round_goes_on_in_the_next_one() {
        let mut rig = rig();
        let parts: Vec<_> = (0..8).map(|n| (0x10_0000 + n * 0x2_0000, 0x1_0000)).collect();
        rig.offer(REPORTING, &[], &parts);
        let mut queues = std::mem::take(&mut rig.queues);
        let mut balloon = Balloon::new();
        for done in 1..=9_u64 {
            // Over after the first part.
            let looks = std::cell::Cell::new(0);
            let is_over = || looks.replace(looks.get() + 1) > 0;
            balloon
                .serve(&mut queues[REPORTING], REPORTING, rig.memory(), &is_over)
                .unwrap();
            assert_eq!(data_bytes(&rig), (1 << 20) - done.min(8) * 0x1_0000);
            assert_eq!(
                rig.used(REPORTING).len(),
                usize::from(done == 9),
                "given back when all is done"
            );
        }
    }

    #[test]
    fn pages_outside_ram_and_parts_of_pages_are_left_alone() {
        let mut rig = rig();
        let wild: Vec<u8> = [u32::MAX, 0xfee00, 0x7fff_ffff]
            .iter()
            .flat_map(|frame| frame.to_le_bytes())
            .collect();
        rig.write(0x1_0000, &wild);
        rig.offer(INFLATE, &[(0x1_0000, 12)], &[]);
        rig.offer(REPORTING, &[], &[(0x10_0800, 0x1000), (u64::MAX - 0xfff, 0x1000)]);
        rig.run();
        assert_eq!(data_bytes(&rig), 1 << 20);
        assert_eq!(rig.used(REPORTING), [(0, 0)]);
    }
}
