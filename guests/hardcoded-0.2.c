/*
 * Learn: why a hypervisor must let its user keep an old PSCI version. This guest was written when 0.2 was the newest,
 * compares the version word with 2, and has no idea what else to do; FreeBSD's driver of 2014 compared so too. Since
 * Linux commit 85bd0ba1ff98 (in v4.17), KVM's firmware register PSCI_VERSION can be written, for such guests' sake.
 *
 * Prints: "this guest knows PSCI 0.2 only, found 1.0: on fire", and then dies of an undefined instruction with no
 * exception vectors left. Under 0.2 it says so and powers off.
 *
 * At PSCI 0.2: the only version where it lives. At 0.1 there is no PSCI_VERSION; the -1 that answers it is taken for
 * version 65535.65535, as everyone does who forgets that the answer is signed.
 */
#include "lib/console.h"
#include "lib/machine.h"
#include "lib/psci.h"

#define SLOT_SIZE_BYTES 64ul

/* One slot of code a version word, as far as this guest's author could see. 0.0 and 0.1 were never to be run. */
void slots(void);
__asm__(".pushsection .text\n"
        ".balign 64\n"
        ".global slots\n"
        ".type slots, %function\n"
        "slots:\n"
        "    udf #0\n"
        "    .balign 64\n"
        "    udf #1\n"
        "    .balign 64\n"
        "    b run_0_2\n"
        ".size slots, . - slots\n"
        ".popsection\n");

void run_0_2(void) __attribute__((noreturn));

void run_0_2(void)
{
    print("this guest knows PSCI 0.2 only, and found it\n");
    power_off();
}

/* Unsigned on purpose: see the head of this file. */
static void __attribute__((noreturn)) dispatch(uint32_t version)
{
    /* Word 0x1_0000 is 4 MiB past the slots: RAM that holds zeros, and a zero is UDF. */
    void (*slot)(void) = (void (*)(void))((uintptr_t)slots + version * SLOT_SIZE_BYTES);

    slot();
    park();
}

void guest_main(void)
{
    answer value = psci_version();
    uint32_t version = (uint32_t)value;

    if (version == PSCI_0_2)
        dispatch(version);
    if (value == UNDEF)
        print("this guest knows PSCI 0.2 only, found UNDEF: on fire\n");
    else
        print("this guest knows PSCI 0.2 only, found %u.%u: on fire\n", version_major(version), version_minor(version));
    __asm__ volatile("msr vbar_el1, xzr\n isb" : : : "memory");
    dispatch(version);
}
