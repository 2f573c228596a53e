/*
 * Learn: the order in which a correct guest asks its firmware what it offers, and what each answer permits. It starts
 * from the device tree, calls nothing that an earlier answer did not promise, and compares every answer as a signed
 * number. It then has the second CPU started, lets it power itself off, and watches that.
 *
 * Prints: each call with its answer, then a fixed list of conclusions, one a line, as
 * "  conclusion: KEY = VALUE". "not asked" is a conclusion too: the call was not permitted.
 *
 * At PSCI 0.2: function IDs become the standard's, the first call is PSCI_VERSION, and AFFINITY_INFO, MIGRATE_INFO_TYPE
 * and SYSTEM_OFF exist. Under 0.1 the device tree's IDs are all there is: no call tells the version, none tells whether
 * a CPU is off, and none ends the machine. PSCI_FEATURES, and with it everything about SMCCC, waits for 1.0.
 */
#include "lib/console.h"
#include "lib/machine.h"
#include "lib/psci.h"

#define NOT_ASKED INT64_MAX     /* beside the answers, which are 32 bits or UNDEF */

#define WORKAROUND_2_ENABLE 1
#define OSI_MODE            (1u << 0)   /* PSCI_FEATURES(CPU_SUSPEND) */
#define EXTENDED_STATE_ID   (1u << 1)
#define HIBERNATE_OFF       (1u << 0)   /* PSCI_FEATURES(SYSTEM_OFF2) */
#define CPU_OFF_GRACE_MICROSECONDS 50

/* What the second CPU writes, and only it. Its context_id is the address of this. */
struct second_cpu {
    uint64_t context_id;
    uint32_t entered;
    uint32_t cpu_off_returned;
    answer cpu_off;
};

struct findings {
    answer version, effective_version;
    answer tos, tos_cpu;
    struct smccc smccc;
    bool smccc_asked;
    answer workaround_1, workaround_2, workaround_3;
    answer cpu_suspend, system_suspend, system_reset2, system_off2;
    answer cpu_on;
    bool entered, off;
};

static struct second_cpu second;

SECONDARY_ENTRY(second_entry, second_main);

void second_main(uint64_t context_id)
{
    /* Not through context_id: whether it is that address is what the boot CPU wants to know. */
    second.context_id = context_id;
    publish(&second.entered, 1);
    second.cpu_off = cpu_off();
    publish(&second.cpu_off_returned, 1);
    park();
}

/* A value, or why there is none. */
static answer asked(const char *call, answer value)
{
    if (value < 0)
        print("  %s: %s\n", call, answer_name(value));
    else
        print("  %s: %lx\n", call, (uint64_t)value);
    return value;
}

/* A return code. */
static answer returned(const char *call, answer code)
{
    print("  %s: %s\n", call, answer_name(code));
    return code;
}

/* SMCCC's own small numbers: -2 is NOT_REQUIRED here, and no PSCI return code. */
static answer asked_arch_features(const char *name, uint32_t function_id)
{
    answer needed = smccc_arch_features(function_id);

    if (needed == UNDEF)
        print("  SMCCC_ARCH_FEATURES(%s): UNDEF\n", name);
    else
        print("  SMCCC_ARCH_FEATURES(%s): %d\n", name, (int32_t)needed);
    return needed;
}

static void probe_version(struct findings *found)
{
    found->version = NOT_ASKED;
    found->effective_version = 0;
    if (device_tree.psci.binding < BINDING_PSCI_0_2)
        return;
    found->version = asked("PSCI_VERSION", psci_version());
    /* Firmware that lacks the call may still be 0.2 as the device tree says: some U-Boot boards are. */
    found->effective_version = found->version == NOT_SUPPORTED ? PSCI_0_2 : found->version;
}

static void probe_trusted_os(struct findings *found)
{
    found->tos = found->tos_cpu = NOT_ASKED;
    if (found->effective_version < PSCI_0_2)
        return;
    found->tos = asked("MIGRATE_INFO_TYPE", migrate_info_type());
    if (found->tos == 0 || found->tos == 1)
        found->tos_cpu = asked("MIGRATE_INFO_UP_CPU", migrate_info_up_cpu());
}

static void probe_features(struct findings *found)
{
    found->cpu_suspend = found->system_suspend = found->system_reset2 = found->system_off2 = NOT_ASKED;
    if (found->effective_version < PSCI_1_0)
        return;
    found->cpu_suspend = asked("PSCI_FEATURES(CPU_SUSPEND)", psci_features(CPU_SUSPEND_64));
    found->system_suspend = asked("PSCI_FEATURES(SYSTEM_SUSPEND)", psci_features(SYSTEM_SUSPEND_64));
    found->system_reset2 = asked("PSCI_FEATURES(SYSTEM_RESET2)", psci_features(SYSTEM_RESET2_64));
    found->system_off2 = asked("PSCI_FEATURES(SYSTEM_OFF2)", psci_features(SYSTEM_OFF2_64));
}

