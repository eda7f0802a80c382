//! Damaged cores of every form: each program that reads one ends with an error, or with what could be told, never by a panic, and
//! within bounds of memory and of processor time, which are measured for each. `COREFERRY_ALL` asks for 10,000 cores,
//! `COREFERRY_SEED` for one of them. Others claim as much as a core can.

#[path = "hostile/claims.rs"]
mod claims;
mod common;
#[path = "hostile/damage.rs"]
mod damage;
#[path = "hostile/elf.rs"]
mod elf;
#[path = "hostile/form.rs"]
mod form;
#[path = "hostile/freebsd.rs"]
mod freebsd;
#[path = "hostile/kernel.rs"]
mod kernel;
#[path = "hostile/measured.rs"]
mod measured;
#[path = "hostile/store.rs"]
mod store;
#[path = "hostile/tally.rs"]
mod tally;

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use common::{coreferry, path_text, run_ok, temp_dir};
use damage::{Damaged, Random, damage};
use form::Form;
use kernel::Kernel;
use serde_json::Value;
use store::{ID, Store};
use tally::{Outcome, Tally};

/// Damaged cores.
const CORES: u64 = 400;
const CORES_ALL: u64 = 10_000;
/// The most memory that a program may have at any time, for any of these cores. They are small; what they claim is not.
const DAMAGED_PEAK_KIB_MAX: u64 = 256 << 10;
/// The most processor time for any of them: a program without optimisation on a slow machine takes a tenth of it.
const DAMAGED_CPU_MAX: Duration = Duration::from_secs(20);
/// The same for cores that were made to claim the most.
const CLAIMS_PEAK_KIB_MAX: u64 = 640 << 10;
const CLAIMS_CPU_MAX: Duration = Duration::from_secs(29);
/// What a person asks for takes as long as what is claimed is large; a hundredth of it with optimisation.
const ASKED_CPU_MAX: Duration = Duration::from_secs(100);

/// One after the other: the kernel tells of the largest program only, so that the large ones come last, and alone.
#[test]
fn hostile_cores_give_an_error_or_what_can_be_told_within_bounds() -> Result<()> {
    let dir = temp_dir();
    let store = Store::new(&dir.path().join("store"))?;
    let one: Option<u64> = std::env::var("COREFERRY_SEED").ok().and_then(|seed| seed.parse().ok());
    let is_all = std::env::var_os("COREFERRY_ALL").is_some();
    let seeds = one.map_or(0..if is_all { CORES_ALL } else { CORES }, |seed| seed..seed + 1);
    damaged(&store, dir.path(), seeds)?;
    if one.is_none() {
        claiming(&store, dir.path(), is_all)?;
    }
    Ok(())
}

/// Cores of every form, damaged by a seed each.
fn damaged(store: &Store, dir: &Path, seeds: Range<u64>) -> Result<()> {
    let forms = forms(store, dir)?;
    let (printed, exported) = (dir.join("printed"), dir.join("exported"));
    let mut tally = Tally::new(DAMAGED_PEAK_KIB_MAX, DAMAGED_CPU_MAX);
    for form in &forms {
        store.put(form)?;
        let outcome = explain(store, &printed, &mut tally, form.name)?;
        let said = || fs::read_to_string(&printed).unwrap_or_default();
        ensure!(
            outcome == Outcome::Whole,
            "the sound {} is explained as {outcome:?}: {}",
            form.name,
            said()
        );
    }
    let count = seeds.end - seeds.start;
    for seed in seeds {
        let form = &forms[usize::try_from(seed)? % forms.len()];
        let mut random = Random::new(seed);
        let file = form.write(&store.core().join("vmcore"))?;
        let damaged = damage(form, &file, &mut random)?;
        store.say(form.format, &damaged)?;
        let who = format!("{}, seed {seed}", form.name);
        let outcome = explain(store, &printed, &mut tally, &who)?;
        tally.explained(form.name, outcome);
        let mut command = ask(store, &exported, &mut random);
        tally.run(&mut command, &store::fresh(&printed)?, &who)?;
        let _ = fs::remove_file(&exported);
    }
    tally.print()?;
    ensure!(count == 1 || tally.has_all_outcomes(), "not every outcome was seen");
    Ok(())
}

