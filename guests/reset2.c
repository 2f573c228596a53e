/*
 * Learn: a reset with a reason. SYSTEM_RESET2 takes a reset_type: 0 is SYSTEM_WARM_RESET, the other values below
 * 0x8000_0000 are reserved and INVALID_PARAMETERS, those above are the vendor's and come with a cookie for whoever boots
 * next. It is optional, so the guest asks PSCI_FEATURES first and has SYSTEM_RESET to fall back on.
 *
 * Prints: the refusal of a reserved type, and one line a boot with the reset that comes next; three boots with
 * SYSTEM_RESET2, two without.
 *
 * At PSCI 0.2: SYSTEM_RESET alone exists; SYSTEM_RESET2 comes with 1.1. Under 0.1 there is neither.
 */
#include "lib/boots.h"
#include "lib/console.h"
#include "lib/machine.h"
#include "lib/psci.h"

#define SYSTEM_WARM_RESET   0x00000000u
#define RESERVED_RESET      0x00000001u
#define VENDOR_RESET        0x80000007u
#define COOKIE              0x00c0ffee00000042ul

/* What boots.h keeps: which resets were tried. */
enum {
    TRIED_WARM = 1,
    TRIED_VENDOR = 2,
    TRIED_RESET = 3,
};

static bool has_reset2(void)
{
    answer version = offered_version();

    if (version < PSCI_1_0) {
        print("  SYSTEM_RESET2: not asked for, PSCI is below 1.0\n");
        return false;
    }

    answer features = psci_features(SYSTEM_RESET2_64);

    print("  PSCI_FEATURES(SYSTEM_RESET2): %s\n", answer_name(features < 0 ? features : SUCCESS));
    return features >= 0;
}

static void check_reserved_type(void)
{
    answer value = system_reset2(RESERVED_RESET, 0);

    print("  SYSTEM_RESET2(reserved type): %s\n", answer_name(value));
    if (value != INVALID_PARAMETERS)
        fail("a reserved type is INVALID_PARAMETERS");
}

/* Platforms need not have every type, and one that is refused comes back here. */
static void reset_by(const char *name, uint32_t reset_type, uint64_t cookie)
{
    print("  SYSTEM_RESET2(%s)\n", name);
    print("  it returned: %s\n", answer_name(system_reset2(reset_type, cookie)));
}

void guest_main(void)
{
    need_cpus(1);
    if (offered_version() < PSCI_0_2)
        nothing_to_show("PSCI 0.1 has no reset");

    struct boots *boots = count_boot(4);

    print("reset2: boot %u\n", boots->count);
    if (boots->note == 0 && has_reset2()) {
        check_reserved_type();
        boots->note = TRIED_WARM;
        reset_by("SYSTEM_WARM_RESET", SYSTEM_WARM_RESET, 0);
    }
    if (boots->note == TRIED_WARM) {
        boots->note = TRIED_VENDOR;
        reset_by("vendor type, cookie", VENDOR_RESET, COOKIE);
    }
    if (boots->count == 1) {
        boots->note = TRIED_RESET;
        print("  SYSTEM_RESET\n");
        fail("SYSTEM_RESET returned: %s", answer_name(system_reset()));
    }
    print("PASS: %u boots\n", boots->count);
    forget_boots();
    power_off();
}
