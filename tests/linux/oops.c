// SPDX-License-Identifier: GPL-2.0
/* Faults when it is loaded, with registers that a test knows again. */
#include <linux/module.h>

static int __init oops_init(void)
{
	unsigned long nowhere = 0xcf000cf0;

	/* The kernel prints the code around the fault; it must find some before it, or faults once more on the way. */
	asm volatile("jmp 1f\n.skip 64, 0x90\n1: movl (%0), %%ecx"
		     : : "a"(nowhere), "b"(0x5eed0ddba11ull), "S"(0x600ddeedull) : "ecx", "memory");
	return 0;
}
module_init(oops_init);

MODULE_DESCRIPTION("An oops on purpose");
MODULE_LICENSE("GPL");