/// Cores that claim as much as a core can.
fn claiming(store: &Store, dir: &Path, is_all: bool) -> Result<()> {
    let (printed, exported) = (dir.join("printed"), dir.join("exported"));
    for make in claims::all(is_all) {
        let claim = make();
        claim.write(&store::fresh(&store.core().join("vmcore"))?)?;
        store.say(claim.format, &Damaged::whole(claim.len))?;
        let mut tally = Tally::new(CLAIMS_PEAK_KIB_MAX, CLAIMS_CPU_MAX);
        let outcome = explain(store, &printed, &mut tally, claim.name)?;
        tally.explained(claim.name, outcome);
        tally.print()?;
        let mut tally = Tally::new(CLAIMS_PEAK_KIB_MAX, ASKED_CPU_MAX);
        tally.run(&mut store.ask(&["log", ID]), &store::fresh(&printed)?, claim.name)?;
        for format in ["elf", "kdump-flat-zstd"] {
            let mut command = store.ask(&["export", ID, "--filter", "31", "--format", format, "-o"]);
            tally.run(command.arg(&exported), &store::fresh(&printed)?, claim.name)?;
            let _ = fs::remove_file(&exported);
        }
        tally.print()?;
    }
    Ok(())
}

/// Sound cores of each form.
fn forms(store: &Store, dir: &Path) -> Result<Vec<Form>> {
    let kernel = Kernel::new();
    let elf = Form::elf("elf", &kernel, true);
    store.put(&elf)?;
    let mut forms = vec![
        Form::elf("elf without VMCOREINFO", &kernel, false),
        Form::freebsd("freebsd"),
        Form::minidump("minidump 1", 1),
        Form::minidump("minidump 2", 2),
        Form::minidump("minidump 3", 3),
    ];
    for name in [
        "kdump-zstd",
        "kdump-zlib",
        "kdump-lzo",
        "kdump-flat-snappy",
        "kdump-uncompressed",
    ] {
        let to = dir.join(name);
        let arguments = ["--dir", path_text(store.root()), "--format", name, "-o", path_text(&to)];
        run_ok(&[&["cores", "export", ID], &arguments[..]].concat());
        forms.push(Form::kdump(name, &fs::read(&to)?));
        fs::remove_file(to)?;
    }
    // Where nearly everything is aimed at what a reader follows, more than once.
    forms.push(elf);
    Ok(forms)
}

/// Has the core explained as a receiver does.
fn explain(store: &Store, printed: &Path, tally: &mut Tally, who: &str) -> Result<Outcome> {
    let file = store::fresh(printed)?;
    let status = tally.run(coreferry().arg("explain-core").arg(store.core()), &file, who)?;
    if !status.success() {
        return Ok(Outcome::Error);
    }
    let explanation: Value = serde_json::from_slice(&fs::read(printed)?).with_context(|| who.to_owned())?;
    Ok(Outcome::of(&explanation))
}

/// One of the other commands that read a core.
fn ask(store: &Store, exported: &Path, random: &mut Random) -> Command {
    const FORMATS: [&str; 7] = [
        "elf",
        "raw",
        "kdump-zstd",
        "kdump-zlib",
        "kdump-lzo",
        "kdump-snappy",
        "kdump-flat-uncompressed",
    ];
    match random.below(4) {
        0 => store.ask(&["log", ID]),
        1 => store.ask(&["info", ID, "--json"]),
        _ => {
            let format = random.pick(&FORMATS);
            let level = (random.below(2) * 31).to_string();
            let mut command = store.ask(&["export", ID, "--format", format, "--filter", &level, "-o"]);
            command.arg(exported);
            command
        }
    }
}