/* A workaround is called only where ARCH_FEATURES answered 0: "implemented, and this CPU needs it". */
static answer probe_workaround(const char *name, uint32_t function_id, uint32_t state)
{
    answer needed = asked_arch_features(name, function_id);

    if (needed == 0)
        returned(name, smccc_arch_workaround(function_id, state));
    return needed;
}

static void probe_smccc(struct findings *found)
{
    found->smccc_asked = device_tree.psci.binding != BINDING_NONE && found->effective_version >= 0;
    found->workaround_1 = found->workaround_2 = found->workaround_3 = NOT_ASKED;
    if (!found->smccc_asked)
        return;
    found->smccc = discover_smccc(found->effective_version);
    print("  SMCCC: %u.%u%s%s\n", version_major(found->smccc.version), version_minor(found->smccc.version),
          *found->smccc.because ? ", " : "", found->smccc.because);
    if (found->smccc.version < SMCCC_1_1)
        return;
    found->workaround_1 = probe_workaround("SMCCC_ARCH_WORKAROUND_1", SMCCC_ARCH_WORKAROUND_1, 0);
    found->workaround_2 = probe_workaround("SMCCC_ARCH_WORKAROUND_2", SMCCC_ARCH_WORKAROUND_2, WORKAROUND_2_ENABLE);
    found->workaround_3 = probe_workaround("SMCCC_ARCH_WORKAROUND_3", SMCCC_ARCH_WORKAROUND_3, 0);
}

/* Whether anything may be called: 0.1 promises its IDs by naming them, later versions by answering PSCI_VERSION. */
static bool may_call(const struct findings *found)
{
    if (device_tree.psci.binding == BINDING_PSCI_0_1)
        return device_tree.psci.cpu_on != 0 && device_tree.psci.cpu_off != 0;
    return found->effective_version >= PSCI_0_2;
}

static void probe_second_cpu(struct findings *found)
{
    found->cpu_on = NOT_ASKED;
    if (!may_call(found) || device_tree.cpu_count < 2)
        return;

    uint64_t target_cpu = cpu_mpidr[other_cpu(0)];

    found->cpu_on = returned("CPU_ON", cpu_on(target_cpu, second_entry, (uintptr_t)&second));
    if (found->cpu_on != SUCCESS)
        return;
    found->entered = await(&second.entered, 1);
    if (!found->entered)
        return;
    if (device_tree.psci.binding == BINDING_PSCI_0_1) {
        /* Nothing can be asked, so give CPU_OFF the time to return if it is going to. */
        wait_until(counter_ticks() + microseconds_to_ticks(CPU_OFF_GRACE_MICROSECONDS));
        found->off = !observe(&second.cpu_off_returned);
    } else {
        found->off = await_off(target_cpu);
    }
}

/* Exactly one line each. */
static void conclude(const char *key, const char *value)
{
    print("  conclusion: %s = %s\n", key, value);
}

static const char *offered(answer features)
{
    if (features == NOT_ASKED)
        return "not asked";
    return features < 0 ? "not offered" : "offered";
}

static void conclude_device_tree(void)
{
    static const char *const bindings[] = { "no psci node", "arm,psci", "arm,psci-0.2", "arm,psci-1.0" };
    enum binding binding = device_tree.psci.binding;

    print("  conclusion: device tree = %s", bindings[binding]);
    if (binding != BINDING_NONE)
        print(" by %s", device_tree.psci.method == CONDUIT_SMC ? "SMC" : "HVC");
    print("\n");
}

static void conclude_psci_version(const struct findings *found)
{
    if (device_tree.psci.binding == BINDING_NONE)
        conclude("PSCI version", "none");
    else if (device_tree.psci.binding == BINDING_PSCI_0_1)
        conclude("PSCI version", "0.1");
    else if (found->version == NOT_SUPPORTED)
        conclude("PSCI version", "0.2 by the device tree, PSCI_VERSION NOT_SUPPORTED");
    else if (found->version < 0)
        conclude("PSCI version", answer_name(found->version));
    else
        print("  conclusion: PSCI version = %u.%u%s\n", version_major(found->version), version_minor(found->version),
              found->version < PSCI_0_2 ? ", contradicting the device tree" : "");
}

