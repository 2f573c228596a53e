"""Who sleeps, who has to be woken, and whose turn it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from emu.limits import Limits
from emu.scheduler import NS_PER_TICK, Clock, Scheduler
from emu.vcpu import Vcpu, Wait

# Three centuries of virtual time: a deadline beyond is none, and times stay within 64 bits.
_LAST_TICK: Final = (1 << 63) // NS_PER_TICK


class Sleepers(NamedTuple):
    """What a machine knows of vCPUs that do not run.

    is_woken  says whether something wakes a vCPU that sleeps
    wake      wakes it
    unpark    looks again at a vCPU's parked loop, and says whether it can go on
    can_take  says whether a parked vCPU would take an interrupt
    pause     waits, for so many virtual nanoseconds or (None) without end, for somebody to type; says whether somebody has
    """

    is_woken: Callable[[int], bool]
    wake: Callable[[int], None]
    unpark: Callable[[int], bool]
    can_take: Callable[[int], bool]
    pause: Callable[[int | None], bool]


class Turns:
    """Hand out turns."""

    def __init__(self, clock: Clock, scheduler: Scheduler, limits: Limits, sleepers: Sleepers) -> None:
        self._clock = clock
        self._scheduler = scheduler
        self._limits = limits
        self._sleepers = sleepers

    def next(self, vcpus: list[Vcpu], is_on: Callable[[int], bool]) -> int | None:
        """Wake whom time has woken and return whose turn it is; None if nobody can run before a limit."""
        while True:
            runnable = [vcpu.wait is Wait.NOTHING and is_on(index) for index, vcpu in enumerate(vcpus)]
            if all(runnable):
                return self._scheduler.choose(runnable)
            running: list[int] = []
            parked: list[int] = []
            sleepers: list[int] = []
            for index, vcpu in enumerate(vcpus):
                if is_on(index):
                    (running if vcpu.wait is Wait.NOTHING else sleepers if vcpu.can_be_woken else parked).append(index)
            woken = False
            for index in sleepers:
                if self._sleepers.is_woken(index):
                    self._sleepers.wake(index)
                    woken = True
            # While somebody runs, a parked loop may be rewritten: it gets its turn, to be looked at again.
            if woken or (not running and [index for index in parked if self._sleepers.unpark(index)]):
                continue
            turns = [*running, *parked] if running else []
            chosen = self._scheduler.choose([index in turns for index in range(len(vcpus))])
            waiting = [*sleepers, *(index for index in parked if self._sleepers.can_take(index))]
            deadlines = [
                deadline for index in waiting if (deadline := vcpus[index].timers.deadline_after(self._clock.now_ticks)) is not None
            ]
            deadlines = [deadline for deadline in deadlines if deadline < _LAST_TICK]
            if chosen is not None or self._limits.reached(self._clock.now_ns) is not None:
                return chosen
            deadline = min(deadlines, default=None)
            if self._sleepers.pause(None if deadline is None else deadline * NS_PER_TICK - self._clock.now_ns):
                continue
            if deadline is None:
                return None
            self._clock.advance_to_tick(deadline)
