# Reads the file /tmp/NEW out of a core's physical memory, page by page. Arguments: core, vmlinux.
import sys

import drgn
from drgn.helpers.linux.fs import path_lookup
from drgn.helpers.linux.mm import page_to_phys
from drgn.helpers.linux.xarray import xa_for_each

prog = drgn.Program()
prog.set_core_dump(sys.argv[1])
prog.load_debug_info([sys.argv[2]])

inode = path_lookup(prog, "/tmp/NEW").dentry.d_inode
right, wrong = [], []
for index, entry in xa_for_each(inode.i_mapping.i_pages.address_of_()):
    address = page_to_phys(drgn.cast("struct page *", entry)).value_()
    content = prog.read(address, 4096, physical=True)
    if content == f"NEW page {index:08d}".ljust(4095).encode() + b"\n":
        right.append(address // 4096)
    else:
        wrong.append((index, content[:32]))
print("RIGHT", *right)
print("WRONG", wrong[:10])