static void conclude_trusted_os(const struct findings *found)
{
    switch (found->tos) {
    case NOT_ASKED: conclude("Trusted OS", "not asked"); break;
    case 0: print("  conclusion: Trusted OS = on CPU %lx, migratable\n", (uint64_t)found->tos_cpu); break;
    case 1: print("  conclusion: Trusted OS = on CPU %lx, not migratable\n", (uint64_t)found->tos_cpu); break;
    case 2: conclude("Trusted OS", "none, or one that needs no migration"); break;
    case NOT_SUPPORTED: conclude("Trusted OS", "none, or one that needs no migration (NOT_SUPPORTED)"); break;
    default: print("  conclusion: Trusted OS = unknown type %d\n", (int32_t)found->tos); break;
    }
}

static void conclude_smccc_version(const struct findings *found)
{
    if (found->smccc_asked)
        print("  conclusion: SMCCC version = %u.%u\n", version_major(found->smccc.version),
              version_minor(found->smccc.version));
    else
        conclude("SMCCC version", "not asked");
}

/* WORKAROUND_1 and _3 share their answers; what -1 means is decided with the CPU's own ID registers. */
static const char *branch_mitigation(answer needed)
{
    switch (needed) {
    case NOT_ASKED: return "not asked";
    case 0: return "mitigated by firmware";
    case 1: return "CPU not affected";
    case NOT_SUPPORTED: return "no help from firmware";
    default: return "unexpected answer, so no help from firmware";
    }
}

static const char *ssbd(answer needed)
{
    switch (needed) {
    case NOT_ASKED: return "not asked";
    case 0: return "switched by firmware, on";
    case 1: return "CPU not affected";
    case NOT_SUPPORTED: return "no help from firmware";
    case -2: return "not required"; /* SMCCC's NOT_REQUIRED: always on, or not affected */
    default: return "unexpected answer, so no help from firmware";
    }
}

static void conclude_suspend(const struct findings *found)
{
    if (device_tree.psci.binding == BINDING_PSCI_0_1)
        conclude("suspend", device_tree.psci.cpu_suspend ? "ID in the device tree" : "no ID in the device tree");
    else if (found->cpu_suspend == NOT_ASKED)
        conclude("suspend", found->effective_version >= PSCI_0_2 ? "original StateID" : "not asked");
    else if (found->cpu_suspend < 0)
        conclude("suspend", "not offered");
    else
        print("  conclusion: suspend = %s StateID%s\n", found->cpu_suspend & EXTENDED_STATE_ID ? "extended" : "original",
              found->cpu_suspend & OSI_MODE ? ", OS-initiated mode" : "");
}

static void conclude_system_off2(const struct findings *found)
{
    bool hibernate = found->system_off2 != NOT_ASKED && found->system_off2 >= 0 && found->system_off2 & HIBERNATE_OFF;

    conclude("SYSTEM_OFF2", hibernate ? "offered, HIBERNATE_OFF" : offered(found->system_off2));
}

static const char *second_cpu_outcome(const struct findings *found)
{
    if (device_tree.cpu_count < 2)
        return "none in the device tree";
    if (found->cpu_on == NOT_ASKED)
        return "not asked";
    if (found->cpu_on != SUCCESS)
        return answer_name(found->cpu_on);
    if (!found->entered)
        return "CPU_ON SUCCESS, never seen";
    if (second.context_id != (uintptr_t)&second)
        return "started, without its context_id";
    return found->off ? "started, and off again" : "started, CPU_OFF did not take it off";
}

static void conclude_all(const struct findings *found, bool by_firmware)
{
    conclude_device_tree();
    conclude_psci_version(found);
    conclude_trusted_os(found);
    conclude_smccc_version(found);
    conclude("spectre-v2", branch_mitigation(found->workaround_1));
    conclude("ssbd", ssbd(found->workaround_2));
    conclude("spectre-bhb", branch_mitigation(found->workaround_3));
    conclude_suspend(found);
    conclude("SYSTEM_SUSPEND", offered(found->system_suspend));
    conclude("SYSTEM_RESET2", offered(found->system_reset2));
    conclude_system_off2(found);
    conclude("second CPU", second_cpu_outcome(found));
    conclude("power-off by", by_firmware ? "SYSTEM_OFF" : "semihosting");
}

void guest_main(void)
{
    struct findings found = { 0 };

    print("prober: what does this firmware offer?\n");
    probe_version(&found);
    probe_trusted_os(&found);
    probe_smccc(&found);
    probe_features(&found);
    probe_second_cpu(&found);

    bool by_firmware = found.effective_version >= PSCI_0_2;

    conclude_all(&found, by_firmware);
    if (!by_firmware)
        semihosting_exit(EXIT_SUCCESS);
    power_off();
}
