/* The EL1 virtual timer as what wakes a CPU. No interrupt is ever taken: PSTATE masks them, and a masked one wakes too. */
#ifndef TIMER_H
#define TIMER_H

#include <stdbool.h>
#include <stdint.h>

/* Let the timer wake this CPU when the counter gets there. Ends the guest where the device tree has a GIC other than v2. */
void wake_at(uint64_t deadline_ticks);

/* Take the wake-up back. */
void wake_never(void);

static inline bool reached(uint64_t deadline_ticks, uint64_t now_ticks)
{
    return (int64_t)(now_ticks - deadline_ticks) >= 0;
}

#endif
