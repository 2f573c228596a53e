/*
 * Synchronous exceptions to EL1, from EL0 and from EL1 on either stack pointer, with the MMU off and then on. Of each:
 * ESR, ELR, SPSR, FAR of an abort, the vector, the vector's own PSTATE, SP_EL0, and that the instruction changed nothing.
 */
#include "checks.h"
#include "console.h"
#include "cpu.h"
#include "devicetree.h"
#include "mmu.h"
#include "report.h"

#define CNTKCTL_ALL             0x303ul

#define PSTATE_EL1H             0x3c5ul
#define PSTATE_EL0              0x0ul

#define BEHIND_DONE             8u

extern const char probed_code[];
extern const char done[], svc_1234[], svc_0[], brk_4321[], udf_0[], udf_ffff[], hvc_0[], smc_0[], hlt_1[];
extern const char mrs_nowhere[], msr_nowhere[], msr_midr[], mrs_hcr_el2[], mrs_sctlr[], msr_vbar[], eret_here[], tlbi_all[];
extern const char mrs_ctr[], mrs_daif[], msr_daif[], dc_zva[], dc_cvau[], ic_ivau[], mrs_cntvct[], mrs_cntpct[];
extern const char mrs_cntfrq[], msr_cntv_ctl[], mrs_cntp_cval[], wfi_here[];
extern const char read_8[], read_4[], read_2[], read_1[], read_pair[], read_then_advance[], read_exclusive[], write_8[], write_4[];
extern const char write_2[], write_1[], write_pair[], write_after_advance[], write_exclusive[], read_exclusive_pair[];
extern const char read_exclusive_acquire[], sp_is_banked[], there_and_back[], flags_survive[];

/* Pages that the checks look for trouble in; the hole comes behind one that EL0 may use. */
static char pages[7][PAGE_BYTES] __attribute__((section(".pages,\"aw\",%nobits//"), aligned(PAGE_BYTES)));
#define el1_page                pages[0]
#define read_only_page          pages[1]
#define code_page               pages[2]
#define pxn_page                pages[3]
#define not_accessed_page       pages[4]
#define el0_page                pages[5]
#define hole                    pages[6]

#define AT(address)             ((uint64_t)(uintptr_t)(address))
#define LEVEL_0                 (1ul << 39)     /* beyond TTBR0_EL1's addresses */
#define LEVEL_0_TTBR1           0xffffffff80000000ul
#define LEVEL_1                 0xc0000000ul
#define LEVEL_2                 0x40200000ul
#define DEVICE                  0x09000000ul

static const struct check always[] = {
    { "SVC #0x1234", ANY, ESR_SVC(0x1234), svc_1234, 0, 4, 0 },
    { "SVC #0", ANY, ESR_SVC(0), svc_0, 0, 4, 0 },
    { "BRK #0x4321", ANY, ESR_BRK(0x4321), brk_4321, 0, 0, 0 },
    { "UDF #0", ANY, ESR_UNDEFINED, udf_0, 0, 0, 0 },
    { "UDF #0xffff", ANY, ESR_UNDEFINED, udf_ffff, 0, 0, 0 },
    { "HLT #1", ANY, ESR_UNDEFINED, hlt_1, 0, 0, 0 },
    { "HVC", EL0, ESR_UNDEFINED, hvc_0, 0, 0, 0 },
    { "SMC", EL0, ESR_UNDEFINED, smc_0, 0, 0, 0 },
    { "ERET", EL0, ESR_UNDEFINED, eret_here, 0, 0, 0 },
    { "TLBI VMALLE1", EL0, ESR_UNDEFINED, tlbi_all, 0, 0, 0 },
    { "MRS of no register", ANY, ESR_UNDEFINED, mrs_nowhere, 0, 0, 0 },
    { "MSR of no register", ANY, ESR_UNDEFINED, msr_nowhere, 0, 0, 0 },
    { "MSR MIDR_EL1", ANY, ESR_UNDEFINED, msr_midr, 0, 0, 0 },
    { "MRS HCR_EL2", ANY, ESR_UNDEFINED, mrs_hcr_el2, 0, 0, 0 },
    { "MRS SCTLR_EL1", EL0, ESR_UNDEFINED, mrs_sctlr, 0, 0, 0 },
    { "MSR VBAR_EL1", EL0, ESR_UNDEFINED, msr_vbar, 0, 0, 0 },
    { "misaligned PC", ANY, ESR_PC_ALIGNMENT, fetch, AT(done) + 2, 0, 0 },
    { "misaligned LDXR", ANY, ESR_READ(ALIGNMENT), read_exclusive, AT(el0_page) + 4, 0, 0 },
    { "misaligned LDXP", ANY, ESR_READ(ALIGNMENT), read_exclusive_pair, AT(el0_page) + 8, 0, 0 },
    { "misaligned LDAXR", ANY, ESR_READ(ALIGNMENT), read_exclusive_acquire, AT(el0_page) + 2, 0, 0 },
    { "aligned LDXR", ANY, ESR_DONE, read_exclusive, AT(el0_page) + 8, BEHIND_DONE, 0 },
    { "read and write", ANY, ESR_DONE, write_8, AT(el0_page), BEHIND_DONE, 0 },
};

