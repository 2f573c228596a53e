#include "boots.h"

#include "machine.h"

/* 2.5 MiB into RAM: behind the image and its stacks, see guest.ld, and far from the device tree. */
#define BOOTS                   ((volatile struct boots *)0x40280000ul)
#define MAGIC                   0xb007edb007edb007ul
#define GIVE_UP_MICROSECONDS    30000000ul

struct boots *count_boot(uint32_t most)
{
    if (BOOTS->magic != MAGIC) {
        /* Without the words each boot is the first; but the counter goes on, so this ends as well. */
        if (counter_ticks() > microseconds_to_ticks(GIVE_UP_MICROSECONDS))
            fail("the machine has run for long, and RAM knows of no boot: a reset does not keep it");
        BOOTS->count = 0;
        BOOTS->note = 0;
        BOOTS->magic = MAGIC;
    }
    BOOTS->count++;
    if (BOOTS->count > most) {
        forget_boots();
        fail("more than %u boots", most);
    }
    return (struct boots *)BOOTS;
}

void forget_boots(void)
{
    BOOTS->magic = 0;
}
