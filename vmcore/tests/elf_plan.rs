//! ELF cores in many pieces.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)] // helpers of tests; sizes chosen here

mod common;

use object::read::elf::FileHeader as _;
use vmcore::MemoryRange;
use vmcore::elf::{ElfPlan, ElfPlanError, TextMapping};
use vmcore::limits::READ_PROGRAM_HEADERS_MAX;
use vmcore::reader::CoreHead;

/// Every second page.
fn pieces(count: u64) -> Vec<MemoryRange> {
    let range = |index| MemoryRange {
        gpa: index * 8192,
        len_bytes: 4096,
    };
    (0..count).map(range).collect()
}

#[test]
fn any_number_of_segments_is_counted_as_the_elf_format_says() {
    let text = TextMapping {
        va: 0xffff_ffff_8100_0000,
        gpa: 8192,
        len_bytes: 4096,
    };
    for count in [1, 2, 1000, 65_532, 65_533, 65_534, 70_000] {
        let notes = [1, 0, 0, 0, 4, 0, 0, 0, 9, 0, 0, 0, b'x', 0, 0, 0, 1, 2, 3, 4];
        let ranges = pieces(count);
        let texts: &[TextMapping] = if count > 1 { &[text] } else { &[] };
        let plan = ElfPlan::new(&ranges, &notes, texts).unwrap();
        let head = CoreHead::parse(plan.start()).unwrap();
        assert_eq!(head.loads.len() as u64, count + texts.len() as u64);
        assert_eq!(head.notes_in(plan.start()).unwrap(), notes);
        for (range, load) in ranges.iter().zip(&head.loads) {
            assert_eq!((load.gpa, load.memory_len_bytes), (range.gpa, range.len_bytes));
            assert_eq!(load.file_offset % 4096, 0);
            assert_eq!(load.file_len_bytes, load.memory_len_bytes);
        }
        assert_eq!(plan.file_len(), plan.start().len() as u64 + count * 4096);
        // What others make of it.
        let elf = object::elf::FileHeader64::<object::Endianness>::parse(plan.start()).unwrap();
        let segments = elf.program_headers(object::Endianness::Little, plan.start()).unwrap();
        assert_eq!(segments.len() as u64, 1 + count + texts.len() as u64);
    }
}

#[test]
fn what_readers_would_refuse_is_not_written() {
    let many = pieces(READ_PROGRAM_HEADERS_MAX as u64);
    assert!(matches!(
        ElfPlan::new(&many, &[], &[]),
        Err(ElfPlanError::TooManyPieces { .. })
    ));
    assert_eq!(ElfPlan::new(&[], &[], &[]), Err(ElfPlanError::NoMemory));
    let long = [MemoryRange {
        gpa: 0,
        len_bytes: 1 << 50,
    }];
    assert_eq!(ElfPlan::new(&long, &[], &[]), Err(ElfPlanError::TooLong));
}
