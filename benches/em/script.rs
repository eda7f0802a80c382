//! What runs in the guests, and in the machine around them.

/// What every guest runs: one network device, and iperf3 waiting on it. Which one of them it is comes by the kernel command line.
pub(crate) const GUEST: &str = r#"
T=/t; chmod +x $T/ld
load virtio_pci $bench_driver
ip link set lo up; ip link set eth0 up; ip addr add 10.9.$bench_n.2/24 dev eth0
until [ "$(cat /sys/class/net/eth0/carrier)" = 1 ]; do usleep 50000; done
until ping -c 1 -W 1 10.9.$bench_n.1 > /dev/null; do :; done
echo "GUEST LINKED"
while true; do $T/ld --library-path $T $T/iperf3 -s > /dev/null; done
"#;

/// What the machine runs, after its variables: `SECONDS_EACH`, `PINGS`, `ROUNDS`.
///
/// All guests are up for the whole of it, and only one of them is ever spoken to: what is compared is measured within seconds of
/// each other. A TAP has the same address for each of them. KVM counts a machine's exits in its folder of debugfs.
pub(crate) const MACHINE: &str = r#"
cd /p; chmod +x coreferry t/ld q/ld
mount -t debugfs debugfs /sys/kernel/debug
APPEND="console=ttyS0 quiet panic=-1 bench_n"
GUEST="-m 256 -smp 1 -kernel vmlinuz -initrd initrd.cpio"
QEMU="q/ld --library-path q q/qemu-system-x86_64 -L q -accel kvm -cpu host -M pc -nodefaults -no-user-config -display none -no-reboot"
VMS="coreferry-em qemu-e1000 qemu-virtio"
n=0
for vm in $VMS; do
  tunctl -t tap$n > /dev/null; ip addr add 10.9.$n.1/24 dev tap$n; ip link set tap$n up
  device="-netdev tap,id=n,ifname=tap$n,script=no,downscript=no -serial file:/tmp/$vm.out -device"
  case $vm in
    coreferry-em) COREFERRY_LOG=warn ./coreferry run --name em --kernel vmlinuz --initrd initrd.cpio --mem-mib 256 --vcpus 1 \
      --net tap=tap$n,model=em --append "$APPEND=$n bench_driver=e1000" > /tmp/$vm.out 2>&1 & ;;
    qemu-e1000) $QEMU $GUEST $device e1000,netdev=n,romfile= -append "$APPEND=$n bench_driver=e1000" 2> /tmp/$vm.err & ;;
    qemu-virtio) $QEMU $GUEST $device virtio-net-pci,netdev=n,romfile= -append "$APPEND=$n bench_driver=virtio_net" 2> /tmp/$vm.err & ;;
  esac
  echo $! > /tmp/$vm.pid
  until grep -q 'GUEST LINKED' /tmp/$vm.out; do
    kill -0 $(cat /tmp/$vm.pid) 2> /dev/null || { echo "NO GUEST $vm"; cat /tmp/$vm.out /tmp/$vm.err; exit 1; }
    sleep 0.3
  done
  echo "UP $vm"; n=$((n+1))
done
# The shell that started a program may still be its parent: the machine is that of the newest process with the folder.
counts() {
  for folder in /sys/kernel/debug/kvm/$(cat /tmp/$1.pid)-*; do
    for of in exits mmio_exits io_exits irq_exits halt_exits; do echo -n "$of=$(cat $folder/$of) "; done
  done
  awk '{ print "cpu_ticks=" $14 + $15 }' /proc/$(cat /tmp/$1.pid)/stat
}
iperf() { timeout 60 t/ld --library-path t t/iperf3 -J -t $SECONDS_EACH "$@" | tr -d '\n\t '; }
row() {
  case $1 in
    tcp-up) iperf -R -c $2 ;;
    tcp-down) iperf -c $2 ;;
    udp-up) iperf -u -b 0 -l 64 -R -c $2 ;;
    udp-down) iperf -u -b 0 -l 64 -c $2 ;;
    rtt) ping -A -q -c $PINGS $2 | grep -E 'round-trip|received' | tr '\n' ' ' ;;
  esac
}
for round in $(seq $ROUNDS); do
  for row in tcp-up tcp-down udp-up udp-down rtt; do
    n=0
    for vm in $VMS; do
      before=$(counts $vm); said=$(row $row 10.9.$n.2); after=$(counts $vm)
      echo "SAMPLE|$round|$row|$vm|$before|$after|$said"; n=$((n+1))
    done
  done
done
exit 0
"#;
