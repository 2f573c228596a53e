/*
 * Learn: switching off with a reason. SYSTEM_OFF2 with HIBERNATE_OFF tells the host that the guest has written its memory
 * to disk and wants to be started again as it was. off_type is 1 (drafts used 0, and 1.3 keeps that as an alias), the
 * cookie is 0, all else INVALID_PARAMETERS. It is optional: ask PSCI_FEATURES, whose bit 0 is HIBERNATE_OFF.
 *
 * Prints: the answer to PSCI_FEATURES, two refusals, and the call that ends the machine.
 *
 * At PSCI 0.2: SYSTEM_OFF alone exists, and a hibernating guest looks like any other that is switched off; SYSTEM_OFF2
 * comes with 1.3. Under 0.1 there is neither.
 */
#include "lib/console.h"
#include "lib/machine.h"
#include "lib/psci.h"

#define HIBERNATE_OFF           1u
#define NO_SUCH_OFF_TYPE        2u
#define BAD_COOKIE              1u
#define FEATURE_HIBERNATE_OFF   (1u << 0)

static bool has_hibernate_off(void)
{
    if (offered_version() < PSCI_1_0) {
        print("  SYSTEM_OFF2: not asked for, PSCI is below 1.0\n");
        return false;
    }

    answer features = psci_features(SYSTEM_OFF2_64);

    if (features < 0)
        print("  PSCI_FEATURES(SYSTEM_OFF2): %s\n", answer_name(features));
    else
        print("  PSCI_FEATURES(SYSTEM_OFF2): %x\n", (uint32_t)features);
    return features >= 0 && features & FEATURE_HIBERNATE_OFF;
}

static void check_refusal(const char *what, uint32_t off_type, uint64_t cookie)
{
    answer value = system_off2(off_type, cookie);

    print("  SYSTEM_OFF2(%s): %s\n", what, answer_name(value));
    if (value != INVALID_PARAMETERS)
        fail("it is INVALID_PARAMETERS");
}

void guest_main(void)
{
    need_cpus(1);
    print("off2:\n");
    if (offered_version() < PSCI_0_2)
        nothing_to_show("PSCI 0.1 has no call that switches off");
    if (has_hibernate_off()) {
        check_refusal("no such type", NO_SUCH_OFF_TYPE, 0);
        check_refusal("HIBERNATE_OFF, cookie 1", HIBERNATE_OFF, BAD_COOKIE);
        print("PASS: off by SYSTEM_OFF2(HIBERNATE_OFF)\n");
        fail("SYSTEM_OFF2 returned: %s", answer_name(system_off2(HIBERNATE_OFF, 0)));
    }
    print("PASS: off by SYSTEM_OFF\n");
    power_off();
}
