//! A dump of a running guest that takes a minute, because the way to the receiver is slow: the guest stands still meanwhile, and
//! goes on as if nothing had been: no lockup, no stall, no clock that steps back.
//!
//! The same guest is then stopped behind the agent's back (SIGSTOP) for a time, of which nobody tells its kernel. That its
//! watchdog cries then shows that it was awake.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::case::{Case, HEAR};
use crate::kernels::Kernel;
use crate::seen::Seen;

/// How long the dump takes, and when the guest's watchdogs cry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// The way stays slow for so long.
    pub(crate) slow: Duration,
    /// The guest is stopped for so long afterwards.
    pub(crate) stopped: Duration,
    /// The kernel's `watchdog_thresh`: a soft lockup is told after twice as many seconds.
    pub(crate) watchdog_s: u32,
    /// Its `rcu_cpu_stall_timeout`.
    pub(crate) rcu_stall_s: u32,
}

impl Times {
    /// A minute, with the thresholds that kernels have by themselves.
    pub(crate) const LONG: Self = Self {
        slow: Duration::from_secs(60),
        stopped: Duration::from_secs(40),
        watchdog_s: 10,
        rcu_stall_s: 21,
    };
    /// A form for every run. Thresholds much lower would take a busy machine for a lockup.
    pub(crate) const SHORT: Self = Self {
        slow: Duration::from_secs(16),
        stopped: Duration::from_secs(14),
        watchdog_s: 4,
        rcu_stall_s: 8,
    };
}

/// Each processor has a recorder of both clocks ten times a second, and work that keeps RCU busy. What the log says of
/// watchdogs and clocks follows on the console.
const PAYLOAD: &str = r#"
echo "CLOCKSOURCE $(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)"
echo $watchdog > /proc/sys/kernel/watchdog_thresh
echo $stall > /sys/module/rcupdate/parameters/rcu_cpu_stall_timeout
echo "ARMED $(cat /proc/sys/kernel/soft_watchdog) $(cat /proc/sys/kernel/watchdog_cpumask) $(cat /proc/sys/kernel/watchdog_thresh) \
$(cat /sys/module/rcupdate/parameters/rcu_cpu_stall_timeout)"
record() {
  while [ ! -e /tmp/stop ]; do
    real=$EPOCHREALTIME; { read line; read line; read word word mono word; } < /proc/timer_list
    echo "${real%.*}${real#*.}000 $mono"; usleep 100000
  done > /tmp/clock$1
}
work() { while [ ! -e /tmp/stop ]; do (: > /tmp/work$1; rm /tmp/work$1); usleep 20000; done; }
for cpu in 0 1; do
  record $cpu & taskset -p $((cpu+1)) $! > /dev/null
  work $cpu & taskset -p $((cpu+1)) $! > /dev/null
done
report() {
  for cpu in 0 1; do
    awk -v what=$1 -v cpu=$cpu 'NR > 1 { for (i = 1; i <= 2; i++) { step = $i - last[i]; if (step < 0) back++; if (step > max[i]) max[i] = step } }
      { last[1] = $1; last[2] = $2 }
      END { printf "CLOCK%d %s %d samples %d backwards longest %.2f %.2f\n", cpu, what, NR, back, max[1]/1e9, max[2]/1e9 }' /tmp/clock$cpu
  done
  dmesg | grep -i -E 'lockup|stall|hung task|clocksource.*(unstable|skew)|timekeeping' | sed "s/^/LOG $1 /"
  echo "REPORTED $1"
}
n=0; meanwhile() { n=$((n+1)); echo "ALIVE $n"; }
hear DUMPED; report dump
hear STOPPED; report stop
"#;

/// The dump begins when the guest has been alive for a while; ten seconds after it the guest reports.
const STEPS: &str = r#"
lives() { said "ALIVE $(($(grep -c ALIVE $OUT) + $1))"; }
said 'ALIVE 4' || return
begin=$(now); vms dump > /dev/null; echo "DUMP ended with $? from $begin to $(now)"
lives 8 || return
tell DUMPED; said 'REPORTED dump' || return
vmm=$(vmm)
kill -STOP $vmm; sleep $stopped; kill -CONT $vmm; echo "STOPPED $stopped"
lives 4 || return
tell STOPPED
"#;

/// The guest, whose dumps go to this receiver.
pub(crate) fn case(kernel: Kernel, times: Times, receiver: &str) -> Case {
    let Times {
        slow,
        stopped,
        watchdog_s,
        rcu_stall_s,
    } = times;
    Case::new("long", kernel)
        .disk()
        .options(&format!("--netdump {receiver}"))
        .payload(&format!(
            "load virtio_pci virtio_blk; watchdog={watchdog_s}; stall={rcu_stall_s}\n{HEAR}{PAYLOAD}"
        ))
        .steps(&format!("stopped={}\n{STEPS}", stopped.as_secs()))
        .expect(move |seen| {
            seen.exited(0)?;
            seen.line(&format!("ARMED 1 0-1 {watchdog_s} {rcu_stall_s}"))?;
            let took_s = dump_took(seen)?;
            ensure!(took_s >= slow.as_secs_f64(), "the dump took only {took_s:.1} s");
            let clocks = [clock(seen, "CLOCK0 dump")?, clock(seen, "CLOCK1 dump")?];
            seen.never("LOG dump ")?;
            // The control: as long without a word, and the same kernel complains.
            seen.line("LOG stop ")
                .context("nobody noticed that the guest was stopped: the control failed")?;
            ensure!(seen.count("soft lockup") > 0, "no soft lockup in the control");
            let stalls = seen
                .output
                .lines()
                .filter(|line| line.starts_with("LOG stop ") && line.contains("rcu:"));
            Ok(format!(
                "a dump of {took_s:.1} s; {}; {}; {}; control: soft lockup told, {} lines of RCU",
                seen.line("CLOCKSOURCE")?,
                clocks[0],
                clocks[1],
                stalls.count()
            ))
        })
}

/// From the request to the end of the dump, as a user sees it.
fn dump_took(seen: &Seen) -> Result<f64> {
    let line = seen.step("DUMP ended with 0 from ")?;
    let times: Vec<f64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    match times.as_slice() {
        [_, begin, end] => Ok(end - begin),
        _ => anyhow::bail!("{line:?}"),
    }
}

/// One processor's record: at least as many samples as seconds, and none is before the one before it.
fn clock<'a>(seen: &'a Seen, which: &str) -> Result<&'a str> {
    let line = seen.line(which)?;
    let word = |at: usize| line.split_whitespace().nth(at).unwrap_or_default();
    ensure!(word(2).parse::<u32>()? > 30, "too few samples: {line}");
    ensure!(word(4) == "0", "a clock stepped back: {line}");
    Ok(line)
}
