#include "gallery.h"

#include <stdarg.h>

#include "../lib/limits.h"

#define RAM_START           0x40000000ul    /* where an ELF image's device tree is */
#define PATIENCE_TURNS      50000u
#define FDT_BEGIN_NODE      1u
#define FDT_END_NODE        2u
#define FDT_PROP            3u
#define FDT_NOP             4u

static uint32_t came[MAX_CPUS];

SECONDARY_ENTRY(arrival_entry, arrival_main);

static unsigned this_cpu(void)
{
    uint64_t mpidr;
    unsigned cpu = 0;

    __asm__("mrs %0, mpidr_el1" : "=r"(mpidr));
    while (cpu < device_tree.cpu_count - 1 && cpu_mpidr[cpu] != (mpidr & MPIDR_AFFINITY))
        cpu++;
    return cpu;
}

/* By MPIDR and not by context_id: some hosts pass none. */
void arrival_main(uint64_t context_id)
{
    (void)context_id;
    publish(&came[this_cpu()], 1);
    park();
}

uint32_t await_change(const uint32_t *word)
{
    for (unsigned turns = PATIENCE_TURNS; turns != 0 && observe(word) == 0; turns--)
        __asm__ volatile("yield" : : : "memory");
    return observe(word);
}

bool arrived(unsigned n)
{
    return await_change(&came[other_cpu(n)]) != 0;
}

unsigned bring_up(void)
{
    unsigned up = 1;

    for (unsigned n = 0; n < device_tree.cpu_count - 1; n++) {
        answer value = cpu_on(cpu_mpidr[other_cpu(n)], arrival_entry, 0);

        if (value == NOT_SUPPORTED)
            out_of_place("this firmware starts no CPUs");
        if (value == SUCCESS && arrived(n))
            up++;
        else
            print("  CPU %lx: %s\n", cpu_mpidr[other_cpu(n)], answer_name(value));
    }
    return up;
}

void judge_cpus(unsigned up)
{
    if (up != device_tree.cpu_count)
        fail("%u of %u CPUs are up", up, device_tree.cpu_count);
    survived("%u of %u CPUs are up", up, device_tree.cpu_count);
}

void need_binding(enum binding binding, unsigned cpus)
{
    if (device_tree.psci.binding < binding)
        out_of_place("no psci node that this driver binds to");
    need_cpus(cpus);
}

static void end_well(const char *verdict, const char *format, va_list arguments)
{
    print("%s", verdict);
    vprint(format, arguments);
    print("\n");
}

void survived(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    end_well("PASS: ", format, arguments);
    va_end(arguments);
    semihosting_exit(EXIT_SUCCESS);
}

void out_of_place(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    end_well("PASS: nothing to show: ", format, arguments);
    va_end(arguments);
    semihosting_exit(EXIT_SUCCESS);
}

void die_of_undefined(uint32_t function_id)
{
    print("EXCEPTION: the call %x is UNDEFINED here\n", function_id);
    semihosting_exit(EXIT_EXCEPTION);
}

/* ---- what lib/devicetree.h does not keep: every string of the psci node, and where RAM ends */

static uint32_t word_at(uintptr_t address)
{
    const volatile uint8_t *bytes = (const volatile uint8_t *)address;

    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

static uintptr_t length_of(uintptr_t string)
{
    uintptr_t length = 0;

    while (((const volatile char *)string)[length] != 0)
        length++;
    return length;
}

static bool begins_with(uintptr_t string, const char *prefix)
{
    const volatile char *c = (const volatile char *)string;

    while (*prefix != 0 && *c == *prefix)
        c++, prefix++;
    return *prefix == 0;
}

struct property {
    uintptr_t value;            /* 0 where there is none */
    uint32_t size_bytes;
};

/* A property of the first node whose name begins so; none of those asked for has nodes in it. */
static struct property find_property(const char *node, const char *name)
{
    uintptr_t token = RAM_START + word_at(RAM_START + 8), names = RAM_START + word_at(RAM_START + 12);
    bool inside = false;

    for (;;) {
        switch (word_at(token)) {
        case FDT_BEGIN_NODE:
            inside = begins_with(token + 4, node);
            token += 4 + ((length_of(token + 4) + 4) & ~3ul);
            break;
        case FDT_PROP: {
            uint32_t size_bytes = word_at(token + 4);

            if (inside && same_string((const char *)(names + word_at(token + 8)), name))
                return (struct property){ token + 12, size_bytes };
            token += 12 + ((size_bytes + 3ul) & ~3ul);
            break;
        }
        case FDT_END_NODE:
        case FDT_NOP:
            token += 4;
            break;
        default:
            return (struct property){ 0, 0 };
        }
    }
}

bool node_lists(const char *compatible)
{
    struct property list = find_property("psci", "compatible");

    for (uintptr_t at = list.value; at < list.value + list.size_bytes; at += length_of(at) + 1)
        if (same_string((const char *)at, compatible))
            return true;
    return false;
}

uint64_t ram_end(void)
{
    struct property reg = find_property("memory", "reg");

    if (reg.size_bytes != 16)
        return RAM_START;
    return ((uint64_t)word_at(reg.value) << 32 | word_at(reg.value + 4)) + ((uint64_t)word_at(reg.value + 8) << 32 | word_at(reg.value + 12));
}
