# Prints what drgn sees of a crashed guest, one "key value…" a line. Arguments: core, vmlinux.
import sys

import drgn
from drgn.helpers.linux.pid import for_each_task
from drgn.helpers.linux.printk import get_printk_records
from drgn.helpers.linux.sched import cpu_curr, idle_task

prog = drgn.Program()
prog.set_core_dump(sys.argv[1])
prog.load_debug_info([sys.argv[2]])


def names(trace):
    return " ".join(frame.name for frame in trace)


print("release", prog["UTS_RELEASE"].string_().decode())
for task in for_each_task(prog):
    print("task", task.pid.value_(), task.comm.string_().decode())
crashed = prog.crashed_thread()
print("crashed", crashed.tid, crashed.object.comm.string_().decode())
print("crashed-stack", names(crashed.stack_trace()))
print("text", prog.symbol("_stext").address, prog.symbol("_etext").address)
for cpu in range(prog["nr_cpu_ids"].value_()):
    print("idle", cpu, idle_task(prog, cpu).comm.string_().decode())
    task = cpu_curr(prog, cpu)
    trace = prog.stack_trace(task)
    print("current", cpu, task.comm.string_().decode(), names(trace))
    values = trace[0].registers()
    for name in ("rip", "rsp", "rax", "rbx", "rcx", "rdx", "rbp", "r15", "rflags"):
        print("register", cpu, name, values[name])
for record in get_printk_records(prog):
    print("log", record.text.decode())
