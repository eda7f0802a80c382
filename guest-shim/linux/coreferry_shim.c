// SPDX-License-Identifier: GPL-2.0
/*
 * Tells the host why this kernel panics.
 *
 * Finds the shim's PCI function, sets a page aside for the panic record, and fills that page in a panic notifier that runs before
 * all others: pvpanic's among them, whose word to the host makes it take the memory. Everything that may fail or allocate is done
 * when the device is found; the notifier only copies.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/ctype.h>
#include <linux/elf.h>
#include <linux/errno.h>
#include <linux/gfp.h>
#include <linux/io.h>
#include <linux/kdebug.h>
#include <linux/kernel.h>
#include <linux/kmsg_dump.h>
#include <linux/limits.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/notifier.h>
#include <linux/panic_notifier.h>
#include <linux/pci.h>
#include <linux/sched.h>
#include <linux/string.h>
#include <linux/timekeeping.h>
#include <linux/utsname.h>
#include <linux/version.h>
#include <asm/msr.h>
#include <asm/processor.h>
#include <asm/special_insns.h>
#include <asm/tlbflush.h>

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 9, 0)
#include <linux/vmcore_info.h>
#else
#include <linux/crash_core.h>
#endif

#include "coreferry_shim_abi.h"

/* The newest part of the kernel log, as text. What is older is in the core anyway. */
#define LOG_LEN (64 * 1024)

/* Before the text of VMCOREINFO stands the head of an ELF note whose name is padded to 12 bytes. */
#define NOTE_HEAD_LEN (sizeof(struct elf64_note) + ALIGN(sizeof("VMCOREINFO"), 4))

static struct {
	void __iomem *registers;
	struct cfsh_record *record;
	char *log;
	phys_addr_t vmcoreinfo;
	u32 vmcoreinfo_len;
	u8 build_id[CFSH_BUILD_ID_LEN];
	u32 build_id_len;
	u32 sequence;
} shim;

/* The last oops: where it happened, in case the panic is its consequence. */
static struct {
	struct task_struct *task;
	struct pt_regs regs;
	unsigned long cr2;
} oops;

static void fill_registers(const struct pt_regs *regs, unsigned long cr2)
{
	struct cfsh_registers *to = &shim.record->registers;
	u64 fs_base, gs_base;

	rdmsrl(MSR_FS_BASE, fs_base);
	rdmsrl(MSR_GS_BASE, gs_base);
	to->rax = cpu_to_le64(regs->ax);
	to->rbx = cpu_to_le64(regs->bx);
	to->rcx = cpu_to_le64(regs->cx);
	to->rdx = cpu_to_le64(regs->dx);
	to->rsi = cpu_to_le64(regs->si);
	to->rdi = cpu_to_le64(regs->di);
	to->rbp = cpu_to_le64(regs->bp);
	to->rsp = cpu_to_le64(regs->sp);
	to->r8 = cpu_to_le64(regs->r8);
	to->r9 = cpu_to_le64(regs->r9);
	to->r10 = cpu_to_le64(regs->r10);
	to->r11 = cpu_to_le64(regs->r11);
	to->r12 = cpu_to_le64(regs->r12);
	to->r13 = cpu_to_le64(regs->r13);
	to->r14 = cpu_to_le64(regs->r14);
	to->r15 = cpu_to_le64(regs->r15);
	to->rip = cpu_to_le64(regs->ip);
	to->rflags = cpu_to_le64(regs->flags);
	to->cr0 = cpu_to_le64(read_cr0());
	to->cr2 = cpu_to_le64(cr2);
	to->cr3 = cpu_to_le64(__read_cr3());
	to->cr4 = cpu_to_le64(__read_cr4());
	to->fs_base = cpu_to_le64(fs_base);
	to->gs_base = cpu_to_le64(gs_base);
	shim.record->registers_valid = cpu_to_le32(1);
}

/*
 * Of a panic that no oops led to, only what leads back to its caller is known: this function's own frame.
 */
static void own_registers(struct pt_regs *regs)
{
	memset(regs, 0, sizeof(*regs));
	regs->ip = (unsigned long)__builtin_return_address(0);
	regs->sp = current_stack_pointer;
	regs->bp = (unsigned long)__builtin_frame_address(0);
	regs->flags = native_save_fl();
}

