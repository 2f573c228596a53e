/*
 * Learn: where a guest without a random number generator gets its first seed. The TRNG firmware interface gives up to 96
 * bits a call by SMC32 and up to 192 by SMC64, right-aligned in three registers, the first the most significant. Its
 * return codes are its own: -3 is NO_ENTROPY, and means "ask again".
 *
 * Prints: which functions there are, and properties of what they give, never the bits themselves: that two draws differ,
 * that no bit above the N that was asked for is set, and what happens to N that is 0 or too large.
 *
 * At PSCI 0.2: nothing; the interface is found by calling it, which SMCCC 1.1 permits, and that is found through PSCI 1.0.
 */
#include "lib/conduit.h"
#include "lib/console.h"
#include "lib/machine.h"
#include "lib/psci.h"

#define NO_ENTROPY          (-3)
#define MOST_ATTEMPTS       100u
#define RND32_MOST_BITS     96u
#define RND64_MOST_BITS     192u
#define PARTIAL_BITS        40u     /* neither a whole number of registers, nor of either width */

static struct results trng(uint32_t function_id, uint64_t argument)
{
    return smccc_call(device_tree.psci.method, function_id, argument, 0, 0);
}

static answer code(struct results results)
{
    return results.undefined ? UNDEF : (int32_t)results.x0;
}

static const char *trng_name(answer value)
{
    return value == NO_ENTROPY ? "NO_ENTROPY" : answer_name(value);
}

static struct results draw(uint32_t function_id, uint32_t bits)
{
    struct results results = trng(function_id, bits);

    for (unsigned attempt = 1; code(results) == NO_ENTROPY && attempt < MOST_ATTEMPTS; attempt++)
        results = trng(function_id, bits);
    return results;
}

static void show_feature(const char *name, uint32_t function_id)
{
    answer value = code(trng(TRNG_FEATURES, function_id));

    print("  TRNG_FEATURES(%s): %s\n", name, trng_name(value < 0 ? value : SUCCESS));
}

static void show_uuid(void)
{
    struct results uuid = trng(TRNG_GET_UUID, 0);

    if (code(uuid) == NOT_SUPPORTED)
        fail("TRNG_GET_UUID: NOT_SUPPORTED");
    print("  TRNG_GET_UUID: %x %x %x %x\n", (uint32_t)uuid.x0, (uint32_t)uuid.x1, (uint32_t)uuid.x2, (uint32_t)uuid.x3);
}

static bool same(struct results a, struct results b)
{
    return a.x1 == b.x1 && a.x2 == b.x2 && a.x3 == b.x3;
}

static void check_most(const char *name, uint32_t function_id, uint32_t bits)
{
    struct results one = draw(function_id, bits), other = draw(function_id, bits);

    print("  %s, %u bits: %s\n", name, bits, trng_name(code(one)));
    if (code(one) != SUCCESS || code(other) != SUCCESS)
        fail("the interface has no entropy");
    if (same(one, other))
        fail("two draws are the same");
    if (function_id == TRNG_RND32 && (one.x1 | one.x2 | one.x3) >> 32 != 0)
        fail("a result of an SMC32 call is wider than 32 bits");
    print("  %s, %u bits again: differs\n", name, bits);
}

static void check_partial(const char *name, uint32_t function_id)
{
    struct results some = draw(function_id, PARTIAL_BITS);
    bool wide = function_id == TRNG_RND64;
    uint64_t above = wide ? some.x1 | some.x2 | some.x3 >> PARTIAL_BITS : some.x1 | some.x2 >> (PARTIAL_BITS - 32);

    print("  %s, %u bits: %s\n", name, PARTIAL_BITS, trng_name(code(some)));
    if (code(some) == SUCCESS && above != 0)
        fail("bits above the %u are set", PARTIAL_BITS);
}

static void show_bad(const char *name, uint32_t function_id, uint32_t too_many)
{
    answer none = code(draw(function_id, 0)), more = code(draw(function_id, too_many));

    print("  %s, 0 bits: %s\n", name, trng_name(none));
    print("  %s, %u bits: %s\n", name, too_many, trng_name(more));
    if (more == SUCCESS)
        fail("more bits than registers");
}

void guest_main(void)
{
    need_cpus(1);
    print("trng:\n");

    struct smccc smccc = discover_smccc(offered_version());

    if (smccc.version < SMCCC_1_1)
        nothing_to_show("not asked for, SMCCC is 1.0: %s", smccc.because);

    answer version = code(trng(TRNG_VERSION, 0));

    if (version < 0)
        nothing_to_show("TRNG_VERSION: %s", trng_name(version));
    print("  TRNG_VERSION: %u.%u\n", version_major(version), version_minor(version));
    show_feature("TRNG_GET_UUID", TRNG_GET_UUID);
    show_feature("TRNG_RND32", TRNG_RND32);
    show_feature("TRNG_RND64", TRNG_RND64);
    show_feature("PSCI_VERSION", PSCI_VERSION);
    show_uuid();
    check_most("TRNG_RND32", TRNG_RND32, RND32_MOST_BITS);
    check_most("TRNG_RND64", TRNG_RND64, RND64_MOST_BITS);
    check_partial("TRNG_RND32", TRNG_RND32);
    check_partial("TRNG_RND64", TRNG_RND64);
    show_bad("TRNG_RND32", TRNG_RND32, RND32_MOST_BITS + 1);
    show_bad("TRNG_RND64", TRNG_RND64, RND64_MOST_BITS + 1);
    print("PASS: entropy as it was asked for\n");
    power_off();
}
