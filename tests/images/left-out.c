/*
 * What the architecture asks for and emulators leave out: alignment faults of SCTLR_EL1.A, of store-exclusives,
 * load-acquires and store-releases, and of Device memory; the syndrome of MSR DAIFSet at EL0; traps of floating
 * point; the Illegal Execution state.
 * What is left out is a FAIL here; `exceptions` holds what nobody may leave out.
 */
#include "checks.h"
#include "console.h"
#include "cpu.h"
#include "mmu.h"
#include "report.h"

extern const char read_8[], read_4[], read_2[], read_1[], read_pair[], read_acquire[];
extern const char write_8[], write_4[], write_2[], write_1[], write_pair[], write_release[], write_exclusive[], dc_zva[];
extern const char done[], msr_daifset[], msr_daifclr[], fp_move[];

static char page[PAGE_BYTES] __attribute__((section(".pages,\"aw\",%nobits//"), aligned(4096)));

#define AT(offset)              ((uint64_t)(uintptr_t)page + (offset))
#define BEHIND_DONE             8u

#define PSTATE_EL1H             0x3c5ul
#define PSTATE_IL               (1ul << 20)
#define VECTOR_SP_ELX           0x200

static const struct check ordered[] = {
    { "misaligned STXR", ANY, ESR_WRITE(ALIGNMENT), write_exclusive, AT(4), 0, 0 },
    { "misaligned LDAR", ANY, ESR_READ(ALIGNMENT), read_acquire, AT(4), 0, 0 },
    { "misaligned STLR", ANY, ESR_WRITE(ALIGNMENT), write_release, AT(4), 0, 0 },
};

static const struct check plain[] = {
    { "misaligned LDR x", ANY, ESR_READ(ALIGNMENT), read_8, AT(4), 0, 0 },
    { "misaligned LDR w", ANY, ESR_READ(ALIGNMENT), read_4, AT(2), 0, 0 },
    { "misaligned LDRH", ANY, ESR_READ(ALIGNMENT), read_2, AT(1), 0, 0 },
    { "misaligned LDP", ANY, ESR_READ(ALIGNMENT), read_pair, AT(4), 0, 0 },
    { "misaligned STR x", ANY, ESR_WRITE(ALIGNMENT), write_8, AT(4), 0, 0 },
    { "misaligned STR w", ANY, ESR_WRITE(ALIGNMENT), write_4, AT(2), 0, 0 },
    { "misaligned STRH", ANY, ESR_WRITE(ALIGNMENT), write_2, AT(1), 0, 0 },
    { "misaligned STP", ANY, ESR_WRITE(ALIGNMENT), write_pair, AT(4), 0, 0 },
};

static const struct check aligned[] = {
    { "LDRB anywhere", ANY, ESR_DONE, read_1, AT(1), BEHIND_DONE, 0 },
    { "STRB anywhere", ANY, ESR_DONE, write_1, AT(3), BEHIND_DONE, 0 },
    { "aligned LDP", ANY, ESR_DONE, read_pair, AT(8), BEHIND_DONE, 0 },
};

static const struct check zeroing[] = {
    { "DC ZVA", EL1, ESR_WRITE(ALIGNMENT), dc_zva, AT(0), 0, 0 },
};

static const struct check trapped[] = {
    { "MSR DAIFSet", EL0, ESR_SYSTEM(0, 3, 4, 15, 6, 31, 0), msr_daifset, 0, 0, 0 },
    { "MSR DAIFClr", EL0, ESR_SYSTEM(0, 3, 4, 2, 7, 31, 0), msr_daifclr, 0, 0, 0 },
    { "FMOV", ANY, ESR_FP, fp_move, 0, 0, 0 },
};

/* An exception level or a mode that there is not: the return stays where it is, and the next instruction is refused. */
static void return_illegally(const char *place, uint64_t to)
{
    const struct taken *taken = &this_cpu()->taken;

    probe((uintptr_t)done, to, 0, 0);

    bool pass = taken->esr == ESR_ILLEGAL_STATE && taken->elr == (uintptr_t)done && taken->spsr == (PSTATE_EL1H | PSTATE_IL) &&
                taken->vector == VECTOR_SP_ELX;

    verdict(pass);
    print("%s: EL1h: ERET to PSTATE %lx", place, to);
    if (!pass)
        print(": esr %lx, elr %lx, spsr %lx, vector %lx", taken->esr, taken->elr, taken->spsr, taken->vector);
    print("\n");
}

int image_main(uintptr_t x0)
{
    (void)x0;
    set_sctlr(SCTLR_RES1);
    __asm__ volatile("msr cpacr_el1, xzr\n isb");
    mmu_prepare();
    mmu_map_page(page, MAP_DATA | MAP_EL0);
    RUN("MMU off", trapped);
    return_illegally("MMU off", 0x3c9);     /* EL2h */
    return_illegally("MMU off", 0x3c1);     /* EL0 on SP_EL1 */
    return_illegally("MMU off", 0x3c6);     /* no mode */
    RUN("MMU off", ordered);
    RUN("MMU off", plain);
    RUN("MMU off", zeroing);
    mmu_on();
    RUN("MMU on", ordered);
    set_sctlr(sctlr() | SCTLR_A);
    RUN("SCTLR_EL1.A", plain);
    RUN("SCTLR_EL1.A", aligned);
    return summary();
}
