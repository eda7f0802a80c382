//! Guests that crash and are restarted.

use anyhow::{Context as _, Result, ensure};

use crate::boots::COUNT_LIVES;
use crate::case::Case;
use crate::crashes::{CRASH, panicked};
use crate::kernels::Kernel;
use crate::seen::Seen;

/// The cases of a kernel.
pub(crate) fn cases(kernel: Kernel) -> Vec<Case> {
    vec![restarted(kernel), braked(kernel)]
}

/// It crashes in its first life and is well in its second.
fn restarted(kernel: Kernel) -> Case {
    let payload = format!("{COUNT_LIVES}[ $life = 1 ] || poweroff -f\n{CRASH}");
    Case::new("restarted", kernel)
        .disk()
        .options("--on-crash dump-restart")
        .payload(&payload)
        .expect(|seen| {
            seen.exited(0)?;
            seen.line("LIFE 2")?;
            let ready = seen.count("GUEST READY");
            ensure!(ready == 2, "{ready} times in userspace, not 2");
            panicked(seen, "sysrq triggered crash")?;
            Ok("in userspace again, core complete".into())
        })
}

/// It crashes at once in each of its lives.
fn braked(kernel: Kernel) -> Case {
    Case::new("braked", kernel)
        .options("--on-crash dump-restart --restart-limit 2/1h")
        .payload(CRASH)
        .steps("said 'preserved instead of restarted' && vms info; sleep 3; vms stop && echo STOPPED")
        .expect(|seen| {
            // Its last core is safe.
            seen.exited(10)?;
            three_complete_cores(seen)?;
            let ready = seen.count("GUEST READY");
            ensure!(ready == 3, "{ready} lives, not 3");
            seen.line("the guest crashes too often and is preserved instead of restarted (--restart-limit)")?;
            seen.step("preserved")?;
            seen.step("STOPPED")?;
            Ok("3 lives, 3 cores, then preserved".into())
        })
}

fn three_complete_cores(seen: &Seen) -> Result<()> {
    let states = seen
        .cores()
        .iter()
        .map(|core| core["state"].as_str().context("a core has a state"));
    let states: Vec<&str> = states.collect::<Result<_>>()?;
    ensure!(states == ["complete"; 3], "{states:?}");
    Ok(())
}
