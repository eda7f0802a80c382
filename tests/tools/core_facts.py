# Prints what drgn sees of a core, one "key value" a line. Arguments: core, vmlinux.
import sys

import drgn
from drgn.helpers.linux.panic import panic_message
from drgn.helpers.linux.pid import for_each_task
from drgn.helpers.linux.sched import cpu_curr

prog = drgn.Program()
prog.set_core_dump(sys.argv[1])
prog.load_debug_info([sys.argv[2]])
print("release", prog["UTS_RELEASE"].string_().decode())
print("banner", prog["linux_banner"].string_().decode().strip())
print("tasks", sum(1 for _ in for_each_task(prog)))
print("panic", panic_message(prog).decode())
thread = prog.crashed_thread()
print("crashed", thread.tid, thread.object.comm.string_().decode())
print("frames", " ".join(frame.name or "?" for frame in thread.stack_trace()))
for cpu in range(prog["nr_cpu_ids"].value_()):
    frame = prog.stack_trace(cpu_curr(prog, cpu))[0]
    print(f"cpu{cpu}", hex(frame.register("rip")), hex(frame.register("rsp")))
