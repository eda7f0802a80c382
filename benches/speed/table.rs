//! Cases measured in turn, and the table of them.

use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::Size;
use crate::median::median;

/// One measurement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// What was moved.
    pub(crate) bytes: u64,
    /// In what time.
    pub(crate) took: Duration,
}

impl Sample {
    fn bytes_per_s(&self) -> f64 {
        self.bytes as f64 / self.took.as_secs_f64()
    }
}

/// Something to measure.
pub(crate) struct Case<'a> {
    name: String,
    /// What bounds it.
    limit: &'static str,
    /// Name of the file copy in the same group that it is compared with.
    copy: Option<String>,
    measure: Box<dyn FnMut() -> Result<Sample> + 'a>,
}

impl<'a> Case<'a> {
    /// A case by name, with what bounds it.
    pub(crate) fn new(
        name: impl Into<String>,
        limit: &'static str,
        measure: impl FnMut() -> Result<Sample> + 'a,
    ) -> Self {
        Self {
            name: name.into(),
            limit,
            copy: None,
            measure: Box::new(measure),
        }
    }

    /// The same, compared with the file copy of that name as well.
    pub(crate) fn beside(mut self, copy: impl Into<String>) -> Self {
        self.copy = Some(copy.into());
        self
    }
}

/// Measures all cases in turn and prints the table. The first case is the copy in memory that all are compared with.
pub(crate) fn run(title: &str, size: Size, mut cases: Vec<Case<'_>>) -> Result<()> {
    let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); cases.len()];
    let Size {
        rounds, warm_up_rounds, ..
    } = size;
    for round in 0..rounds + warm_up_rounds {
        for (case, samples) in cases.iter_mut().zip(&mut samples) {
            let sample = (case.measure)().with_context(|| case.name.clone())?;
            if round >= warm_up_rounds {
                samples.push(sample);
            }
        }
    }
    println!("\n{title} ({rounds} rounds)");
    println!(
        "{:<54} {:>8} {:>9} {:>9} {:>9} {:>8} {:>8} {:>7}  limited by",
        "", "MB", "min ms", "median ms", "max ms", "MB/s", "/memcpy", "/copy"
    );
    let memory = samples.first().cloned().unwrap_or_default();
    for (case, own) in cases.iter().zip(&samples) {
        let copy = case.copy.as_ref().and_then(|name| {
            let at = cases.iter().position(|other| other.name == *name)?;
            samples.get(at)
        });
        print_row(case, own, &memory, copy);
    }
    Ok(())
}

fn print_row(case: &Case<'_>, own: &[Sample], memory: &[Sample], copy: Option<&Vec<Sample>>) {
    let times: Vec<f64> = own.iter().map(|sample| sample.took.as_secs_f64() * 1e3).collect();
    let (shortest, longest) = ends(&times);
    let bytes = own.first().map_or(0, |sample| sample.bytes);
    println!(
        "{:<46} {:>8.1} {:>9.2} {:>9.2} {:>9.2} {:>8.0} {:>8.4} {:>7}  {}",
        case.name,
        bytes as f64 / 1e6,
        shortest,
        median(times),
        longest,
        median(own.iter().map(|sample| sample.bytes_per_s() / 1e6)),
        ratio(own, memory),
        copy.map_or_else(|| "-".to_owned(), |copy| format!("{:.3}", ratio(own, copy))),
        case.limit,
    );
}

/// The median over the rounds of one rate as a part of another.
fn ratio(own: &[Sample], other: &[Sample]) -> f64 {
    let pairs = own.iter().zip(other);
    median(pairs.map(|(own, other)| own.bytes_per_s() / other.bytes_per_s()))
}

/// The smallest and the largest, NaN of none.
pub(crate) fn ends(values: &[f64]) -> (f64, f64) {
    let over = |pick: fn(f64, f64) -> f64| values.iter().copied().fold(f64::NAN, pick);
    (over(f64::min), over(f64::max))
}