/* What EL1 may forbid EL0. Allowed, the same code takes no exception. */
static const struct check forbidden[] = {
    { "MRS CTR_EL0", EL0, ESR_SYSTEM(3, 3, 0, 0, 1, 5, 1), mrs_ctr, 0, 0, 0 },
    { "MRS DAIF", EL0, ESR_SYSTEM(3, 3, 4, 2, 1, 6, 1), mrs_daif, 0, 0, 0 },
    { "MSR DAIF", EL0, ESR_SYSTEM(3, 3, 4, 2, 1, 31, 0), msr_daif, 0, 0, 0 },
    { "DC CVAU", EL0, ESR_SYSTEM(1, 3, 7, 11, 1, 0, 0), dc_cvau, AT(el0_page), 0, 0 },
    { "IC IVAU", EL0, ESR_SYSTEM(1, 3, 7, 5, 1, 0, 0), ic_ivau, AT(el0_page), 0, 0 },
    { "DC ZVA", EL0, ESR_SYSTEM(1, 3, 7, 4, 1, 0, 0), dc_zva, AT(el0_page), 0, 0 },
    { "MRS CNTVCT_EL0", EL0, ESR_SYSTEM(3, 3, 14, 0, 2, 7, 1), mrs_cntvct, 0, 0, 0 },
    { "MRS CNTPCT_EL0", EL0, ESR_SYSTEM(3, 3, 14, 0, 1, 8, 1), mrs_cntpct, 0, 0, 0 },
    { "MRS CNTFRQ_EL0", EL0, ESR_SYSTEM(3, 3, 14, 0, 0, 9, 1), mrs_cntfrq, 0, 0, 0 },
    { "MSR CNTV_CTL_EL0", EL0, ESR_SYSTEM(3, 3, 14, 3, 1, 31, 0), msr_cntv_ctl, 0, 0, 0 },
    { "MRS CNTP_CVAL_EL0", EL0, ESR_SYSTEM(3, 3, 14, 2, 2, 10, 1), mrs_cntp_cval, 0, 0, 0 },
};

/* SCTLR_EL1.nTWI. Only with `wfi` in the boot arguments: where it does not trap, it waits for an interrupt that nobody sends. */
static const struct check forbidden_wait = { "WFI", EL0, ESR_WFI, wfi_here, 0, 0, 0 };