static void fill_message(const char *message)
{
	char *to = shim.record->message;
	int len = scnprintf(to, CFSH_MESSAGE_LEN, "Kernel panic - not syncing: %s", message);

	while (len > 0 && to[len - 1] == '\n')
		len--;
	shim.record->message_len = cpu_to_le32(len);
}

static void fill_log(void)
{
	struct kmsg_dump_iter iter;
	size_t len = 0;

	kmsg_dump_rewind(&iter);
	if (!kmsg_dump_get_buffer(&iter, false, shim.log, LOG_LEN, &len))
		return;
	shim.record->kernel_log.gpa = cpu_to_le64(virt_to_phys(shim.log));
	shim.record->kernel_log.len_bytes = cpu_to_le64(len);
}

static int on_panic(struct notifier_block *nb, unsigned long code, void *message)
{
	struct cfsh_record *record = shim.record;
	struct pt_regs here;

	WRITE_ONCE(record->complete, 0);
	WRITE_ONCE(record->sequence_end, 0);
	wmb();
	WRITE_ONCE(record->sequence_begin, cpu_to_le32(++shim.sequence));
	wmb();
	record->magic = cpu_to_le64(CFSH_RECORD_MAGIC);
	record->version = cpu_to_le16(CFSH_RECORD_VERSION);
	record->length = cpu_to_le32(CFSH_RECORD_LEN);
	/* The initial APIC id is the host's index of this CPU. */
	record->crashed_cpu = cpu_to_le32(cpuid_ebx(1) >> 24);
	record->time_unix_ns = cpu_to_le64(ktime_get_real_fast_ns());
	record->vmcoreinfo.gpa = cpu_to_le64(shim.vmcoreinfo);
	record->vmcoreinfo.len_bytes = cpu_to_le64(shim.vmcoreinfo_len);
	memcpy(record->build_id, shim.build_id, sizeof(shim.build_id));
	record->build_id_len = cpu_to_le32(shim.build_id_len);
	strscpy(record->os_name, init_utsname()->sysname, sizeof(record->os_name));
	strscpy(record->release, init_utsname()->release, sizeof(record->release));
	fill_message(message);
	if (oops.task == current) {
		fill_registers(&oops.regs, oops.cr2);
	} else {
		own_registers(&here);
		fill_registers(&here, read_cr2());
	}
	fill_log();
	wmb();
	WRITE_ONCE(record->sequence_end, cpu_to_le32(shim.sequence));
	wmb();
	WRITE_ONCE(record->complete, cpu_to_le32(CFSH_RECORD_COMPLETE));
	wmb();
	iowrite32(CFSH_DOORBELL_COMPLETE, shim.registers + CFSH_REG_DOORBELL);
	return NOTIFY_DONE;
}

static int on_oops(struct notifier_block *nb, unsigned long code, void *data)
{
	const struct die_args *args = data;

	if (code == DIE_OOPS && args->regs) {
		oops.regs = *args->regs;
		/* As early as it can be had: the kernel faults again, and recovers, while it prints what it cannot read. */
		oops.cr2 = read_cr2();
		oops.task = current;
	}
	return NOTIFY_DONE;
}

static struct notifier_block panic_block = {
	.notifier_call = on_panic,
	.priority = INT_MAX,
};

static struct notifier_block oops_block = {
	.notifier_call = on_oops,
};

/*
 * pvpanic's notifier has the highest priority as well (since Linux 6.0), and among equals the first that registered runs first.
 * The shim must run before it whichever was loaded first, so it goes to the very front of the list.
 */
static void register_first(void)
{
	unsigned long flags;

	spin_lock_irqsave(&panic_notifier_list.lock, flags);
	rcu_assign_pointer(panic_block.next, rcu_dereference_protected(panic_notifier_list.head, 1));
	rcu_assign_pointer(panic_notifier_list.head, &panic_block);
	spin_unlock_irqrestore(&panic_notifier_list.lock, flags);
}

