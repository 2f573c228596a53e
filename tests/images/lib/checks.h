/* Exceptions as rows of a table: what to run, where from, and all that its exception must be. */
#ifndef CHECKS_H
#define CHECKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Where a check runs. EL1t is EL1 on SP_EL0. */
enum from {
    EL0 = 1,
    EL1T = 2,
    EL1H = 4,
    EL1 = EL1T | EL1H,
    ANY = EL0 | EL1,
};

/* Syndromes: EC in bits 31:26, IL in 25. Of aborts it is the lower exception level's; from EL1 they have one EC more. */
#define ESR_UNDEFINED           0x02000000u
#define ESR_FP                  0x1fe00000u             /* with CV 1 and COND 0xe, which AArch64 always has */
#define ESR_WFI                 0x07e00000u
#define ESR_ILLEGAL_STATE       0x3a000000u
#define ESR_SVC(imm)            (0x56000000u | (imm))
#define ESR_BRK(imm)            (0xf2000000u | (imm))
#define ESR_PC_ALIGNMENT        0x8a000000u
#define ESR_FETCH(fsc)          (0x82000000u | (fsc))
#define ESR_READ(fsc)           (0x92000000u | (fsc))
#define ESR_WRITE(fsc)          (0x92000040u | (fsc))
#define ESR_SYSTEM(op0, op1, crn, crm, op2, rt, is_read) \
    (0x62000000u | (op0) << 20 | (op2) << 17 | (op1) << 14 | (crn) << 10 | (rt) << 5 | (crm) << 1 | (is_read))

/* Fault status codes; the level of a translation table is added. */
#define TRANSLATION             0x04u
#define ACCESS_FLAG             0x08u
#define PERMISSION              0x0cu
#define EXTERNAL                0x10u
#define EXTERNAL_ON_WALK        0x14u
#define ALIGNMENT               0x21u

/* Every piece of probed code ends with this, for where nothing else takes an exception. */
#define ESR_DONE                ESR_SVC(0xd01e)

struct check {
    const char *name;
    enum from from;
    uint32_t esr;
    const char *code;
    uint64_t x0;
    uint32_t back;          /* how far into the code ELR_EL1 points */
    uint32_t far_offset;    /* of aborts: how far behind x0 FAR_EL1 points */
};

/* Run a check from each of its places and report each as "PLACE: EL: NAME". */
void run_check(const char *place, const struct check *check);

void run_checks(const char *place, const struct check *checks, size_t count);

#define RUN(place, checks) run_checks(place, checks, sizeof (checks) / sizeof *(checks))

/* Jump to x0's value itself. */
extern const char fetch[];

#endif
