/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The panic record and the device by which a guest tells the host where it is. docs/guest-shim.md is the specification; a test
 * compares every number below with the host's.
 */
#ifndef COREFERRY_SHIM_ABI_H
#define COREFERRY_SHIM_ABI_H

#include <linux/types.h>

/* The PCI function. */
#define CFSH_PCI_VENDOR_ID 0x1af4
#define CFSH_PCI_DEVICE_ID 0x10f7
#define CFSH_PCI_SUBSYSTEM_ID 0xcf01

/* Registers at the start of BAR 0, 32 bits each. */
#define CFSH_REG_SIGNATURE 0x00
#define CFSH_REG_VERSION 0x04
#define CFSH_REG_RECORD_GPA_LOW 0x08
#define CFSH_REG_RECORD_GPA_HIGH 0x0c
#define CFSH_REG_RECORD_LEN 0x10
#define CFSH_REG_DOORBELL 0x14
#define CFSH_REG_STATUS 0x18

/* SIGNATURE reads as this: "CFSH". */
#define CFSH_SIGNATURE 0x48534643

/* Written to DOORBELL. */
#define CFSH_DOORBELL_REGISTER 1
#define CFSH_DOORBELL_COMPLETE 2
#define CFSH_DOORBELL_FORGET 3

/* Read from STATUS. */
#define CFSH_STATUS_NONE 0
#define CFSH_STATUS_REGISTERED 1
#define CFSH_STATUS_COMPLETE 2
#define CFSH_STATUS_REFUSED 0xffffffff

/* Values in the record: "CFPANIC" and a NUL, "DONE". */
#define CFSH_RECORD_MAGIC 0x0043494e41504643
#define CFSH_RECORD_VERSION 1
#define CFSH_RECORD_COMPLETE 0x454e4f44
#define CFSH_CPU_UNKNOWN 0xffffffff

/* Lengths in bytes, and the number of registers. */
#define CFSH_RECORD_LEN 4096
#define CFSH_BUILD_ID_LEN 32
#define CFSH_OS_NAME_LEN 32
#define CFSH_RELEASE_LEN 96
#define CFSH_MESSAGE_LEN 2048
#define CFSH_REGISTERS 24

/* Where the fields lie, in bytes from the start of the record. */
#define CFSH_AT_MAGIC 0x000
#define CFSH_AT_VERSION 0x008
#define CFSH_AT_LENGTH 0x00c
#define CFSH_AT_SEQUENCE_BEGIN 0x010
#define CFSH_AT_CRASHED_CPU 0x014
#define CFSH_AT_TIME_UNIX_NS 0x018
#define CFSH_AT_KERNEL_LOG 0x020
#define CFSH_AT_VMCOREINFO 0x030
#define CFSH_AT_REGISTERS 0x040
#define CFSH_AT_REGISTERS_VALID 0x100
#define CFSH_AT_BUILD_ID_LEN 0x104
#define CFSH_AT_BUILD_ID 0x108
#define CFSH_AT_OS_NAME 0x128
#define CFSH_AT_RELEASE 0x148
#define CFSH_AT_MESSAGE_LEN 0x1a8
#define CFSH_AT_MESSAGE 0x1b0
#define CFSH_AT_SEQUENCE_END 0xff8
#define CFSH_AT_COMPLETE 0xffc

/* A piece of guest memory; length 0 is none. */
struct cfsh_range {
	__le64 gpa;
	__le64 len_bytes;
};

struct cfsh_registers {
	__le64 rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp;
	__le64 r8, r9, r10, r11, r12, r13, r14, r15;
	__le64 rip, rflags, cr0, cr2, cr3, cr4, fs_base, gs_base;
};

struct cfsh_record {
	__le64 magic;
	__le16 version;
	__le16 reserved0;
	__le32 length;
	__le32 sequence_begin;
	__le32 crashed_cpu;
	__le64 time_unix_ns;
	struct cfsh_range kernel_log;
	struct cfsh_range vmcoreinfo;
	struct cfsh_registers registers;
	__le32 registers_valid;
	__le32 build_id_len;
	__u8 build_id[CFSH_BUILD_ID_LEN];
	char os_name[CFSH_OS_NAME_LEN];
	char release[CFSH_RELEASE_LEN];
	__le32 message_len;
	__le32 reserved1;
	char message[CFSH_MESSAGE_LEN];
	__u8 reserved2[CFSH_AT_SEQUENCE_END - CFSH_AT_MESSAGE - CFSH_MESSAGE_LEN];
	__le32 sequence_end;
	__le32 complete;
};

#define CFSH_CHECK(what) _Static_assert(what, #what)
#define CFSH_CHECK_AT(field, at) CFSH_CHECK(__builtin_offsetof(struct cfsh_record, field) == (at))

CFSH_CHECK(sizeof(struct cfsh_record) == CFSH_RECORD_LEN);
CFSH_CHECK(sizeof(struct cfsh_registers) == CFSH_REGISTERS * 8);
CFSH_CHECK_AT(magic, CFSH_AT_MAGIC);
CFSH_CHECK_AT(version, CFSH_AT_VERSION);
CFSH_CHECK_AT(length, CFSH_AT_LENGTH);
CFSH_CHECK_AT(sequence_begin, CFSH_AT_SEQUENCE_BEGIN);
CFSH_CHECK_AT(crashed_cpu, CFSH_AT_CRASHED_CPU);
CFSH_CHECK_AT(time_unix_ns, CFSH_AT_TIME_UNIX_NS);
CFSH_CHECK_AT(kernel_log, CFSH_AT_KERNEL_LOG);
CFSH_CHECK_AT(vmcoreinfo, CFSH_AT_VMCOREINFO);
CFSH_CHECK_AT(registers, CFSH_AT_REGISTERS);
CFSH_CHECK_AT(registers_valid, CFSH_AT_REGISTERS_VALID);
CFSH_CHECK_AT(build_id_len, CFSH_AT_BUILD_ID_LEN);
CFSH_CHECK_AT(build_id, CFSH_AT_BUILD_ID);
CFSH_CHECK_AT(os_name, CFSH_AT_OS_NAME);
CFSH_CHECK_AT(release, CFSH_AT_RELEASE);
CFSH_CHECK_AT(message_len, CFSH_AT_MESSAGE_LEN);
CFSH_CHECK_AT(message, CFSH_AT_MESSAGE);
CFSH_CHECK_AT(sequence_end, CFSH_AT_SEQUENCE_END);
CFSH_CHECK_AT(complete, CFSH_AT_COMPLETE);

#endif
