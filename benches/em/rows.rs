//! What the machine said, as samples and as a table.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::median::median;
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// Rows, as the machine names them and as a person reads them.
const ROWS: [(&str, &str); 5] = [
    ("tcp-up", "TCP, guest to host, Mbit/s"),
    ("tcp-down", "TCP, host to guest, Mbit/s"),
    ("udp-up", "64-byte UDP, guest to host, packets/s"),
    ("udp-down", "64-byte UDP, host to guest, packets/s"),
    ("rtt", "round trips/s"),
];
/// Machines; the first is ours, the second what it is measured by.
const VMS: [&str; 3] = ["coreferry-em", "qemu-e1000", "qemu-virtio"];
/// Data of a TCP segment at an MTU of 1500, with timestamps: what counts as a packet, however the ends cut it.
const SEGMENT_LEN: f64 = 1448.0;

/// One run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// In the unit of its row.
    speed: f64,
    exits_per_packet: f64,
    /// Exits that went out of the kernel, to the program.
    to_program_per_packet: f64,
    /// Processor time of the program and its guest.
    cpu_us_per_packet: f64,
}

/// By row, machine and round.
pub(crate) type Samples = BTreeMap<(String, String), Vec<Sample>>;

/// The samples in what the machine said.
pub(crate) fn samples(said: &str) -> Result<Samples> {
    let mut samples = Samples::new();
    for line in said.lines().filter_map(|line| line.trim_end().strip_prefix("SAMPLE|")) {
        let fields: Vec<&str> = line.splitn(6, '|').collect();
        let [_, row, vm, before, after, said] = fields.as_slice() else {
            continue;
        };
        let sample = sample(row, before, after, said).with_context(|| format!("{row} of {vm}: {line}"))?;
        samples
            .entry((String::from(*row), String::from(*vm)))
            .or_default()
            .push(sample);
    }
    Ok(samples)
}

fn sample(row: &str, before: &str, after: &str, said: &str) -> Result<Sample> {
    let (speed, packets) = if row == "rtt" { pings(said)? } else { iperf(row, said)? };
    ensure!(packets > 0.0, "nothing passed");
    let spent = |name: &str| Ok::<_, anyhow::Error>((count(after, name)? - count(before, name)?) / packets);
    Ok(Sample {
        speed,
        exits_per_packet: spent("exits")?,
        to_program_per_packet: spent("mmio_exits")? + spent("io_exits")?,
        // 100 ticks are a second.
        cpu_us_per_packet: spent("cpu_ticks")? * 10_000.0,
    })
}

/// A count in `name=number name=number`.
fn count(counts: &str, name: &str) -> Result<f64> {
    let found = counts.split_whitespace().filter_map(|word| word.split_once('='));
    let number = found.filter(|(of, _)| *of == name).map(|(_, number)| number).next();
    Ok(number.with_context(|| format!("no count of {name}"))?.parse()?)
}

/// Round trips a second and how many there were, as ping says.
fn pings(said: &str) -> Result<(f64, f64)> {
    let came = said
        .split(" packets received")
        .next()
        .and_then(|text| text.split_whitespace().last());
    let average = said.split("= ").nth(1).and_then(|times| times.split('/').nth(1));
    let average_ms: f64 = average.context("ping says no times")?.parse()?;
    Ok((1000.0 / average_ms, came.context("ping says no number")?.parse()?))
}

/// Speed and packets, as the receiver of an iperf3 saw them.
fn iperf(row: &str, said: &str) -> Result<(f64, f64)> {
    let report: Value = serde_json::from_str(said)?;
    let number = |sum: &str, name: &str| {
        let value = report["end"][sum][name].as_f64();
        value.with_context(|| format!("no {name} in {sum}"))
    };
    if row.starts_with("udp") {
        let came = number("sum", "packets")? - number("sum", "lost_packets")?;
        return Ok((came / number("sum", "seconds")?, came));
    }
    let bytes = number("sum_received", "bytes")?;
    Ok((bytes * 8e-6 / number("sum_received", "seconds")?, bytes / SEGMENT_LEN))
}

/// Medians, and ratios to QEMU's e1000 as medians of the ratios within a round.
pub(crate) fn table(samples: &Samples) -> Result<String> {
    let mut text = String::from(
        "| | machine | speed | to QEMU's e1000 | exits a packet | of them to the program | CPU us a packet |\n|---|---|---|---|---|---|---|\n",
    );
    for (row, name) in ROWS {
        let of = |vm: &str| {
            samples
                .get(&(row.to_owned(), vm.to_owned()))
                .with_context(|| format!("no {row} of {vm}"))
        };
        let base = of(VMS[1])?;
        for vm in VMS {
            let mine = of(vm)?;
            let ratios = mine.iter().zip(base).map(|(mine, base)| mine.speed / base.speed);
            writeln!(
                text,
                "| {name} | {vm} | {:.1} | {:.2} | {:.2} | {:.2} | {:.0} |",
                median(mine.iter().map(|sample| sample.speed)),
                median(ratios),
                median(mine.iter().map(|sample| sample.exits_per_packet)),
                median(mine.iter().map(|sample| sample.to_program_per_packet)),
                median(mine.iter().map(|sample| sample.cpu_us_per_packet)),
            )?;
        }
    }
    Ok(text)
}
