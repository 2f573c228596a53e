/*
 * Learn: firmware is not a constant. A version register written, or a live migration to another host, in the middle of
 * this loop changes what the next round sees, while a guest that asked once at boot goes on with what it knew.
 *
 * Prints: one line a round, "round 3: PSCI 1.0, SMCCC 1.1, WORKAROUND_1 0, WORKAROUND_2 -1, WORKAROUND_3 1". A version
 * that has no call to ask for it, and an answer that may not be asked for, is "not asked". "rounds=N" in the boot
 * arguments sets how many rounds there are; 8 otherwise.
 *
 * At PSCI 0.2: PSCI_VERSION exists. Under 0.1 nothing can be asked: each round repeats what the device tree said.
 */
#include "lib/console.h"
#include "lib/machine.h"
#include "lib/psci.h"

#define DEFAULT_ROUNDS  8u
#define MOST_ROUNDS     1000000u
#define ROUNDS_KEY      "rounds="

static bool starts_with(const char *string, const char *prefix)
{
    while (*prefix)
        if (*string++ != *prefix++)
            return false;
    return true;
}

/* 0 where this is no number from 1 to MOST_ROUNDS. */
static uint32_t parse_rounds(const char *digits)
{
    uint32_t rounds = 0;

    while (*digits >= '0' && *digits <= '9' && rounds <= MOST_ROUNDS)
        rounds = rounds * 10 + (uint32_t)(*digits++ - '0');
    return (*digits == '\0' || *digits == ' ') && rounds <= MOST_ROUNDS ? rounds : 0;
}

static uint32_t rounds_asked_for(const char *bootargs)
{
    for (const char *at = bootargs; *at; at++)
        if ((at == bootargs || at[-1] == ' ') && starts_with(at, ROUNDS_KEY))
            return parse_rounds(at + sizeof ROUNDS_KEY - 1);
    return DEFAULT_ROUNDS;
}

static void print_workaround(unsigned number, uint32_t function_id, bool permitted)
{
    print(", WORKAROUND_%u ", number);
    if (!permitted) {
        print("not asked");
        return;
    }

    answer needed = smccc_arch_features(function_id);

    if (needed == UNDEF)
        print("UNDEF");
    else
        print("%d", (int32_t)needed);
}

static void print_version(answer version)
{
    if (version < 0)
        print("PSCI %s", answer_name(version));
    else
        print("PSCI %u.%u", version_major(version), version_minor(version));
}

static void ask(uint32_t round)
{
    bool is_0_1 = device_tree.psci.binding == BINDING_PSCI_0_1;
    answer version = is_0_1 ? 0x1 : psci_version();
    struct smccc smccc = discover_smccc(version);
    bool permitted = smccc.version >= SMCCC_1_1;

    print("round %u: ", round);
    print_version(version);
    print(", SMCCC %u.%u", version_major(smccc.version), version_minor(smccc.version));
    print_workaround(1, SMCCC_ARCH_WORKAROUND_1, permitted);
    print_workaround(2, SMCCC_ARCH_WORKAROUND_2, permitted);
    print_workaround(3, SMCCC_ARCH_WORKAROUND_3, permitted);
    print("\n");
}

void guest_main(void)
{
    need_cpus(1);

    uint32_t rounds = rounds_asked_for(device_tree.bootargs);

    if (rounds == 0)
        lacks("rounds= takes a number from 1 to %u", MOST_ROUNDS);
    for (uint32_t round = 1; round <= rounds; round++)
        ask(round);
    power_off();
}
