/*
 * Learn: HVC or SMC is not the guest's choice. The psci node's "method" names the conduit behind which there is firmware;
 * the other instruction is UNDEFINED, or answered with -1 like an unknown function, or served just the same, as KVM does
 * since Linux 6.4. A guest with one of them hardcoded works on some hosts and dies on others.
 *
 * Prints: what came back over the other conduit, then over the one the device tree names.
 *
 * At PSCI 0.2: PSCI_VERSION exists, a question that changes nothing. Under 0.1 the guest asks with a CPU_ON for a CPU that
 * does not exist, whose refusal is an answer too.
 */
#include "lib/console.h"
#include "lib/machine.h"
#include "lib/psci.h"

#define NO_SUCH_CPU 0xff00fffffful  /* every affinity field at its largest */

static void no_entry(void)
{
}

static enum conduit other(enum conduit conduit)
{
    return conduit == CONDUIT_SMC ? CONDUIT_HVC : CONDUIT_SMC;
}

/* Follow the same psci node, but through this conduit. */
static answer ask_over(enum conduit conduit)
{
    struct psci_node node = device_tree.psci;

    node.method = conduit;
    psci_use(&node);

    answer value = node.binding == BINDING_PSCI_0_1 ? cpu_on(NO_SUCH_CPU, no_entry, 0) : psci_version();

    psci_use(&device_tree.psci);
    return value;
}

static bool is_served(answer value)
{
    return device_tree.psci.binding == BINDING_PSCI_0_1 ? value != UNDEF && value != NOT_SUPPORTED : value >= 0;
}

static void show(const char *which, answer value)
{
    print("  %s: ", which);
    if (value >= 0)
        print("served, PSCI %u.%u\n", version_major(value), version_minor(value));
    else if (is_served(value))
        print("served, %s\n", answer_name(value));
    else
        print("%s\n", value == NOT_SUPPORTED ? "-1, as for an unknown function" : answer_name(value));
}

void guest_main(void)
{
    need_cpus(1);
    print("wrong-conduit: the device tree has PSCI by %s\n", device_tree.psci.method == CONDUIT_SMC ? "SMC" : "HVC");

    answer wrong = ask_over(other(device_tree.psci.method)), right = ask_over(device_tree.psci.method);

    show("the other conduit", wrong);
    show("the device tree's conduit", right);
    if (!is_served(right))
        fail("there is no firmware where the device tree says");
    print("PASS: %s\n", is_served(wrong) ? "this host would forgive the mistake" : "only the device tree's conduit will do");
    power_off();
}
