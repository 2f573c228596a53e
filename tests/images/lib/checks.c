#include "checks.h"

#include "console.h"
#include "cpu.h"
#include "report.h"

#define PSTATE_FLAGS            0xa0000000ul    /* N and C, so that SPSR_EL1 shows that they were kept */
#define PSTATE_DAIF             0x3c0ul
#define PSTATE_EL1T             0x4ul
#define PSTATE_EL1H             0x5ul

#define VECTOR_SP_EL0           0x000
#define VECTOR_SP_ELX           0x200
#define VECTOR_LOWER_EL         0x400

#define EC_SHIFT                26
#define EC_FETCH_ABORT          0x20u
#define EC_PC_ALIGNMENT         0x22u
#define EC_DATA_ABORT           0x24u

const char fetch[1];

static const struct origin {
    enum from from;
    const char *name;
    uint64_t pstate, vector;
} origins[] = {
    { EL0, "EL0", PSTATE_FLAGS, VECTOR_LOWER_EL },
    { EL1T, "EL1t", PSTATE_FLAGS | PSTATE_DAIF | PSTATE_EL1T, VECTOR_SP_EL0 },
    { EL1H, "EL1h", PSTATE_FLAGS | PSTATE_DAIF | PSTATE_EL1H, VECTOR_SP_ELX },
};

static bool is_abort(uint32_t esr)
{
    return esr >> EC_SHIFT == EC_FETCH_ABORT || esr >> EC_SHIFT == EC_DATA_ABORT;
}

static bool has_far(uint32_t esr)
{
    return is_abort(esr) || esr >> EC_SHIFT == EC_PC_ALIGNMENT;
}

static uint32_t esr_from(enum from from, uint32_t esr)
{
    return from != EL0 && is_abort(esr) ? esr + (1u << EC_SHIFT) : esr;
}

struct compared {
    const char *name;
    uint64_t is, should;
};

static void run_from(const char *place, const struct check *check, const struct origin *origin)
{
    bool fetches = check->code == fetch;
    uintptr_t code = fetches ? check->x0 : (uintptr_t)check->code;
    const struct taken *taken = &this_cpu()->taken;
    uint64_t far = check->x0 + check->far_offset;

    probe(code, origin->pstate, check->x0, 1);

    const struct compared all[] = {
        { "esr", taken->esr, esr_from(origin->from, check->esr) },
        { "elr", taken->elr, code + check->back },
        { "spsr", taken->spsr, origin->pstate },
        { "vector", taken->vector, origin->vector },
        { "far", has_far(check->esr) ? taken->far : far, far },
        { "the vector's pstate", taken->pstate, PSTATE_DAIF | PSTATE_EL1H },
        { "sp_el0", taken->sp_el0, SP_EL0_MARK },
        { "x0", taken->x0, check->x0 },
        { "x1", taken->x1, 1 },
    };
    bool pass = true;

    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        pass &= all[i].is == all[i].should;
    verdict(pass);
    print("%s: %s: %s", place, origin->name, check->name);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i].is != all[i].should)
            print(": %s is %lx, should be %lx", all[i].name, all[i].is, all[i].should);
    print("\n");
}

void run_check(const char *place, const struct check *check)
{
    for (size_t i = 0; i < sizeof origins / sizeof *origins; i++)
        if (check->from & origins[i].from)
            run_from(place, check, &origins[i]);
}

void run_checks(const char *place, const struct check *checks, size_t count)
{
    for (size_t i = 0; i < count; i++)
        run_check(place, &checks[i]);
}
