//! Our em under a stock kernel, beside QEMU's `e1000` and `virtio-net` under the same kernel, in the same machine and the same run.
//!
//! `cargo xtask bench em` only: it takes minutes and everything that `cargo xtask testbed --all` fetches. The machine is that of the
//! tests of stock kernels: a QEMU without KVM that emulates AMD's virtualisation, and in it a Debian with the real `kvm_amd`. An exit
//! costs there some 50 us, and a byte a few ns, so the times say what costs exits and not what silicon would do; ratios and the
//! exits themselves are what to look at. `--short` runs one kernel for a few seconds, which shows that everything still works.
//!
//! - [`script`]: what runs in the guests and in the machine
//! - [`outer`]: fills the machine and runs it
//! - [`rows`]: what it said, as a table

#[path = "../../tests/linux/machine.rs"]
mod machine;
#[path = "../shared/median.rs"]
mod median;
#[path = "../../tests/linux/pack.rs"]
mod pack;
#[path = "../../tests/tools/run.rs"]
mod run;
#[path = "../../tests/tools/testbed.rs"]
mod testbed;
#[path = "../../tests/linux/em/tools.rs"]
mod tools;

mod outer;
mod rows;
mod script;

use anyhow::{Context as _, Result};

use testbed::Testbed;

/// What the shared modules ask of the tests' own.
mod common {
    /// Why nothing is measured.
    pub(crate) fn skip(reason: &str) {
        eprintln!("SKIP: {reason}");
    }
}

/// How much of everything.
#[derive(Debug, Clone, Copy)]
struct Amount {
    /// How often each row is measured.
    rounds: u32,
    /// Seconds of a run of iperf3.
    seconds: u32,
    /// Round trips of a run of ping.
    pings: u32,
}

const SHORT: Amount = Amount {
    rounds: 1,
    seconds: 2,
    pings: 100,
};
const LONG: Amount = Amount {
    rounds: 3,
    seconds: 5,
    pings: 300,
};

fn main() -> Result<()> {
    let short = std::env::var_os("COREFERRY_BENCH_SHORT").is_some();
    let testbed = Testbed::find().context("nothing can be measured without the testbed")?;
    let (kernels, amount): (&[&str], Amount) = if short {
        (&["6.1-generic"], SHORT)
    } else {
        (&["6.1-generic", "6.12-generic"], LONG)
    };
    for kernel in kernels {
        let dir = tempfile::tempdir()?;
        let said = outer::run(&testbed, dir.path(), kernel, amount)?;
        println!("{kernel}, {amount:?}\n\n{}", rows::table(&rows::samples(&said)?)?);
    }
    Ok(())
}
