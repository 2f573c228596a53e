/*
 * Every CPU of the device tree, twice: CPU_ON, its MMU on if the boot arguments say `mmu=on`, an exception of its own, a
 * counter that all increment under a ticket lock and one that they increment with exclusives, CPU_OFF. The boot CPU does
 * the same meanwhile, and then polls AFFINITY_INFO.
 */
#include "smp.h"

#include "checks.h"
#include "console.h"
#include "mmu.h"
#include "report.h"

#define TIMES                   2u
#define INCREMENTS              40u
#define PSTATE_EL0              0x0ul
#define SCTLR_BEFORE            (SCTLR_M | SCTLR_C | SCTLR_I)
#define AFF_NOWHERE             0xff00fffffful

extern const char sp_is_banked[];

/* What each CPU finds and only it writes. */
struct finding {
    uint64_t mpidr, sctlr, sctlr_later, context_id;
    struct taken taken;
    answer off;             /* what CPU_OFF returned, if it did */
    unsigned times;
};

static struct finding findings[IMAGE_CPUS];
static struct ticket_lock counter_lock;
static volatile uint32_t locked_counter;    /* several instructions an increment */
static uint32_t exclusive_counter;
static volatile uint32_t start;
static bool wants_mmu;

static void work(struct cpu *cpu)
{
    struct finding *finding = &findings[cpu - cpus];

    finding->mpidr = own_mpidr();
    finding->sctlr = sctlr();
    finding->context_id = (uintptr_t)cpu;
    if (wants_mmu)
        mmu_on();
    finding->sctlr_later = sctlr();
    probe((uintptr_t)sp_is_banked, PSTATE_EL0, (uintptr_t)cpu, 0);
    finding->taken = cpu->taken;
    finding->times++;
    for (unsigned i = 0; i < INCREMENTS; i++) {
        lock(&counter_lock);
        locked_counter = locked_counter + 1;
        unlock(&counter_lock);
        atomic_add(&exclusive_counter, 1);
    }
}

static void secondary(struct cpu *cpu)
{
    await_word(&start, findings[cpu - cpus].times + 1);
    work(cpu);
    findings[cpu - cpus].off = cpu_off();
}

static void judge(unsigned i, unsigned time)
{
    const struct finding *finding = &findings[i];

    report(finding->times == time && finding->mpidr == cpu_mpidr[i] && finding->context_id == (uintptr_t)&cpus[i],
           "CPU %u, time %u: runs as itself, with its context_id", i, time);
    report((i == 0 || (finding->sctlr & SCTLR_BEFORE) == 0) && (finding->sctlr_later & SCTLR_M) == (wants_mmu ? SCTLR_M : 0),
           "CPU %u, time %u: MMU %s", i, time, wants_mmu ? "off, then on" : "off");
    report(finding->taken.esr == ESR_DONE && finding->taken.x0 == (uintptr_t)&cpus[i] && finding->taken.x2 == SP_EL0_MARK,
           "CPU %u, time %u: takes an exception of its own", i, time);
    if (i != 0)
        report(await_off(cpu_mpidr[i]) && finding->off == 0, "CPU %u, time %u: OFF", i, time);
}

static void all_at_work(unsigned count, unsigned time)
{
    for (unsigned i = 1; i < count; i++) {
        answer reply = cpu_on(cpu_mpidr[i], secondary_entry, (uintptr_t)&cpus[i]);

        report(reply == SUCCESS, "CPU %u, time %u: CPU_ON %s", i, time, answer_name(reply));
    }
    /* Nobody is past the start yet, so nobody can be off. */
    for (unsigned i = 1; i < count; i++) {
        answer reply = cpu_on(cpu_mpidr[i], secondary_entry, 0);

        report(reply == ALREADY_ON || reply == ON_PENDING, "CPU %u, time %u: CPU_ON again is refused", i, time);
    }
    announce(&start, time);
    work(&cpus[0]);
    for (unsigned i = 1; i < count; i++)
        await_off(cpu_mpidr[i]);
    for (unsigned i = 0; i < count; i++)
        judge(i, time);
    report(locked_counter == time * count * INCREMENTS, "time %u: the ticket lock lost none of %u", time, time * count * INCREMENTS);
    report(exclusive_counter == time * count * INCREMENTS, "time %u: exclusives lost none of %u", time, time * count * INCREMENTS);
}

int image_main(uintptr_t x0)
{
    struct device_tree tree;
    int lacks = smp_prepare(x0, &tree, secondary);

    if (lacks != 0)
        return lacks;
    wants_mmu = same_string(tree.bootargs, "mmu=on");
    mmu_prepare();
    print("smp: %u CPUs\n", tree.cpu_count);
    for (unsigned time = 1; time <= TIMES; time++)
        all_at_work(tree.cpu_count, time);
    report(cpu_on(AFF_NOWHERE, secondary_entry, 0) == INVALID_PARAMETERS, "CPU_ON of no CPU is INVALID_PARAMETERS");
    if (summary() == 0)
        system_off();
    return 1;
}
