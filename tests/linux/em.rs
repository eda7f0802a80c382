//! The em under the stock `e1000` driver: the driver's own self-test, and what administrators do to an interface.

#[path = "em/tools.rs"]
mod tools;

use anyhow::{Context as _, Result, ensure};

use crate::case::{Case, LIMIT_S};
use crate::kernels::Kernel;
use crate::seen::Seen;
use crate::testbed::Testbed;

/// How much of everything.
#[derive(Debug, Clone, Copy)]
struct Amount {
    /// How often the link goes down and up.
    links: u32,
    /// How often the driver is unloaded and loaded.
    reloads: u32,
    /// Bytes by TCP, in each direction.
    bytes: u32,
    /// Seconds of each iperf3 run; 0 is none.
    seconds: u32,
}

const SHORT: Amount = Amount {
    links: 3,
    reloads: 2,
    bytes: 1_000_000,
    seconds: 0,
};
/// The loads have a guest of their own, so that both have time.
const LONG: Amount = Amount {
    links: 100,
    reloads: 0,
    bytes: 20_000_000,
    seconds: 5,
};

/// What the guest and its steps can call. `rx` is how many frames the driver took, `echos` how many echo requests came.
const LIB: &str = r#"
tool() { name=$1; shift; $T/ld --library-path $T $T/$name "$@"; }
rx() { cat /sys/class/net/eth0/statistics/rx_packets; }
echos() { awk '/^Icmp: [0-9]/ { print $10 }' /proc/net/snmp; }
link() {
  ip link set eth0 up; tries=0
  until [ "$(cat /sys/class/net/eth0/carrier 2> /dev/null)" = 1 ]; do
    usleep 50000; tries=$((tries+1)); [ $tries -lt 1200 ] || { echo "NO LINK $1"; return 1; }
  done
}
address() { ip addr add 10.9.$N.2/24 dev eth0; }
out() { ping -c 3 $2 10.9.$N.1 > /dev/null && echo "PING $1"; }
answered() { seen=$(echos); echo "ASK $1"; until [ $(($(echos)-seen)) -ge 2 ]; do usleep 200000; done; }
errors() { tool ethtool -S eth0 | grep -E 'err|fail|miss|collision' | grep -v ': 0$' | sed 's/^/ERROR COUNTER /'; }
snmp() { awk -v of="$1:" '$1 == of { if (!n++) split($0, name); else for (i = 2; i <= NF; i++) print "SNMP", of, name[i], $i }' /proc/net/snmp; }
"#;

/// The guest's side.
const GUEST: &str = r#"
T=/t; chmod +x $T/ld
load e1000 8021q
ip link set lo up; link first; address; out first
n=0; while [ $n -lt 20 ]; do
  n=$((n+1)); tool ethtool -t eth0 offline > /tmp/test; code=$?
  grep -q -E '^(Loopback.* 14|Interrupt.* 4)$' /tmp/test || break
  grep 'line)' /tmp/test | sed 's/^/LATE /'
done
cat /tmp/test; echo "SELFTEST $n ended with $code"
link "after the self-test"; out "after the self-test"

answered echo
until nc 10.9.$N.1 500$N < $T/random; do usleep 200000; done
nc -l -p 5000 | md5sum | sed 's/^/TCP IN /'
if [ $SECONDS_EACH -gt 0 ]; then
  for way in "" -R "-u -b 30M -l 1400" "-u -b 30M -l 1400 -R"; do
    tool iperf3 -c 10.9.$N.1 -p 520$N -t $SECONDS_EACH $way && echo "IPERF OK"
  done
fi

ip link set eth0 mtu 9000; link "with 9000 bytes"; out "of 8900 bytes" "-s 8900"; answered jumbo
vconfig add eth0 5; ip addr add 10.8.$N.2/24 dev eth0.5; ip link set eth0.5 up
ping -c 3 10.8.$N.1 > /dev/null && echo "PING by VLAN"
before=$(rx); answered vlan; echo "OTHER VLAN $(($(rx)-before)) frames"
vconfig rem eth0.5
n=0; while [ $n -lt 10 ]; do
  ifconfig eth0 promisc; ifconfig eth0 allmulti; ifconfig eth0 -promisc; ifconfig eth0 -allmulti; n=$((n+1))
done
before=$(rx); answered plain; echo "PLAIN $(($(rx)-before)) frames"
ifconfig eth0 promisc
before=$(rx); answered promiscuous; echo "PROMISCUOUS $(($(rx)-before)) frames"
ifconfig eth0 -promisc
tool ethtool -S eth0 | grep rx_csum_offload_good; errors; snmp Ip; snmp Tcp; snmp Udp; snmp Icmp

