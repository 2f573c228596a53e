/*
 * Learn: how a guest finds out that it did not run. A hypervisor gives each CPU 64 bytes of memory and counts there, in
 * nanoseconds, how long the CPU could have run and did not. A guest that asks for them can keep that time off its
 * processes' accounts.
 *
 * Prints: the discovery, the structure's fixed fields, and whether stolen time grew while the CPU worked alone and while
 * a second CPU worked beside it. On a host with a core for each CPU it need not grow; where they share one, it does.
 *
 * At PSCI 0.2: nothing; PV time is found by SMCCC_ARCH_FEATURES, for which SMCCC 1.1 and with it PSCI 1.0 must be there.
 */
#include "lib/conduit.h"
#include "lib/console.h"
#include "lib/machine.h"
#include "lib/psci.h"

#define WORK_MICROSECONDS   300

/* DEN 0057, "Stolen time structure". */
struct stolen_time {
    uint32_t revision, attributes;
    uint64_t stolen_nanoseconds;
    uint64_t reserved[6];
};

/* The second CPU's. */
static uint64_t second_address;
static uint32_t working;

SECONDARY_ENTRY(second_entry, second_main);

/* An address, so all 64 bits count. */
static int64_t pv_time(uint32_t function_id, uint64_t argument)
{
    struct results results = smccc_call(device_tree.psci.method, function_id, argument, 0, 0);

    return results.undefined ? UNDEF : (int64_t)results.x0;
}

void second_main(uint64_t context_id)
{
    second_address = (uint64_t)pv_time(PV_TIME_ST, context_id);
    publish(&working, 1);
    for (;;)
        wait_until(counter_ticks() + microseconds_to_ticks(WORK_MICROSECONDS));
}

static void discover(void)
{
    struct smccc smccc = discover_smccc(offered_version());

    if (smccc.version < SMCCC_1_1)
        nothing_to_show("not asked for, SMCCC is 1.0: %s", smccc.because);

    answer features = smccc_arch_features(PV_TIME_FEATURES);

    print("  SMCCC_ARCH_FEATURES(PV_TIME_FEATURES): %s\n", answer_name(features));
    if (features < 0)
        nothing_to_show("there is no PV time");
    features = pv_time(PV_TIME_FEATURES, PV_TIME_ST);
    print("  PV_TIME_FEATURES(PV_TIME_ST): %s\n", answer_name(features));
    if (features < 0)
        nothing_to_show("there is no stolen time");
}

static const volatile struct stolen_time *find(void)
{
    int64_t address = pv_time(PV_TIME_ST, 0);

    if (address < 0)
        fail("PV_TIME_ST: %s", answer_name(address));

    const volatile struct stolen_time *stolen = (const volatile struct stolen_time *)address;

    print("  PV_TIME_ST: revision %u, attributes %u\n", stolen->revision, stolen->attributes);
    if (address % sizeof *stolen != 0)
        fail("the structure is not aligned to its %u bytes", (uint32_t)sizeof *stolen);
    if (stolen->revision != 0 || stolen->attributes != 0)
        fail("both are 0");
    for (unsigned i = 0; i < sizeof stolen->reserved / sizeof *stolen->reserved; i++)
        if (stolen->reserved[i] != 0)
            fail("reserved bytes are not 0");
    return stolen;
}

static bool grows(const volatile struct stolen_time *stolen, const char *how)
{
    uint64_t before = stolen->stolen_nanoseconds;

    wait_until(counter_ticks() + microseconds_to_ticks(WORK_MICROSECONDS));

    uint64_t after = stolen->stolen_nanoseconds;

    print("  stolen time, %s: %s\n", how, after > before ? "grew" : "did not grow");
    if (after < before)
        fail("stolen time went back");
    return after > before;
}

void guest_main(void)
{
    need_cpus(2);
    print("stolen-time: 2 CPUs\n");
    discover();

    const volatile struct stolen_time *stolen = find();
    uint64_t target_cpu = cpu_mpidr[other_cpu(0)];

    grows(stolen, "alone");

    answer value = cpu_on(target_cpu, second_entry, 0);

    if (value != SUCCESS)
        fail("CPU_ON of CPU %lx: %s", target_cpu, answer_name(value));
    if (!await(&working, 1))
        fail("CPU %lx did not come", target_cpu);
    if (second_address == (uintptr_t)stolen)
        fail("two CPUs have one structure");

    bool shared = grows(stolen, "beside a second CPU");

    print("PASS: %s\n", shared ? "the two CPUs share a core, and the guest can tell" : "nobody took this CPU's time");
    power_off();
}
