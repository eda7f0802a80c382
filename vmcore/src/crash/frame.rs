//! Functions of a call trace: which are the fault's own, and their names without what differs between builds.

/// Functions that report, handle or check: they stand above the place that failed. From arch/x86/kernel/{dumpstack,traps}.c,
/// arch/x86/mm/fault.c, kernel/panic.c, lib/{bug,list_debug,refcount,dump_stack}.c and mm/{kasan,usercopy}.c of Linux, and
/// sys/kern/{kern_shutdown,subr_kdb}.c and sys/amd64/amd64/trap.c of FreeBSD.
const MACHINERY: &[&str] = &[
    // Linux: saying so
    "__dump_stack",
    "dump_stack",
    "dump_stack_lvl",
    "show_stack",
    "show_trace_log_lvl",
    "panic",
    "nmi_panic",
    "vpanic",
    "__warn",
    "warn_slowpath_fmt",
    "warn_slowpath_null",
    "warn_slowpath_common",
    "report_bug",
    "handle_bug",
    "fixup_bug",
    "oops_end",
    "die",
    "__die",
    "__die_body",
    "die_addr",
    "no_context",
    "bad_area",
    "bad_area_nosemaphore",
    "__bad_area",
    "__bad_area_nosemaphore",
    "page_fault_oops",
    "kernelmode_fixup_or_oops",
    "do_error_trap",
    "do_trap",
    "handle_stack_overflow",
    // Linux: faults
    "do_user_addr_fault",
    "do_kern_addr_fault",
    "__do_page_fault",
    "do_page_fault",
    "page_fault",
    "general_protection",
    "do_general_protection",
    "do_invalid_op",
    "invalid_op",
    "do_divide_error",
    "divide_error",
    "double_fault",
    "do_double_fault",
    "df_debug",
    "error_entry",
    "do_nmi",
    "default_do_nmi",
    "nmi",
    "end_repeat_nmi",
    "unknown_nmi_error",
    "nmi_handle",
    "perf_event_nmi_handler",
    "watchdog_overflow_callback",
    "watchdog_hardlockup_check",
    "watchdog_timer_fn",
    "do_machine_check",
    "mce_panic",
    "reset_interrupted_hardirq",
    // Linux: timers and IPIs under a lockup's report
    "__hrtimer_run_queues",
    "hrtimer_interrupt",
    "local_apic_timer_interrupt",
    "__sysvec_apic_timer_interrupt",
    "sysvec_apic_timer_interrupt",
    "smp_apic_timer_interrupt",
    "apic_timer_interrupt",
    // Linux: checks that others fail
    "__list_add_valid",
    "__list_del_entry_valid",
    "__list_add_valid_or_report",
    "__list_del_entry_valid_or_report",
    "refcount_warn_saturate",
    "usercopy_abort",
    "__check_object_size",
    "__check_heap_object",
    "fortify_panic",
    "__fortify_panic",
    "__stack_chk_fail",
    "kasan_report",
    "__kasan_report",
    "print_report",
    "print_address_description",
    "kasan_check_range",
    "__asan_load1",
    "__asan_load2",
    "__asan_load4",
    "__asan_load8",
    "__asan_store1",
    "__asan_store2",
    "__asan_store4",
    "__asan_store8",
    "__ubsan_handle_out_of_bounds",
    "__ubsan_handle_shift_out_of_bounds",
    "ubsan_epilogue",
    "ubsan_type_mismatch_common",
    "debug_print_object",
    "__slab_err",
    "slab_err",
    "object_err",
    "slab_bug",
    "check_panic_on_warn",
    "end_report",
    "BUG_func",
    // Linux: primitives that fail on their caller's behalf
    "memcpy",
    "memcpy_orig",
    "memcpy_erms",
    "__memcpy",
    "memmove",
    "__memmove",
    "memset",
    "__memset",
    "memset_erms",
    "memcmp",
    "strlen",
    "strcmp",
    "strncmp",
    "strcpy",
    "strncpy",
    "strnlen",
    "native_queued_spin_lock_slowpath",
    "queued_spin_lock_slowpath",
    "_raw_spin_lock",
    "_raw_spin_lock_irq",
    "_raw_spin_lock_irqsave",
    "_raw_spin_lock_bh",
    "do_raw_spin_lock",
    "__raw_spin_lock",
    "mutex_lock",
    "__mutex_lock",
    "__mutex_lock_slowpath",
    "down_read",
    "down_write",
    "rwsem_down_write_slowpath",
    "rwsem_down_read_slowpath",
    "native_safe_halt",
    "dump_header",
    "__schedule_bug",
    "__schedule",
    "schedule",
    "schedule_timeout",
    "schedule_preempt_disabled",
    "io_schedule",
    "io_schedule_timeout",
    "wait_for_completion",
    "__wait_for_common",
    "wait_for_common",
    "bit_wait_io",
    "bit_wait",
    "__wait_on_bit",
    "out_of_line_wait_on_bit",
    "copy_user_generic_string",
    "copy_user_generic_unrolled",
    "copy_user_enhanced_fast_string",
    "rep_movs_alternative",
    // FreeBSD
    "kdb_backtrace",
    "db_trace_self",
    "db_trace_self_wrapper",
    "kdb_enter",
    "trap_fatal",
    "trap_pfault",
    "trap",
    "trap_check",
    "calltrap",
    "trap_user",
    "lockmgr_lock_flags",
    "__mtx_lock_sleep",
    "__mtx_lock_flags",
    "__mtx_assert",
    "_mtx_lock_sleep",
    "propagate_priority",
    "turnstile_wait",
    "witness_checkorder",
    "bcopy",
    "bzero",
    "memmove_erms",
    "memcpy_std",
    "bcmp",
    "dblfault_handler",
    "nmi_call_kdb",
    "nmi_handle_intr",
    "kern_reboot",
    "doadump",
];