static const struct check with_mmu[] = {
    { "read, no translation at level 0", ANY, ESR_READ(TRANSLATION + 0), read_8, LEVEL_0, 0, 0 },
    { "read, no translation at level 0 of TTBR1", ANY, ESR_READ(TRANSLATION + 0), read_8, LEVEL_0_TTBR1, 0, 0 },
    { "read, no translation at level 1", ANY, ESR_READ(TRANSLATION + 1), read_8, LEVEL_1, 0, 0 },
    { "read, no translation at level 2", ANY, ESR_READ(TRANSLATION + 2), read_8, LEVEL_2, 0, 0 },
    { "read, no translation at level 3", ANY, ESR_READ(TRANSLATION + 3), read_8, AT(hole) + 0x10, 0, 0 },
    { "LDR w, no translation", ANY, ESR_READ(TRANSLATION + 3), read_4, AT(hole) + 0xffc, 0, 0 },
    { "LDRH, no translation", ANY, ESR_READ(TRANSLATION + 3), read_2, AT(hole) + 0xffe, 0, 0 },
    { "LDRB, no translation", ANY, ESR_READ(TRANSLATION + 3), read_1, AT(hole) + 0xfff, 0, 0 },
    { "LDP, no translation", ANY, ESR_READ(TRANSLATION + 3), read_pair, AT(hole), 0, 0 },
    { "LDP with its second half in the hole", ANY, ESR_READ(TRANSLATION + 3), read_pair, AT(hole) - 8, 0, 8 },
    { "LDR across into the hole", ANY, ESR_READ(TRANSLATION + 3), read_8, AT(hole) - 4, 0, 4 },
    { "LDR with write-back, no translation", ANY, ESR_READ(TRANSLATION + 3), read_then_advance, AT(hole), 0, 0 },
    { "LDXR, no translation", ANY, ESR_READ(TRANSLATION + 3), read_exclusive, AT(hole), 0, 0 },
    { "write, no translation at level 0", ANY, ESR_WRITE(TRANSLATION + 0), write_8, LEVEL_0, 0, 0 },
    { "write, no translation at level 1", ANY, ESR_WRITE(TRANSLATION + 1), write_8, LEVEL_1, 0, 0 },
    { "write, no translation at level 2", ANY, ESR_WRITE(TRANSLATION + 2), write_8, LEVEL_2, 0, 0 },
    { "write, no translation at level 3", ANY, ESR_WRITE(TRANSLATION + 3), write_8, AT(hole) + 0x10, 0, 0 },
    { "STR w, no translation", ANY, ESR_WRITE(TRANSLATION + 3), write_4, AT(hole) + 0xffc, 0, 0 },
    { "STRH, no translation", ANY, ESR_WRITE(TRANSLATION + 3), write_2, AT(hole) + 0xffe, 0, 0 },
    { "STRB, no translation", ANY, ESR_WRITE(TRANSLATION + 3), write_1, AT(hole) + 0xfff, 0, 0 },
    { "STP, no translation", ANY, ESR_WRITE(TRANSLATION + 3), write_pair, AT(hole), 0, 0 },
    { "STR with write-back, no translation", ANY, ESR_WRITE(TRANSLATION + 3), write_after_advance, AT(hole), 0, 8 },
    { "fetch, no translation at level 0", ANY, ESR_FETCH(TRANSLATION + 0), fetch, LEVEL_0, 0, 0 },
    { "fetch, no translation at level 1", ANY, ESR_FETCH(TRANSLATION + 1), fetch, LEVEL_1, 0, 0 },
    { "fetch, no translation at level 2", ANY, ESR_FETCH(TRANSLATION + 2), fetch, LEVEL_2, 0, 0 },
    { "fetch, no translation at level 3", ANY, ESR_FETCH(TRANSLATION + 3), fetch, AT(hole) + 4, 0, 0 },

    { "read, access flag", ANY, ESR_READ(ACCESS_FLAG + 3), read_8, AT(not_accessed_page), 0, 0 },
    { "write, access flag", ANY, ESR_WRITE(ACCESS_FLAG + 3), write_8, AT(not_accessed_page), 0, 0 },
    { "fetch, access flag", ANY, ESR_FETCH(ACCESS_FLAG + 3), fetch, AT(not_accessed_page), 0, 0 },

    { "write to a read-only page", ANY, ESR_WRITE(PERMISSION + 3), write_8, AT(read_only_page), 0, 0 },
    { "read of a read-only page", ANY, ESR_DONE, read_8, AT(read_only_page), BEHIND_DONE, 0 },
    { "write to its own code", ANY, ESR_WRITE(PERMISSION + 3), write_8, AT(probed_code), 0, 0 },
    { "read of EL1's page", EL0, ESR_READ(PERMISSION + 3), read_8, AT(el1_page), 0, 0 },
    { "write to EL1's page", EL0, ESR_WRITE(PERMISSION + 3), write_8, AT(el1_page) + 8, 0, 0 },
    { "read of EL1's page", EL1, ESR_DONE, read_8, AT(el1_page), BEHIND_DONE, 0 },
    { "write to EL1's page", EL1, ESR_DONE, write_8, AT(el1_page), BEHIND_DONE, 0 },
    { "read of EL1's block", EL0, ESR_READ(PERMISSION + 2), read_4, DEVICE, 0, 0 },
    { "write to EL1's block", EL0, ESR_WRITE(PERMISSION + 2), write_4, DEVICE, 0, 0 },
    { "write to EL0's page", ANY, ESR_DONE, write_8, AT(el0_page), BEHIND_DONE, 0 },
    { "read of EL0's page, misaligned", ANY, ESR_DONE, read_8, AT(el0_page) + 1, BEHIND_DONE, 0 },
    { "write to EL0's page, misaligned", ANY, ESR_DONE, write_8, AT(el0_page) + 0x3ff, BEHIND_DONE, 0 },
    { "DC ZVA, no translation", EL1, ESR_WRITE(TRANSLATION + 3), dc_zva, AT(hole) + 0x40, 0, 0 },

    { "fetch from a UXN and PXN page", ANY, ESR_FETCH(PERMISSION + 3), fetch, AT(el0_page), 0, 0 },
    { "fetch from a UXN page", EL0, ESR_FETCH(PERMISSION + 3), fetch, AT(probe), 0, 0 },
    { "fetch from a PXN page", EL1, ESR_FETCH(PERMISSION + 3), fetch, AT(pxn_page), 0, 0 },
    { "fetch from a PXN page", EL0, ESR_DONE, pxn_page, 0, 4, 0 },
    { "fetch from a page EL0 may write", EL1, ESR_FETCH(PERMISSION + 3), fetch, AT(code_page), 0, 0 },
    { "fetch from a page EL0 may write", EL0, ESR_DONE, code_page, 0, 4, 0 },
};

