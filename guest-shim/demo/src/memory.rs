//! The memory functions that the compiler calls and that a C library would bring. In assembly, because a compiler turns
//! loops that do this into calls of these very functions.
use core::arch::global_asm;

global_asm!(
    r#"
    .text
    .global memcpy, memset, memmove, memcmp, bcmp
memmove:
    mov rax, rdi
    sub rax, rsi
    cmp rax, rdx
    jae memcpy
    # The target starts inside the source: from the end downwards.
    mov rax, rdi
    mov rcx, rdx
    lea rdi, [rdi + rdx - 1]
    lea rsi, [rsi + rdx - 1]
    std
    rep movsb
    cld
    ret
memcpy:
    mov rax, rdi
    mov rcx, rdx
    rep movsb
    ret
memset:
    mov r8, rdi
    mov eax, esi
    mov rcx, rdx
    rep stosb
    mov rax, r8
    ret
bcmp:
memcmp:
    xor ecx, ecx
2:
    cmp rcx, rdx
    je 3f
    movzx eax, byte ptr [rdi + rcx]
    movzx r8d, byte ptr [rsi + rcx]
    inc rcx
    sub eax, r8d
    je 2b
    ret
3:
    xor eax, eax
    ret
"#
);
