/*
 * Physical memory that is not there: a synchronous external abort (Arm ARM, DFSC and IFSC 0x10) at the instruction that
 * went there, with the address it used in FAR. With the MMU on that address is not the physical one.
 *
 * Two places: between the devices, where QEMU's virt has nothing either, and above RAM of up to 512 MiB. With `walk` in
 * its boot arguments the image also lets translation tables be where no memory is.
 */
#include "checks.h"
#include "console.h"
#include "cpu.h"
#include "devicetree.h"
#include "mmu.h"
#include "report.h"

#define BETWEEN_DEVICES         0x0f000000ul
#define ABOVE_RAM               0x60000000ul

/* Addresses below, which one level or the other may use and whose physical address is BETWEEN_DEVICES. */
#define EL0_WINDOW              0x10000000ul
#define EL1_WINDOW              0x10200000ul
#define EL0_DEVICE_WINDOW       0x10400000ul
#define NO_TABLE                0x10600000ul

#define BEHIND_DONE             8u

extern const char read_8[], read_4[], read_2[], read_1[], read_pair[], read_then_advance[], read_exclusive[], read_acquire[];
extern const char write_8[], write_4[], write_2[], write_1[], write_pair[], write_after_advance[], write_release[];
extern const char reads_on[];

static uint64_t word = 0x600d;

#define READS_AND_WRITES(at, from) \
    { "LDR x at " #at, from, ESR_READ(EXTERNAL), read_8, at, 0, 0 }, \
    { "LDR w at " #at, from, ESR_READ(EXTERNAL), read_4, at + 4, 0, 0 }, \
    { "LDRH at " #at, from, ESR_READ(EXTERNAL), read_2, at + 2, 0, 0 }, \
    { "LDRB at " #at, from, ESR_READ(EXTERNAL), read_1, at + 1, 0, 0 }, \
    { "LDP at " #at, from, ESR_READ(EXTERNAL), read_pair, at + 0x10, 0, 0 }, \
    { "LDR with write-back at " #at, from, ESR_READ(EXTERNAL), read_then_advance, at, 0, 0 }, \
    { "LDXR at " #at, from, ESR_READ(EXTERNAL), read_exclusive, at + 8, 0, 0 }, \
    { "LDAR at " #at, from, ESR_READ(EXTERNAL), read_acquire, at + 8, 0, 0 }, \
    { "STR x at " #at, from, ESR_WRITE(EXTERNAL), write_8, at, 0, 0 }, \
    { "STR w at " #at, from, ESR_WRITE(EXTERNAL), write_4, at + 0xffc, 0, 0 }, \
    { "STRH at " #at, from, ESR_WRITE(EXTERNAL), write_2, at + 0x1000, 0, 0 }, \
    { "STRB at " #at, from, ESR_WRITE(EXTERNAL), write_1, at + 0x1fffff, 0, 0 }, \
    { "STP at " #at, from, ESR_WRITE(EXTERNAL), write_pair, at + 0x10, 0, 0 }, \
    { "STR with write-back at " #at, from, ESR_WRITE(EXTERNAL), write_after_advance, at, 0, 8 }, \
    { "STLR at " #at, from, ESR_WRITE(EXTERNAL), write_release, at + 0x20, 0, 0 }

#define FETCHES(at, from) \
    { "fetch from " #at, from, ESR_FETCH(EXTERNAL), fetch, at, 0, 0 }, \
    { "fetch from " #at ", further on", from, ESR_FETCH(EXTERNAL), fetch, at + 0xffc, 0, 0 }

static const struct check without_mmu[] = {
    READS_AND_WRITES(BETWEEN_DEVICES, ANY),
    FETCHES(BETWEEN_DEVICES, ANY),
    READS_AND_WRITES(ABOVE_RAM, ANY),
    FETCHES(ABOVE_RAM, ANY),
};

static const struct check with_mmu[] = {
    READS_AND_WRITES(EL0_WINDOW, ANY),
    READS_AND_WRITES(EL0_DEVICE_WINDOW, ANY),
    READS_AND_WRITES(EL1_WINDOW, EL1),
    FETCHES(EL0_WINDOW, EL0),
    FETCHES(EL1_WINDOW, EL1),
    { "what the tables forbid is a permission fault first", EL0, ESR_READ(PERMISSION + 2), read_8, EL1_WINDOW, 0, 0 },
    { "memory that is there", EL1, ESR_DONE, read_8, (uintptr_t)&word, BEHIND_DONE, 0 },
};

static const struct check walk[] = {
    { "read through a table that is not there", ANY, ESR_READ(EXTERNAL_ON_WALK + 3), read_8, NO_TABLE + 0x1238, 0, 0 },
    { "write through a table that is not there", ANY, ESR_WRITE(EXTERNAL_ON_WALK + 3), write_8, NO_TABLE + 0x1238, 0, 0 },
    { "fetch through a table that is not there", ANY, ESR_FETCH(EXTERNAL_ON_WALK + 3), fetch, NO_TABLE + 0x1238, 0, 0 },
};

/* The faulting read and the faulting write are stepped over, and what follows works. */
static void read_on(const char *place, uint64_t at)
{
    struct cpu *cpu = this_cpu();

    cpu->returns = 2;
    probe((uintptr_t)reads_on, 0x3c5, at, (uintptr_t)&word);
    report(cpu->taken.esr == ESR_DONE && cpu->taken.x2 == word, "%s: EL1h: a handler may step over both", place);
}

int image_main(uintptr_t x0)
{
    bool walks = is_device_tree(x0) && same_string(read_device_tree(x0).bootargs, "walk");

    set_sctlr(SCTLR_RES1);
    mmu_prepare();
    mmu_map_block(EL0_WINDOW, BETWEEN_DEVICES, MAP_NORMAL | MAP_ACCESSED | MAP_EL0);
    mmu_map_block(EL1_WINDOW, BETWEEN_DEVICES, MAP_NORMAL | MAP_ACCESSED);
    mmu_map_block(EL0_DEVICE_WINDOW, BETWEEN_DEVICES, MAP_DEVICE | MAP_ACCESSED | MAP_EL0 | MAP_PXN | MAP_UXN);
    mmu_map_table(NO_TABLE, ABOVE_RAM);
    RUN("MMU off", without_mmu);
    read_on("MMU off", BETWEEN_DEVICES);
    mmu_on();
    RUN("MMU on", with_mmu);
    read_on("MMU on", EL1_WINDOW);
    if (walks)
        RUN("MMU on", walk);
    return summary();
}