static void set_cntkctl(uint64_t value)
{
    __asm__ volatile("msr cntkctl_el1, %0\n isb" : : "r"(value));
}

static void run_allowed(const char *place, const struct check *checks, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct check allowed = checks[i];

        allowed.esr = ESR_DONE;
        allowed.back = BEHIND_DONE;
        run_check(place, &allowed);
    }
}

static void come_back(const char *place)
{
    static const struct {
        const char *name;
        const char *code;
        unsigned returns;
        uint64_t el0, el1h;
    } all[] = {
        { "ERET resumes behind SVC, BRK and UDF", there_and_back, 3, 3, 3 },
        { "ERET restores the flags", flags_survive, 2, 1, 1 },
        { "SP is the level's own", sp_is_banked, 0, SP_EL0_MARK, 0 },
    };
    struct cpu *cpu = this_cpu();

    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        cpu->returns = all[i].returns;
        probe((uintptr_t)all[i].code, PSTATE_EL0, 0, 0);
        report(cpu->taken.x2 == all[i].el0 && cpu->taken.esr == ESR_DONE, "%s: EL0: %s", place, all[i].name);
        cpu->returns = all[i].returns;
        probe((uintptr_t)all[i].code, PSTATE_EL1H, 0, 0);
        report(cpu->taken.x2 == (all[i].el1h ? all[i].el1h : cpu->taken.sp) && cpu->taken.esr == ESR_DONE,
               "%s: EL1h: %s", place, all[i].name);
    }
}

static void run_everywhere(const char *place, bool waits)
{
    RUN(place, always);
    RUN(place, forbidden);
    if (waits)
        run_check(place, &forbidden_wait);
    come_back(place);
}

static void map_pages(void)
{
    mmu_prepare();
    mmu_map_page(el0_page, MAP_DATA | MAP_EL0);
    mmu_map_page(read_only_page, MAP_DATA | MAP_EL0 | MAP_READ_ONLY);
    mmu_map_page(not_accessed_page, (MAP_CODE | MAP_EL0) & ~MAP_ACCESSED);
    mmu_map_page(code_page, MAP_NORMAL | MAP_ACCESSED | MAP_EL0);
    mmu_map_page(pxn_page, MAP_CODE | MAP_EL0 | MAP_PXN);
    mmu_map_page(hole, 0);
    /* While they can be written at all, the pages that are to be executed get an SVC. */
    *(volatile uint32_t *)code_page = *(volatile uint32_t *)pxn_page = *(const uint32_t *)(done + 4);
}

int image_main(uintptr_t x0)
{
    bool waits = is_device_tree(x0) && same_string(read_device_tree(x0).bootargs, "wfi");

    set_sctlr(SCTLR_RES1);
    set_cntkctl(0);
    map_pages();
    run_everywhere("MMU off", waits);
    mmu_on();
    run_everywhere("MMU on", waits);
    RUN("MMU on", with_mmu);
    set_sctlr(sctlr() | SCTLR_UMA | SCTLR_DZE | SCTLR_UCT | SCTLR_UCI);
    set_cntkctl(CNTKCTL_ALL);
    run_allowed("allowed", forbidden, sizeof forbidden / sizeof *forbidden);
    return summary();
}
