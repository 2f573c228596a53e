/*
 * The code that the checks run, on a page that both exception levels may execute. Each piece takes one exception, or none
 * and ends with SVC #0xd01e. None uses the stack, x15-x17, or changes x0 and x1 unless it says so.
 */
    .section .probed, "ax"

    .macro piece name, instruction:vararg
    .global \name
    .balign 4
\name:
    \instruction
    svc     #0xd01e
    .endm

    .global probed_code
probed_code:
    piece   done, nop
    piece   svc_1234, svc #0x1234
    piece   svc_0, svc #0
    piece   brk_4321, brk #0x4321
    piece   udf_0, .inst 0x00000000
    piece   udf_ffff, .inst 0x0000ffff
    piece   hvc_0, hvc #0
    piece   smc_0, smc #0
    piece   hlt_1, hlt #1

    piece   mrs_nowhere, mrs x2, s3_7_c15_c15_7
    piece   msr_nowhere, msr s3_7_c15_c15_7, x2
    piece   msr_midr, .inst 0xd5180002          // msr midr_el1, x2, which no assembler takes
    piece   mrs_hcr_el2, mrs x2, hcr_el2
    piece   mrs_sctlr, mrs x2, sctlr_el1
    piece   msr_vbar, msr vbar_el1, x2
    piece   eret_here, eret
    piece   tlbi_all, tlbi vmalle1

    piece   mrs_ctr, mrs x5, ctr_el0
    piece   mrs_daif, mrs x6, daif
    piece   msr_daif, msr daif, xzr
    piece   msr_daifset, msr daifset, #0xf
    piece   msr_daifclr, msr daifclr, #0x2
    piece   dc_zva, dc zva, x0
    piece   dc_cvau, dc cvau, x0
    piece   ic_ivau, ic ivau, x0
    piece   mrs_cntvct, mrs x7, cntvct_el0
    piece   mrs_cntpct, mrs x8, cntpct_el0
    piece   mrs_cntfrq, mrs x9, cntfrq_el0
    piece   msr_cntv_ctl, msr cntv_ctl_el0, xzr
    piece   mrs_cntp_cval, mrs x10, cntp_cval_el0
    piece   wfi_here, wfi
    piece   fp_move, .inst 0x9e6703e0           // fmov d0, xzr

    piece   read_8, ldr x2, [x0]
    piece   read_4, ldr w2, [x0]
    piece   read_2, ldrh w2, [x0]
    piece   read_1, ldrb w2, [x0]
    piece   read_pair, ldp x2, x3, [x0]
    piece   read_then_advance, ldr x2, [x0], #8
    piece   read_exclusive, ldxr x2, [x0]
    piece   read_exclusive_pair, ldxp x2, x3, [x0]
    piece   read_exclusive_acquire, ldaxr w2, [x0]
    piece   read_acquire, ldar x2, [x0]
    piece   write_8, str x1, [x0]
    piece   write_4, str w1, [x0]
    piece   write_2, strh w1, [x0]
    piece   write_1, strb w1, [x0]
    piece   write_pair, stp x1, x1, [x0]
    piece   write_after_advance, str x1, [x0, #8]!
    piece   write_release, stlr x1, [x0]
    piece   write_exclusive, stxr w2, x1, [x0]

    .global sp_is_banked, there_and_back, flags_survive, reads_on
sp_is_banked:                       /* x2: the SP the code ran on */
    mov     x2, sp
    svc     #0xd01e

there_and_back:                     /* x2 counts what it came back from */
    mov     x2, #0
    svc     #1
    add     x2, x2, #1
    brk     #2
    add     x2, x2, #1
    .inst   0
    add     x2, x2, #1
    svc     #0xd01e

flags_survive:                      /* x2: 1 if NZCV was the same behind each exception */
    mov     x2, #0
    cmp     x0, x0
    svc     #1
    b.ne    1f
    b.lo    1f
    subs    xzr, x2, #1
    brk     #2
    b.eq    1f
    b.hs    1f
    mov     x2, #1
1:  svc     #0xd01e

reads_on:                           /* x2: what the read behind a faulting one and a faulting write found */
    mov     x2, #0
    ldr     x3, [x0]
    str     x3, [x0]
    ldr     x2, [x1]
    svc     #0xd01e
