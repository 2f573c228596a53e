#include "machine.h"

#include "console.h"
#include "psci.h"

#define RAM_START                       0x40000000ul    /* where QEMU leaves the device tree of an ELF image */
#define SYS_EXIT                        0x18
#define ADP_STOPPED_APPLICATION_EXIT    0x20026ul

#define PATIENCE_MICROSECONDS           100000
#define PATIENCE_TURNS                  10000u
#define TURNS_A_READ                    32u
#define POLL_MICROSECONDS               20

struct device_tree device_tree;
unsigned boot_cpu;
unsigned cpu_count;     /* start.S reads it: how many of cpu_mpidr count */

void boot(uintptr_t x0) __attribute__((noreturn));
void wrong_exception_level(uint64_t current_el) __attribute__((noreturn));
void report_exception(uint64_t esr, uint64_t elr, uint64_t far) __attribute__((noreturn));

static uint64_t this_mpidr(void)
{
    uint64_t mpidr;

    __asm__("mrs %0, mpidr_el1" : "=r"(mpidr));
    return mpidr & MPIDR_AFFINITY;
}

void boot(uintptr_t x0)
{
    uintptr_t blob = is_device_tree(x0) ? x0 : RAM_START;

    if (!is_device_tree(blob))
        lacks("no device tree in x0 nor at the start of RAM");
    device_tree = read_device_tree(blob);
    if (device_tree.cpu_count > MAX_CPUS)
        lacks("%u CPUs in the device tree, this guest has stacks for %u", device_tree.cpu_count, MAX_CPUS);
    cpu_count = device_tree.cpu_count;
    while (boot_cpu < cpu_count && cpu_mpidr[boot_cpu] != this_mpidr())
        boot_cpu++;
    if (boot_cpu == cpu_count)
        lacks("the boot CPU's MPIDR %lx is no cpu node's reg", this_mpidr());
    psci_use(&device_tree.psci);
    guest_main();
}

unsigned other_cpu(unsigned n)
{
    return n < boot_cpu ? n : n + 1;
}

void need_cpus(unsigned count)
{
    if (device_tree.psci.binding == BINDING_NONE)
        lacks("no psci node in the device tree");
    if (cpu_count < count)
        lacks("this guest needs %u CPUs, the device tree lists %u", count, cpu_count);
}

uint64_t counter_ticks(void)
{
    uint64_t ticks;

    __asm__ volatile("isb\n mrs %0, cntvct_el0" : "=r"(ticks) : : "memory");
    return ticks;
}

uint64_t microseconds_to_ticks(uint64_t microseconds)
{
    uint64_t ticks_per_second;

    __asm__("mrs %0, cntfrq_el0" : "=r"(ticks_per_second));
    return microseconds * ticks_per_second / 1000000;
}

/* YIELD lets an emulator that runs all CPUs on one thread go on with another. */
static void yield(void)
{
    __asm__ volatile("yield" : : : "memory");
}

/* The counter is read now and then only: emulators and hypervisors may trap each read. */
void wait_until(uint64_t deadline_ticks)
{
    while ((int64_t)(deadline_ticks - counter_ticks()) > 0)
        for (unsigned turn = 0; turn < TURNS_A_READ; turn++)
            yield();
}

/*
 * Time alone is a bad judge: a hypervisor may not have run anybody for that long. So both time and turns must be over.
 */
struct patience patience(void)
{
    return (struct patience){ counter_ticks() + microseconds_to_ticks(PATIENCE_MICROSECONDS), PATIENCE_TURNS };
}

bool expired(struct patience *patience)
{
    yield();
    if (patience->turns != 0)
        patience->turns--;
    if (patience->turns != 0)
        return false;
    patience->turns = TURNS_A_READ;
    return (int64_t)(patience->deadline_ticks - counter_ticks()) <= 0;
}

bool await(const uint32_t *word, uint32_t value)
{
    struct patience waiting = patience();

    while (observe(word) != value)
        if (expired(&waiting))
            return false;
    return true;
}

void wait_for(const uint32_t *word, uint32_t value)
{
    while (observe(word) != value)
        yield();
}

/* Polled with pauses: each turn is a trap, and the CPU that is going down needs the time more. */
bool await_off(uint64_t target_affinity)
{
    uint64_t pause_ticks = microseconds_to_ticks(POLL_MICROSECONDS);

    for (unsigned polls = PATIENCE_MICROSECONDS / POLL_MICROSECONDS; polls != 0; polls--) {
        if (affinity_info(target_affinity, 0) == AFFINITY_OFF)
            return true;
        wait_until(counter_ticks() + pause_ticks);
    }
    return false;
}

void park(void)
{
    for (;;)
        __asm__ volatile("wfi");
}

void semihosting_exit(uint64_t code)
{
    uint64_t block[2] = { ADP_STOPPED_APPLICATION_EXIT, code };
    register uint64_t x0 __asm__("x0") = SYS_EXIT;
    register uint64_t *x1 __asm__("x1") = block;

    __asm__ volatile("hlt #0xf000" : "+r"(x0) : "r"(x1) : "memory");
    park();
}

void power_off(void)
{
    if (device_tree.psci.binding < BINDING_PSCI_0_2)
        semihosting_exit(EXIT_SUCCESS);
    fail("SYSTEM_OFF returned: %s", answer_name(system_off()));
}

void nothing_to_show(const char *format, ...)
{
    va_list arguments;

    print("PASS: nothing to show: ");
    va_start(arguments, format);
    vprint(format, arguments);
    va_end(arguments);
    print("\n");
    power_off();
}

static void complain(const char *format, va_list arguments)
{
    print("FAIL: ");
    vprint(format, arguments);
    print("\n");
}

void fail(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    complain(format, arguments);
    va_end(arguments);
    semihosting_exit(EXIT_CHECK_FAILED);
}

void lacks(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    complain(format, arguments);
    va_end(arguments);
    semihosting_exit(EXIT_MACHINE_LACKS);
}

void wrong_exception_level(uint64_t current_el)
{
    print("FAIL: entered at EL%lu, this guest is an EL1 program\n", current_el >> 2);
    semihosting_exit(EXIT_NOT_EL1);
}

void report_exception(uint64_t esr, uint64_t elr, uint64_t far)
{
    static uint32_t reported;

    /* Where there is no semihosting, its HLT is UNDEFINED and leads back here. */
    if (observe(&reported))
        park();
    publish(&reported, 1);
    print("EXCEPTION esr=%lx elr=%lx far=%lx\n", esr, elr, far);
    semihosting_exit(EXIT_EXCEPTION);
}
