//! Free page reporting: pages that the guest reported free are no longer the host's to send, and those that it used again are in
//! the core with their new content.
//!
//! A file takes a part of the memory and is removed; the guest reports its pages, and the host makes holes of them. A second file
//! then takes some of those pages again, and the guest panics. Memory is copied aside in between, so that of each page it is known
//! what it was. A guest without a balloon does the same, for comparison.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufReader, Read as _};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::case::{Case, HEAR};
use crate::debuggers;
use crate::kernels::Kernel;
use crate::ours::OurCore;
use crate::seen::Seen;
use crate::testbed::Testbed;

/// Of the first file: 60 MiB.
const OLD_PAGES: u64 = 15360;
/// Of the second file: 80 MiB, of about 120 that are free then. So it takes many that were the first one's.
const NEW_PAGES: u64 = 20480;
const PAGE: u64 = 4096;
/// Linux reports only while 64 MiB are free (mm/page_reporting.c: 32 blocks of 2 MiB above the zone's low watermark).
const MEM_MIB: u32 = 208;

/// Each page of a file says which one it is. After each step the host looks, and says to go on.
const PAYLOAD: &str = r#"
load pvpanic_mmio qemu_fw_cfg virtio_pci virtio_blk $balloon
fill() { awk -v n=$2 -v word=$1 'BEGIN { rest = sprintf("%4078s", ""); for (i = 0; i < n; i++) printf "%s page %08d%s\n", word, i, rest }' > /tmp/$1; }
mount -o remount,size=90% /tmp
fill OLD $old; echo "FILLED $(wc -c < /tmp/OLD)"; hear REMOVE
rm /tmp/OLD; hear REUSE
fill NEW $new; echo "REUSED $(wc -c < /tmp/NEW)"; hear CRASH
echo c > /proc/sysrq-trigger
"#;

/// `used` is how many pages the memory's file has. Reports come two seconds after pages are free and only in blocks of 2 MiB; they
/// have ended when no more have come for a while.
const STEPS: &str = r#"
said FILLED || return
process=$(vmm); ram=$(ls -l /proc/$process/fd | sed -n 's,.* \([0-9]*\) -> /memfd:coreferry-guest-ram.*,\1,p')
used() { echo $(($(stat -L -c %b /proc/$process/fd/$ram) / 8)); }
filled=$(used); cp /proc/$process/fd/$ram $R/filled; tell REMOVE
n=0; while [ $reports = 1 ] && [ $(used) -gt $((filled - old / 4)) ] && [ $n -lt 60 ]; do sleep 1; n=$((n+1)); done
free=0; while [ $(used) != $free ]; do free=$(used); sleep 5; done
cp /proc/$process/fd/$ram $R/removed; tell REUSE
said REUSED || return
reused=$(used); tell CRASH
echo "PAGES filled $filled removed $free reused $reused"
"#;

/// The guest with a balloon, and one without if everything is asked for.
pub(crate) fn cases(everything: bool) -> Vec<Case> {
    let case = |name, balloon: &str, reports: u8| {
        let words = format!("old={OLD_PAGES}; new={NEW_PAGES}; reports={reports}; balloon={balloon}\n");
        Case::new(name, Kernel::Cloud61)
            .mem_mib(MEM_MIB)
            .append("init_on_free=0")
            .disk()
            .payload(&format!("{HEAR}{words}{PAYLOAD}"))
            .steps(&format!("{words}{STEPS}"))
            .brings_core()
            .expect(|seen| {
                seen.exited(10)?;
                seen.never("INSMOD FAILED")?;
                let stored = seen.core()?["stored_bytes"].as_u64().context("no stored_bytes")?;
                let pages = seen.step("PAGES ")?;
                Ok(format!("{pages}, in the core {}", stored / PAGE))
            })
    };
    let mut cases = vec![case("reporting", "virtio_balloon", 1)];
    if everything {
        cases.push(case("keeping", "", 0));
    }
    cases
}

/// Every page of the second file is in the core, also those that were reported; what was reported and stayed free is a hole.
pub(crate) fn check(testbed: &Testbed, dir: &Path, all: &[Seen]) -> Result<()> {
    for seen in all {
        let name = &seen.name;
        let (filled, removed) = (seen.file("filled"), seen.file("removed"));
        let old: Vec<u64> = pages(&filled, is_old)?;
        ensure!(
            old.len() as u64 == OLD_PAGES,
            "{name}: {} pages of the first file",
            old.len()
        );
        let zero: BTreeSet<u64> = pages(&removed, |page| page.iter().all(|byte| *byte == 0))?;
        let reported: BTreeSet<u64> = old.into_iter().filter(|page| zero.contains(page)).collect();

        let core = OurCore::open(&seen.file("core/vmcore"))?;
        let said = debuggers::run_script(testbed, dir, &core, include_str!("reuse/pages.py"))?;
        let new = new_pages(&said).with_context(|| format!("{name}: {said}"))?;
        ensure!(
            new.len() as u64 == NEW_PAGES,
            "{name}: {} pages of the second file:\n{said}",
            new.len()
        );
        let again = new.intersection(&reported).count();
        let left: BTreeSet<u64> = pages(&core.path, is_old)?;
        let stored = seen.core()?["stored_bytes"].as_u64().context("no stored_bytes")?;
        eprintln!(
            "{name}: of {OLD_PAGES} pages of the first file {} were reported, {again} of them used again by the second file, whose \
             pages are all right; {} pages of the first file and {} MiB are in the core",
            reported.len(),
            left.len(),
            stored >> 20
        );
        let enough = |count: usize| count as u64 >= OLD_PAGES / 8;
        if name == "reporting" {
            ensure!(enough(reported.len()), "{name}: hardly anything was reported");
            ensure!(
                enough(again),
                "{name}: hardly anything that was reported was used again"
            );
            ensure!(!enough(left.len()), "{name}: what was reported is in the core");
        } else {
            ensure!(reported.is_empty() && enough(left.len()), "{name}: it is no comparison");
        }
    }
    Ok(())
}

fn is_old(page: &[u8]) -> bool {
    page.starts_with(b"OLD page ") && page.ends_with(b" \n")
}

/// Numbers of the pages of a file for which something holds.
fn pages<C: FromIterator<u64>>(file: &Path, holds: impl Fn(&[u8]) -> bool) -> Result<C> {
    let mut file = BufReader::new(File::open(file)?);
    let mut page = vec![0; usize::try_from(PAGE)?];
    let numbers = (0..).map_while(|number| {
        file.read_exact(&mut page).ok()?;
        Some(holds(&page).then_some(number))
    });
    Ok(numbers.flatten().collect())
}

/// `RIGHT frame…`: the frames of the second file's pages that hold what they should.
fn new_pages(said: &str) -> Result<BTreeSet<u64>> {
    let line = said.lines().find_map(|line| line.strip_prefix("RIGHT "));
    let frames = line.context("drgn does not show the file")?.split_whitespace();
    Ok(frames.map(str::parse).collect::<Result<_, _>>()?)
}
