/*
 * An identity map: 4 KiB granule, 39-bit addresses from TTBR0_EL1, nothing behind TTBR1_EL1. The image's 2 MiB are pages,
 * everything else blocks of 2 MiB. Set up once by the boot CPU; each CPU turns its own MMU on.
 */
#ifndef MMU_H
#define MMU_H

#include <stdint.h>

#define PAGE_BYTES              0x1000ul
#define BLOCK_BYTES             0x200000ul

/* Descriptor attributes (Arm ARM, VMSAv8-64 translation table format descriptors). */
#define MAP_NORMAL              (0ul << 2 | 3ul << 8)   /* MAIR_EL1 entry 0, inner shareable */
#define MAP_DEVICE              (1ul << 2)
#define MAP_EL0                 (1ul << 6)              /* AP[1] */
#define MAP_READ_ONLY           (1ul << 7)              /* AP[2] */
#define MAP_ACCESSED            (1ul << 10)             /* AF; without it the first access faults */
#define MAP_PXN                 (1ul << 53)
#define MAP_UXN                 (1ul << 54)

#define MAP_DATA                (MAP_NORMAL | MAP_ACCESSED | MAP_PXN | MAP_UXN)
#define MAP_CODE                (MAP_NORMAL | MAP_ACCESSED | MAP_READ_ONLY)

/* SCTLR_EL1 */
#define SCTLR_RES1              0x30d00800ul            /* of ARMv8.0, less nTWE and nTWI */
#define SCTLR_M                 (1ul << 0)
#define SCTLR_A                 (1ul << 1)
#define SCTLR_C                 (1ul << 2)
#define SCTLR_UMA               (1ul << 9)
#define SCTLR_I                 (1ul << 12)
#define SCTLR_DZE               (1ul << 14)
#define SCTLR_UCT               (1ul << 15)
#define SCTLR_UCI               (1ul << 26)

/* Map what the image itself needs: its parts, and the UART. */
void mmu_prepare(void);

/* Change a page of the image's 2 MiB, to itself; 0 unmaps it. */
void mmu_map_page(const void *page, uint64_t attributes);

/* Map 2 MiB below 2 GiB. */
void mmu_map_block(uintptr_t address, uint64_t physical, uint64_t attributes);

/* Let a 2 MiB range below 2 GiB be translated by a level 3 table at any physical address. */
void mmu_map_table(uintptr_t address, uint64_t table);

void mmu_on(void);
void mmu_off(void);
void set_sctlr(uint64_t value);
uint64_t sctlr(void);

#endif
