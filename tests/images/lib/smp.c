/*
 * With the MMU off exclusives work on memory only where the implementation lets them (Arm ARM: IMPLEMENTATION DEFINED for
 * Device memory). QEMU's and Unicorn's do.
 */
#include "smp.h"

#include "console.h"

#define MPIDR_FIELDS            0xff00fffffful
#define POLLS                   1000000u

extern char stacks[];

int smp_prepare(uintptr_t device_tree, struct device_tree *found, void (*main)(struct cpu *cpu))
{
    if (!is_device_tree(device_tree)) {
        print("FAIL: no device tree in x0\n");
        return EXIT_LACKS;
    }
    *found = read_device_tree(device_tree);
    if (found->psci.binding < BINDING_PSCI_0_2 || found->cpu_count > IMAGE_CPUS || cpu_mpidr[0] != own_mpidr()) {
        print("FAIL: this image wants PSCI 0.2 and at most %u CPUs, of which it boots on the first\n", IMAGE_CPUS);
        return EXIT_LACKS;
    }
    psci_use(&found->psci);
    for (unsigned i = 0; i < found->cpu_count; i++) {
        cpus[i].stack_top = (uintptr_t)stacks + (i + 1) * STACK_SIZE_BYTES;
        cpus[i].main = main;
    }
    return 0;
}

uint64_t own_mpidr(void)
{
    uint64_t mpidr;

    __asm__("mrs %0, mpidr_el1" : "=r"(mpidr));
    return mpidr & MPIDR_FIELDS;
}

bool await_off(uint64_t target_affinity)
{
    for (unsigned poll = 0; poll < POLLS; poll++) {
        if (affinity_info(target_affinity, 0) == AFFINITY_OFF)
            return true;
        __asm__ volatile("yield" : : : "memory");
    }
    return false;
}

void await_word(const volatile uint32_t *word, uint32_t value)
{
    uint32_t seen;

    /* Loaded exclusively, so that the write itself is an event too. */
    __asm__ volatile("sevl\n"
                     "1: wfe\n"
                     "ldaxr %w0, [%1]\n"
                     "cmp %w0, %w2\n"
                     "b.ne 1b"
                     : "=&r"(seen) : "r"(word), "r"(value) : "memory", "cc");
}

void announce(volatile uint32_t *word, uint32_t value)
{
    __asm__ volatile("stlr %w1, [%0]\n dsb ish\n sev" : : "r"(word), "r"(value) : "memory");
}

void lock(struct ticket_lock *lock)
{
    uint32_t ticket, next, failed;

    __asm__ volatile("1: ldaxr %w0, [%3]\n"
                     "add %w1, %w0, #1\n"
                     "stlxr %w2, %w1, [%3]\n"
                     "cbnz %w2, 1b"
                     : "=&r"(ticket), "=&r"(next), "=&r"(failed) : "r"(&lock->next) : "memory");
    await_word(&lock->owner, ticket);
}

void unlock(struct ticket_lock *lock)
{
    announce(&lock->owner, lock->owner + 1);
}

uint32_t atomic_add(uint32_t *word, uint32_t addend)
{
    uint32_t before, after, failed;

    __asm__ volatile("1: ldxr %w0, [%3]\n"
                     "add %w1, %w0, %w4\n"
                     "stxr %w2, %w1, [%3]\n"
                     "cbnz %w2, 1b"
                     : "=&r"(before), "=&r"(after), "=&r"(failed) : "r"(word), "r"(addend) : "memory");
    return before;
}