/// Beginnings of functions that are machinery whatever follows: entry code and its C halves (arch/x86/entry).
const MACHINERY_PREFIXES: &[&str] = &[
    "exc_",
    "asm_exc_",
    "asm_sysvec_",
    "asm_common_interrupt",
    "__asan_report_",
    "kasan_",
];

/// Whether a function stands for no place of its own.
pub(super) fn is_machinery(name: &str) -> bool {
    let name = without_suffixes(name);
    name.starts_with("0x")
        || MACHINERY.contains(&name)
        || MACHINERY_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// The name without what compilers append: `.isra.0`, `.constprop.0`, `.part.0`, `.cold`, `.llvm.123`.
pub(super) fn without_suffixes(name: &str) -> &str {
    match name.find('.') {
        Some(dot) if dot > 0 => name.get(..dot).unwrap_or(name),
        _ => name,
    }
}

/// The function of a Linux `name+0x12/0x340 [module]`, also behind `[<address>]`; nothing for guesses (`? name`).
pub(super) fn linux(text: &str) -> Option<&str> {
    let mut text = text.trim_start();
    while let Some((_, behind)) = text.strip_prefix("[<").and_then(|behind| behind.split_once(">]")) {
        text = behind.trim_start();
    }
    let word = text.split_ascii_whitespace().next()?;
    let (name, offsets) = word.split_once('+')?;
    let (offset, length) = offsets.split_once('/')?;
    let is_frame = is_name(name) && offset.starts_with("0x") && length.starts_with("0x");
    is_frame.then_some(name)
}

/// The function of a FreeBSD `#3 0xffffffff80bbf1d3 at panic+0x43` (stack(9)) or `panic() at panic+0x43/frame 0x…` (ddb(4)).
pub(super) fn freebsd(line: &str) -> Option<&str> {
    let (_, behind) = line.split_once(" at ")?;
    let word = behind.split_ascii_whitespace().next()?;
    let (name, offset) = word.split_once('+')?;
    let is_frame = line.starts_with('#') || line.split_once("()").is_some_and(|(before, _)| !before.contains(' '));
    (is_frame && is_name(name) && offset.starts_with("0x")).then_some(name)
}

/// Whether this can be the name of a function: letters, digits and what compilers use; at most KSYM_NAME_LEN
/// (include/linux/kallsyms.h). The log is the guest's, and names end up in lists.
fn is_name(text: &str) -> bool {
    const KSYM_NAME_LEN: usize = 512;
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"_.$".contains(&byte);
    (1..=KSYM_NAME_LEN).contains(&text.len()) && text.bytes().all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_in_every_form() {
        assert_eq!(linux(" sysrq_handle_crash+0x16/0x20"), Some("sysrq_handle_crash"));
        assert_eq!(
            linux(" [<ffffffff8109a1c2>] ext4_foo.isra.3+0x1/0x2 [ext4]"),
            Some("ext4_foo.isra.3")
        );
        assert_eq!(linux(" ? guess+0x1/0x2"), None);
        assert_eq!(linux(" <TASK>"), None);
        assert_eq!(linux(" evil\u{1b}[31m+0x1/0x2"), None);
        assert_eq!(linux(&format!(" {}+0x1/0x2", "x".repeat(513))), None);
        assert_eq!(linux("RSP: 0018:ffffb5c0 EFLAGS: 00010282"), None);
        assert_eq!(freebsd("#2 0xffffffff80bbf1d3 at panic+0x43"), Some("panic"));
        assert_eq!(freebsd("panic() at panic+0x43/frame 0xfffffe0"), Some("panic"));
        assert_eq!(freebsd("KDB: stack backtrace:"), None);
        assert_eq!(freebsd("instruction pointer at x+0x1"), None);
    }

    #[test]
    fn names_lose_what_the_compiler_added() {
        assert_eq!(without_suffixes("foo.constprop.0.isra.3"), "foo");
        assert_eq!(without_suffixes("foo"), "foo");
        assert_eq!(without_suffixes(".L1"), ".L1");
    }
}
