/*
 * Learn: the four steps to a Spectre mitigation, each the permission for the next. PSCI_VERSION of 1.0 or more permits
 * PSCI_FEATURES; that, asked about SMCCC_VERSION, permits SMCCC_VERSION; 1.1 or more permits SMCCC_ARCH_FEATURES; and 0
 * from that says that the workaround is there and this CPU needs it. The last step is each CPU's own: on a system with
 * big and little cores the answers differ.
 *
 * Prints: each step with its answer and what follows, then the workarounds on two CPUs, and calls those that answered 0.
 * A workaround has no result, so what it leaves in x0 means nothing; it is printed because hosts differ.
 *
 * At PSCI 0.2: step 1 exists, and fails; this is why guests with PSCI 0.2 hardcoded lost their mitigation in 2018.
 */
#include "lib/conduit.h"
#include "lib/console.h"
#include "lib/machine.h"
#include "lib/psci.h"

#define WORKAROUNDS         3u
#define WORKAROUND_2_ENABLE 1u

static const struct {
    uint32_t function_id, argument;
} workarounds[WORKAROUNDS] = {
    { SMCCC_ARCH_WORKAROUND_1, 0 },
    { SMCCC_ARCH_WORKAROUND_2, WORKAROUND_2_ENABLE },
    { SMCCC_ARCH_WORKAROUND_3, 0 },
};

/* What each CPU finds, and only it writes. */
struct found {
    answer needed[WORKAROUNDS];
    struct results called[WORKAROUNDS];
    uint32_t done;
};

static struct found first, second;

SECONDARY_ENTRY(second_entry, second_main);

static void find(struct found *found)
{
    for (unsigned i = 0; i < WORKAROUNDS; i++) {
        found->needed[i] = smccc_arch_features(workarounds[i].function_id);
        if (found->needed[i] == 0)
            found->called[i] = smccc_call(device_tree.psci.method, workarounds[i].function_id, workarounds[i].argument, 0, 0);
    }
    publish(&found->done, 1);
}

void second_main(uint64_t context_id)
{
    find((struct found *)context_id);
    park();
}

static const char *meaning(unsigned i, answer needed)
{
    if (needed == UNDEF)
        return "UNDEF";
    switch (needed) {
    case 0: return "there, and needed";
    case 1: return "this CPU is unaffected";
    case -1: return "none";
    /* SMCCC's own number: NOT_REQUIRED, and no PSCI return code. */
    case -2: return workarounds[i].function_id == SMCCC_ARCH_WORKAROUND_2 ? "not required" : "unnamed";
    default: return "unnamed";
    }
}

static void show(uint64_t mpidr, const struct found *found)
{
    print("  step 4 on CPU %lx:\n", mpidr);
    for (unsigned i = 0; i < WORKAROUNDS; i++) {
        const struct results *called = &found->called[i];

        print("  SMCCC_ARCH_FEATURES(WORKAROUND_%u): %s\n", i + 1, meaning(i, found->needed[i]));
        if (found->needed[i] != 0)
            continue;
        if (called->undefined)
            fail("a workaround that is there is UNDEFINED");
        if (called->x0 == workarounds[i].function_id)
            print("  SMCCC_ARCH_WORKAROUND_%u: x0 is as it was\n", i + 1);
        else
            print("  SMCCC_ARCH_WORKAROUND_%u: %s\n", i + 1, answer_name((int32_t)called->x0));
    }
}

static void __attribute__((noreturn)) stop(const char *because)
{
    print("PASS: SMCCC is 1.0, and nothing more may be asked: %s\n", because);
    power_off();
}

static void take_steps_1_to_3(void)
{
    answer version = offered_version();

    if (device_tree.psci.binding == BINDING_PSCI_0_1)
        stop("PSCI 0.1 has no PSCI_VERSION");
    print("  step 1: PSCI_VERSION: %u.%u\n", version_major(version), version_minor(version));
    if (version < PSCI_1_0)
        stop("PSCI below 1.0 has no PSCI_FEATURES");

    answer features = psci_features(SMCCC_VERSION);

    print("  step 2: PSCI_FEATURES(SMCCC_VERSION): %s\n", answer_name(features));
    if (features < 0)
        stop("there is no SMCCC_VERSION");

    answer smccc = smccc_version();

    if (smccc < 0)
        print("  step 3: SMCCC_VERSION: %s\n", answer_name(smccc));
    else
        print("  step 3: SMCCC_VERSION: %u.%u\n", version_major(smccc), version_minor(smccc));
    if (smccc < SMCCC_1_1)
        stop("there is no SMCCC_ARCH_FEATURES");
}

void guest_main(void)
{
    need_cpus(2);
    print("spectre-discovery: 2 CPUs\n");
    take_steps_1_to_3();
    find(&first);
    show(cpu_mpidr[boot_cpu], &first);

    uint64_t target_cpu = cpu_mpidr[other_cpu(0)];
    answer value = cpu_on(target_cpu, second_entry, (uintptr_t)&second);

    if (value != SUCCESS)
        fail("CPU_ON of CPU %lx: %s", target_cpu, answer_name(value));
    if (!await(&second.done, 1))
        fail("CPU %lx has no answers", target_cpu);
    show(target_cpu, &second);
    print("PASS: each CPU asked for itself\n");
    power_off();
}
