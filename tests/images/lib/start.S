/*
 * Start-up of the boot CPU and of those it starts, the vectors, and probe().
 *
 * 1. Nothing is assumed beyond the boot protocol: EL1h, MMU off, x0 the device tree's address; after CPU_ON x0 is the
 *    context_id and everything else UNKNOWN.
 * 2. Within a probe an exception is the result; anywhere else it is a failure and ends the image.
 * 3. The vectors use x15-x17, which no probed code holds anything in.
 */
#include "cpu.h"

#define EC_SVC                  0x15

    .section .text.start, "ax"
    .global _start
    .type _start, %function
_start:
    msr     daifset, #0xf
    mov     x19, x0
    adrp    x9, bss_start
    add     x9, x9, :lo12:bss_start
    adrp    x10, bss_end
    add     x10, x10, :lo12:bss_end
1:  cmp     x9, x10
    b.hs    2f
    stp     xzr, xzr, [x9], #16
    b       1b
2:  adrp    x9, stacks + STACK_SIZE_BYTES
    add     x9, x9, :lo12:stacks + STACK_SIZE_BYTES
    mov     sp, x9
    adrp    x0, cpus
    add     x0, x0, :lo12:cpus
    bl      own_state
    mov     x0, x19
    bl      image_main
    mov     x1, x0
    b       semihosting_exit
    .size _start, . - _start

    .global secondary_entry
    .type secondary_entry, %function
secondary_entry:
    msr     daifset, #0xf
    ldr     x9, [x0, #CPU_STACK_TOP]
    mov     sp, x9
    bl      own_state
    ldr     x9, [x0, #CPU_MAIN]
    blr     x9
1:  wfe
    b       1b
    .size secondary_entry, . - secondary_entry

    .type own_state, %function
own_state:
    msr     tpidr_el1, x0
    adrp    x9, vectors
    add     x9, x9, :lo12:vectors
    msr     vbar_el1, x9
    isb
    mov     x29, xzr
    ret
    .size own_state, . - own_state

/* x1: the exit code */
    .type semihosting_exit, %function
semihosting_exit:
    sub     sp, sp, #16
    ldr     x9, =0x20026                /* ADP_Stopped_ApplicationExit */
    stp     x9, x1, [sp]
    mov     x0, #0x18                   /* SYS_EXIT */
    mov     x1, sp
    hlt     #0xf000
1:  wfe
    b       1b
    .size semihosting_exit, . - semihosting_exit

    .global probe
    .type probe, %function
probe:
    stp     x29, x30, [sp, #-96]!
    stp     x19, x20, [sp, #16]
    stp     x21, x22, [sp, #32]
    stp     x23, x24, [sp, #48]
    stp     x25, x26, [sp, #64]
    stp     x27, x28, [sp, #80]
    mrs     x9, tpidr_el1
    mov     x10, sp
    str     x10, [x9, #CPU_PROBE_SP]
    msr     elr_el1, x0
    msr     spsr_el1, x1
    ldr     x10, =SP_EL0_MARK
    msr     sp_el0, x10
    mov     x0, x2
    mov     x1, x3
    eret
    .size probe, . - probe

    .type exception, %function
exception:
    mrs     x16, tpidr_el1
    ldr     x15, [x16, #CPU_PROBE_SP]
    cbz     x15, unexpected
    ldr     x15, [x16, #CPU_RETURNS]
    cbnz    x15, go_back
    str     x17, [x16, #TAKEN_VECTOR]
    stp     x0, x1, [x16, #TAKEN_X0]
    str     x2, [x16, #TAKEN_X0 + 16]
    mrs     x0, esr_el1
    mrs     x1, elr_el1
    stp     x0, x1, [x16, #TAKEN_ESR]
    mrs     x0, spsr_el1
    mrs     x1, far_el1
    stp     x0, x1, [x16, #TAKEN_SPSR]
    mrs     x0, CurrentEL
    mrs     x1, daif
    orr     x0, x0, x1
    mrs     x1, SPSel
    orr     x0, x0, x1
    mrs     x1, sp_el0
    stp     x0, x1, [x16, #TAKEN_PSTATE]
    mov     x0, sp
    str     x0, [x16, #TAKEN_SP]
    ldr     x15, [x16, #CPU_PROBE_SP]
    str     xzr, [x16, #CPU_PROBE_SP]
    msr     spsel, #1
    mov     sp, x15
    ldp     x19, x20, [sp, #16]
    ldp     x21, x22, [sp, #32]
    ldp     x23, x24, [sp, #48]
    ldp     x25, x26, [sp, #64]
    ldp     x27, x28, [sp, #80]
    ldp     x29, x30, [sp], #96
    ret
go_back:
    sub     x15, x15, #1
    str     x15, [x16, #CPU_RETURNS]
    mrs     x15, esr_el1
    lsr     x15, x15, #26
    sub     x15, x15, #EC_SVC           /* the preferred return address is behind an SVC, and at any other instruction */
    cbz     x15, 1f
    mrs     x15, elr_el1
    add     x15, x15, #4
    msr     elr_el1, x15
1:  eret
unexpected:
    adrp    x0, stacks + STACK_SIZE_BYTES   /* SP may be what went wrong */
    add     x0, x0, :lo12:stacks + STACK_SIZE_BYTES
    msr     spsel, #1
    mov     sp, x0
    mrs     x0, esr_el1
    mrs     x1, elr_el1
    mrs     x2, far_el1
    bl      report_exception
    mov     x1, #1
    b       semihosting_exit
    .size exception, . - exception

    .balign 0x800
    .type vectors, %object
vectors:
    .irp offset, 0x000, 0x080, 0x100, 0x180, 0x200, 0x280, 0x300, 0x380, 0x400, 0x480, 0x500, 0x580, 0x600, 0x680, 0x700, 0x780
    .balign 0x80
    mov     x17, #\offset
    b       exception
    .endr
    .size vectors, . - vectors

    .section .stacks, "aw", %nobits
    .balign 16
    .global stacks
stacks:
    .skip   IMAGE_CPUS * STACK_SIZE_BYTES
