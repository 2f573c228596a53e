/*
 * Start-up of the boot CPU and of the CPUs it starts, and the exception vectors.
 *
 * 1. The MMU stays off, so all memory is Device memory: no unaligned access, and no exclusives (whether they work on
 *    Device memory is IMPLEMENTATION DEFINED). Every shared word has one writer instead.
 * 2. A CPU that CPU_ON starts has the entry point in PC, context_id in x0, and nothing else: x1-x30 and SP are UNKNOWN.
 * 3. x18 belongs to conduit.h: SMCCC has the callee preserve it, so it can say after a call whether there was a callee.
 */
#include "limits.h"

#define EL1                     (1 << 2)    /* CurrentEL[3:2] */
#define HVC_OPCODE              0xd4000002  /* bits 20:5 hold the immediate */
#define SMC_OPCODE              0xd4000003
#define IMMEDIATE_FIELD         0x001fffe0

    .section .text.start, "ax"
    .global _start
    .type _start, %function
_start:
    msr     daifset, #0xf
    mov     x19, x0                     /* the device tree, or 0 */
    adrp    x9, boot_stack_top
    add     sp, x9, :lo12:boot_stack_top
    adrp    x9, bss_start
    add     x9, x9, :lo12:bss_start
    adrp    x10, bss_end
    add     x10, x10, :lo12:bss_end
1:  cmp     x9, x10
    b.hs    2f
    stp     xzr, xzr, [x9], #16
    b       1b
2:  mrs     x0, CurrentEL
    cmp     x0, #EL1
    b.ne    wrong_exception_level
    adrp    x9, vectors
    add     x9, x9, :lo12:vectors
    msr     vbar_el1, x9
    isb
    mov     x0, x19
    mov     x29, xzr
    mov     x30, xzr
    b       boot
    .size _start, . - _start

/*
 * Where every SECONDARY_ENTRY branches to: x0 context_id, x9 the C function to run with it.
 *
 * The stack is found by MPIDR_EL1 and not through context_id, as kernels often do it: here context_id is what a guest
 * wants to look at, and it may be wrong.
 */
    .global secondary_common
    .type secondary_common, %function
secondary_common:
    msr     daifset, #0xf
    ldr     x10, =MPIDR_AFFINITY
    mrs     x11, mpidr_el1
    and     x10, x11, x10
    adrp    x11, cpu_count
    ldr     w11, [x11, :lo12:cpu_count]
    adrp    x12, cpu_mpidr
    add     x12, x12, :lo12:cpu_mpidr
    mov     w13, wzr
1:  cmp     w13, w11
    b.eq    4f
    ldr     x14, [x12, w13, uxtw #3]
    cmp     x14, x10
    b.eq    2f
    add     w13, w13, #1
    b       1b
2:  add     w13, w13, #1                /* stacks grow down from the end of the CPU's slot */
    mov     w14, #STACK_SIZE_BYTES
    adrp    x15, stacks
    add     x15, x15, :lo12:stacks
    umaddl  x15, w13, w14, x15
    mov     sp, x15
    adrp    x10, vectors
    add     x10, x10, :lo12:vectors
    mrs     x11, CurrentEL
    cmp     x11, #EL1
    b.ne    3f
    msr     vbar_el1, x10
    isb
    mov     x29, xzr
    mov     x30, xzr
    br      x9
3:  mov     x0, x11
    b       wrong_exception_level
4:  wfi                                 /* the device tree does not know this CPU: it has no stack to complain on */
    b       4b
    .size secondary_common, . - secondary_common

    .macro vector target
    .balign 0x80
    b       \target
    .endm

    .balign 0x800
    .global vectors
    .type vectors, %object
vectors:
    .rept 4
    vector  unexpected_exception        /* current EL with SP_EL0: not used here */
    .endr
    vector  synchronous_exception       /* current EL with SP_ELx */
    .rept 3
    vector  unexpected_exception
    .endr
    .rept 8
    vector  unexpected_exception        /* lower EL: there is none */
    .endr
    .size vectors, . - vectors

/*
 * An HVC or SMC that is UNDEFINED (no firmware behind this conduit) is skipped, and x18 says so. It may use x16 and
 * x17: a conduit instruction is the only one returned to, and SMCCC lets the callee change them.
 */
    .type synchronous_exception, %function
synchronous_exception:
    mrs     x16, esr_el1
    lsr     x16, x16, #26               /* ESR_EL1.EC: 0 is "unknown reason", which is what UNDEFINED gives */
    cbnz    x16, unexpected_exception
    mrs     x16, elr_el1
    ldr     w17, [x16]
    and     w17, w17, #~IMMEDIATE_FIELD
    ldr     w16, =HVC_OPCODE
    cmp     w17, w16
    b.eq    1f
    ldr     w16, =SMC_OPCODE
    cmp     w17, w16
    b.ne    unexpected_exception
1:  mrs     x16, elr_el1
    add     x16, x16, #4
    msr     elr_el1, x16
    mov     x18, #1
    eret
    .size synchronous_exception, . - synchronous_exception

    .type unexpected_exception, %function
unexpected_exception:
    adrp    x0, exception_stack_top     /* SP may be what went wrong */
    add     sp, x0, :lo12:exception_stack_top
    mrs     x0, esr_el1
    mrs     x1, elr_el1
    mrs     x2, far_el1
    b       report_exception
    .size unexpected_exception, . - unexpected_exception

    .section .stacks, "aw", %nobits
    .balign 16
stacks:
    .skip   MAX_CPUS * STACK_SIZE_BYTES
    .skip   BOOT_STACK_SIZE_BYTES
boot_stack_top:
    .skip   STACK_SIZE_BYTES
exception_stack_top:
