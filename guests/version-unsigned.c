/*
 * Learn: the oldest bug in the book of PSCI guests. PSCI_VERSION is read into a u32 and taken apart; on firmware without
 * the call that word is -1, the guest believes in PSCI 65535.65535, and asks it for everything. Linux, U-Boot and
 * several BSDs have been written so. Read as a signed number, -1 says what it means.
 *
 * Prints: x0, the unsigned reading, the signed reading, and what a guest that trusts each would call next.
 *
 * At PSCI 0.2: the call exists and the two readings agree, which is why the bug lives on. This guest asks under 0.1 too,
 * where nothing promised it an answer; a correct one looks into the device tree and does not.
 */
#include "lib/conduit.h"
#include "lib/console.h"
#include "lib/machine.h"
#include "lib/psci.h"

static const char *next_calls(uint32_t major, uint32_t minor)
{
    if (major > 1 || (major == 1 && minor >= 3))
        return "PSCI_FEATURES, SMCCC_VERSION, SYSTEM_RESET2, SYSTEM_OFF2";
    if (major == 1 && minor >= 1)
        return "PSCI_FEATURES, SMCCC_VERSION, SYSTEM_RESET2";
    return major == 1 ? "PSCI_FEATURES, SMCCC_VERSION" : "no call that is newer";
}

static void show_unsigned(uint32_t version)
{
    print("  as unsigned: PSCI %u.%u; next: %s\n", version_major(version), version_minor(version),
          next_calls(version_major(version), version_minor(version)));
}

static void show_signed(answer version)
{
    if (version < 0)
        print("  as signed: %s; next: nothing but what the device tree names\n", answer_name(version));
    else
        print("  as signed: PSCI %u.%u; next: %s\n", version_major(version), version_minor(version),
              next_calls(version_major(version), version_minor(version)));
}

void guest_main(void)
{
    need_cpus(1);

    struct results results = smccc_call(device_tree.psci.method, PSCI_VERSION, 0, 0, 0);

    if (results.undefined)
        nothing_to_show("PSCI_VERSION is UNDEFINED here");
    print("version-unsigned: x0 is %lx\n", results.x0);
    show_unsigned((uint32_t)results.x0);
    show_signed((int32_t)results.x0);
    print("PASS: %s\n", (int32_t)results.x0 < 0 ? "the readings differ, and the unsigned one is wrong"
          : "no difference on this firmware");
    power_off();
}