n=0; while [ $n -lt $LINKS ]; do ip link set eth0 down; link "number $n" || break; n=$((n+1)); done
out "after $n links"; errors
"#;

/// At the end of both guests.
const RELOAD: &str = r#"
n=0; while [ $n -lt $RELOADS ]; do rmmod e1000; insmod /mods/e1000.ko; link "load $n" || break; n=$((n+1)); done
address; out "after $n loads"
dmesg | grep -E 'e1000.*(Hang|rror|alid)|NETDEV WATCHDOG|BUG:' | sed 's/^/KERNEL SAID /'
echo "EM END"
"#;

/// The machine's side. 10.9.N.77 is a station that nobody is. A listening nc whose input ends shuts the connection down, which ends
/// the sender: its input is a pipe that stays open.
const STEPS: &str = r#"
T=/p/cases/$NAME/root/t; chmod +x $T/ld
md5sum < $T/random | sed 's/^/TCP OUT SENT /'
ip link set tap$N mtu 9000
arp -s 10.9.$N.77 02:00:00:00:00:77
vconfig add tap$N 5; ip addr add 10.8.$N.1/24 dev tap$N.5; ip link set tap$N.5 up
vconfig add tap$N 6; ip addr add 10.7.$N.1/24 dev tap$N.6; ip link set tap$N.6 up
arp -s 10.7.$N.2 ff:ff:ff:ff:ff:ff
answer() { ping -c 3 $2 10.9.$N.2 > /dev/null && echo "PING IN $1"; }
[ $SECONDS_EACH = 0 ] || tool iperf3 -s -p 520$N > /dev/null 2>&1 &
said 'ASK echo' && answer echo
mkfifo $R/open; nc -l -p 500$N <> $R/open | md5sum | sed 's/^/TCP OUT CAME /'
md5sum < $T/random | sed 's/^/TCP IN SENT /'
until nc 10.9.$N.2 5000 < $T/random; do kill -0 $pid || break; usleep 200000; done
said 'ASK jumbo' && answer jumbo "-s 8900"
said 'ASK vlan' && { ping -c 30 -i 0.1 -W 1 10.7.$N.2 > /dev/null; answer vlan; }
said 'ASK plain' && { ping -c 30 -i 0.1 -W 1 10.9.$N.77 > /dev/null; answer plain; }
said 'ASK promiscuous' && { ping -c 30 -i 0.1 -W 1 10.9.$N.77 > /dev/null; answer promiscuous; }
said 'EM END'
awk '$1 == "Tcp:" || $1 == "Udp:"' /proc/net/snmp
"#;

/// The cases of a kernel that has the driver.
pub(crate) fn cases(kernel: Kernel, testbed: &Testbed) -> Result<Vec<Case>> {
    if !kernel.has_e1000() {
        return Ok(Vec::new());
    }
    let everything = crate::everything();
    let amount = if everything { LONG } else { SHORT };
    let variables = format!(
        "LINKS={}; RELOADS={}; SECONDS_EACH={}\n{LIB}",
        amount.links, amount.reloads, amount.seconds
    );
    let mut case = Case::new("em", kernel)
        .net("em")
        .mem_mib(256)
        .limit_s(if everything { 2 * LIMIT_S } else { LIMIT_S })
        .file("t/random", random(amount.bytes))
        .payload(&format!("{variables}{GUEST}{RELOAD}"))
        .steps(&format!("{variables}{STEPS}"))
        .expect(move |seen| {
            check(seen, amount)?;
            Ok(format!(
                "self-test passes whole, {} links, {} loads, MTU 9000, VLAN, filters, no errors",
                amount.links, amount.reloads
            ))
        });
    let programs: &[&str] = if everything {
        &["ethtool", "iperf3"]
    } else {
        &["ethtool"]
    };
    for (path, bytes) in tools::files(testbed, programs)? {
        case = case.file(&path, bytes);
    }
    let mut cases = vec![case];
    if everything {
        cases.push(reloads(kernel));
    }
    Ok(cases)
}

/// The driver comes and goes.
fn reloads(kernel: Kernel) -> Case {
    let payload = format!("RELOADS=50\n{LIB}load e1000\nip link set lo up; link first\n{RELOAD}");
    Case::new("reloads", kernel)
        .net("em")
        .limit_s(2 * LIMIT_S)
        .payload(&payload)
        .expect(|seen| {
            seen.exited(0)?;
            seen.line("PING after 50 loads")?;
            seen.never("NO LINK")?;
            seen.never("KERNEL SAID")?;
            Ok("the driver was loaded 51 times, and works".into())
        })
}