static void find_vmcoreinfo(void)
{
	static const char key[] = "BUILD-ID=";
	phys_addr_t note_at = paddr_vmcoreinfo_note();
	const struct elf64_note *note;
	const char *text, *found;
	u32 digits = 0;

	if (!note_at)
		return;
	note = phys_to_virt(note_at);
	if (!note->n_descsz || note->n_descsz > VMCOREINFO_BYTES)
		return;
	shim.vmcoreinfo = note_at + NOTE_HEAD_LEN;
	shim.vmcoreinfo_len = note->n_descsz;
	text = (const char *)note + NOTE_HEAD_LEN;
	found = strnstr(text, key, shim.vmcoreinfo_len);
	if (!found)
		return;
	found += strlen(key);
	while (found + digits < text + shim.vmcoreinfo_len && digits < 2 * CFSH_BUILD_ID_LEN && isxdigit(found[digits]))
		digits++;
	if (!hex2bin(shim.build_id, found, digits / 2))
		shim.build_id_len = digits / 2;
}

static int register_record(struct pci_dev *device)
{
	u64 gpa = virt_to_phys(shim.record);
	u32 signature = ioread32(shim.registers + CFSH_REG_SIGNATURE);
	u32 status;

	if (signature != CFSH_SIGNATURE) {
		dev_err(&device->dev, "signature %#x is not that of a coreferry host\n", signature);
		return -ENODEV;
	}
	iowrite32(lower_32_bits(gpa), shim.registers + CFSH_REG_RECORD_GPA_LOW);
	iowrite32(upper_32_bits(gpa), shim.registers + CFSH_REG_RECORD_GPA_HIGH);
	iowrite32(CFSH_RECORD_LEN, shim.registers + CFSH_REG_RECORD_LEN);
	iowrite32(CFSH_DOORBELL_REGISTER, shim.registers + CFSH_REG_DOORBELL);
	status = ioread32(shim.registers + CFSH_REG_STATUS);
	if (status != CFSH_STATUS_REGISTERED) {
		dev_err(&device->dev, "the host refused the panic record at %#llx: status %#x\n", gpa, status);
		return -EIO;
	}
	return 0;
}

static void free_memory(void)
{
	if (shim.log)
		free_pages_exact(shim.log, LOG_LEN);
	free_page((unsigned long)shim.record);
	memset(&shim, 0, sizeof(shim));
}

static int shim_probe(struct pci_dev *device, const struct pci_device_id *id)
{
	int error;

	if (shim.record)
		return -EBUSY;
	error = pcim_enable_device(device);
	if (!error)
		error = pcim_iomap_regions(device, BIT(0), KBUILD_MODNAME);
	if (error)
		return error;
	shim.registers = pcim_iomap_table(device)[0];
	shim.record = (void *)get_zeroed_page(GFP_KERNEL);
	shim.log = alloc_pages_exact(LOG_LEN, GFP_KERNEL | __GFP_ZERO);
	error = shim.record && shim.log ? register_record(device) : -ENOMEM;
	if (error) {
		free_memory();
		return error;
	}
	find_vmcoreinfo();
	register_die_notifier(&oops_block);
	register_first();
	dev_info(&device->dev, "panics are reported to the host\n");
	return 0;
}

static void shim_remove(struct pci_dev *device)
{
	atomic_notifier_chain_unregister(&panic_notifier_list, &panic_block);
	unregister_die_notifier(&oops_block);
	iowrite32(CFSH_DOORBELL_FORGET, shim.registers + CFSH_REG_DOORBELL);
	free_memory();
}

static const struct pci_device_id shim_ids[] = {
	{ PCI_DEVICE_SUB(CFSH_PCI_VENDOR_ID, CFSH_PCI_DEVICE_ID, CFSH_PCI_VENDOR_ID, CFSH_PCI_SUBSYSTEM_ID) },
	{ }
};
MODULE_DEVICE_TABLE(pci, shim_ids);

static struct pci_driver shim_driver = {
	.name = KBUILD_MODNAME,
	.id_table = shim_ids,
	.probe = shim_probe,
	.remove = shim_remove,
};
module_pci_driver(shim_driver);

MODULE_DESCRIPTION("Tells a coreferry host why this kernel panics");
MODULE_AUTHOR("The coreferry authors");
MODULE_LICENSE("GPL");