fn check(seen: &Seen, amount: Amount) -> Result<()> {
    seen.exited(0)?;
    seen.line("EM END")?;
    self_test(seen)?;
    for (what, expected) in [("NO LINK", 0), ("ERROR COUNTER", 0), ("KERNEL SAID", 0)] {
        let found = seen.count(what);
        ensure!(found == expected, "{what:?} {found} times: {:?}", seen.line(what));
    }
    let links = format!("PING after {} links", amount.links);
    let loads = format!("PING after {} loads", amount.reloads);
    for line in [
        "PING first",
        "PING after the self-test",
        "PING of 8900 bytes",
        "PING by VLAN",
        &links,
        &loads,
    ] {
        seen.line(line)?;
    }
    for step in ["echo", "jumbo", "vlan", "plain", "promiscuous"] {
        seen.step(&format!("PING IN {step}"))?;
    }
    for (sent, came) in [
        (seen.step("TCP OUT SENT")?, seen.step("TCP OUT CAME")?),
        (seen.step("TCP IN SENT")?, seen.line("TCP IN ")?),
    ] {
        let digest = |line: &str| line.split_whitespace().rev().nth(1).map(str::to_owned);
        ensure!(
            digest(sent).is_some() && digest(sent) == digest(came),
            "{sent:?}, but {came:?}"
        );
    }
    let runs = seen.count("IPERF OK");
    let expected = if amount.seconds > 0 { 4 } else { 0 };
    ensure!(runs == expected, "{runs} runs of iperf3, not {expected}");
    filters(seen)?;
    checksums(seen)
}

/// Every item of `ethtool -t eth0 offline`, by the driver's own words: a name and 0.
///
/// Two of its items measure time: 64 frames through the loopback must have been looked at within two ticks (else 14), and an
/// interrupt must come within 10 ms (else 4). A guest of a guest whose processors are busy elsewhere may be late, so what was only late
/// is asked again; whatever else goes wrong is not, and what is late twenty times has failed.
fn self_test(seen: &Seen) -> Result<()> {
    seen.line("The test result is PASS")?;
    for item in [
        "Register test",
        "Eeprom test",
        "Interrupt test",
        "Loopback test",
        "Link test",
    ] {
        let line = seen.output.lines().find(|line| line.starts_with(item));
        let line = line.with_context(|| format!("no {item}"))?;
        ensure!(line.split_whitespace().last() == Some("0"), "{line:?}");
    }
    for late in seen.output.lines().filter(|line| line.starts_with("LATE ")) {
        let only_late = ["\t 0", "Loopback test  (offline)\t 14", "Interrupt test (offline)\t 4"];
        ensure!(only_late.iter().any(|end| late.ends_with(end)), "{late:?}");
    }
    let end = seen.line("SELFTEST ")?;
    ensure!(end.ends_with("ended with 0"), "{end:?}");
    Ok(())
}

/// 30 frames for a VLAN that is not ours, and 30 for another station, are for us only in promiscuous mode.
fn filters(seen: &Seen) -> Result<()> {
    let frames = |what: &str| -> Result<u32> {
        let line = seen.line(what)?;
        let number = line.split_whitespace().rev().nth(1).and_then(|word| word.parse().ok());
        number.with_context(|| format!("{line:?} has no number"))
    };
    for what in ["OTHER VLAN", "PLAIN"] {
        let count = frames(what)?;
        ensure!(count < 25, "{count} frames in {what}");
    }
    let count = frames("PROMISCUOUS")?;
    ensure!(count >= 30, "{count} frames in promiscuous mode");
    Ok(())
}

/// The driver took the device's word for checksums, nothing was cut into fragments, and nobody saw a wrong checksum.
fn checksums(seen: &Seen) -> Result<()> {
    let good = seen.line("rx_csum_offload_good")?;
    ensure!(!good.ends_with(": 0"), "{good:?}");
    for counter in [
        "Ip: FragCreates 0",
        "Ip: ReasmReqds 0",
        "Tcp: InCsumErrors 0",
        "Udp: InCsumErrors 0",
    ] {
        seen.line(&format!("SNMP {counter}"))?;
    }
    for protocol in ["Tcp:", "Udp:"] {
        let lines = seen.steps.lines().filter(|line| line.starts_with(protocol));
        let words: Vec<Vec<&str>> = lines.map(|line| line.split_whitespace().collect()).collect();
        let [names, values] = words.as_slice() else {
            anyhow::bail!("the machine did not say its {protocol} counters");
        };
        let at = names.iter().position(|name| *name == "InCsumErrors");
        ensure!(at.and_then(|at| values.get(at)) == Some(&"0"), "{protocol} {values:?}");
    }
    Ok(())
}

/// Bytes that no line discipline of a network would guess; the same in every run.
fn random(len: u32) -> Vec<u8> {
    let mut state = 0x9E37_79B9_u32;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[0]
    };
    (0..len).map(next).collect()
}
