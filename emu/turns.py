"""Who sleeps, who has to be woken, and whose turn it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from emu.interrupts import Interrupts
from emu.limits import Limits
from emu.scheduler import NS_PER_TICK, Clock, Scheduler
from emu.vcpu import Vcpu, Wait
from firmware.abi import PowerState

# Three centuries of virtual time: a deadline beyond is none, and times stay within 64 bits.
_LAST_TICK: Final = (1 << 63) // NS_PER_TICK

_NOTHING, _WFI, _PARKED, _OFF = Wait.NOTHING, Wait.WFI, Wait.PARKED, PowerState.OFF  # a look into an enumeration is slow


class Sleepers(NamedTuple):
    """What a machine knows of vCPUs that do not run.

    woken       says which of the vCPUs in WFI, and of those that are suspended, something wakes
    wake        wakes it
    unpark      looks again at a vCPU's parked loop, and says whether it can go on
    interrupts  say whether a parked vCPU would take one, and when the next one comes that is not a vCPU's own
    pause       waits, for so many virtual nanoseconds or (None) without end, for somebody to type; says whether somebody has
    """

    woken: Callable[[Sequence[int], Sequence[int]], Sequence[int]]
    wake: Callable[[int], None]
    unpark: Callable[[int], bool]
    interrupts: Interrupts
    pause: Callable[[int | None], bool]


class Turns:
    """Hand out turns."""

    def __init__(self, clock: Clock, scheduler: Scheduler, limits: Limits, sleepers: Sleepers) -> None:
        self._clock = clock
        self._scheduler = scheduler
        self._limits = limits
        self._sleepers = sleepers
        self.is_alone = False

    def next(self, vcpus: list[Vcpu], states: Sequence[PowerState]) -> int | None:
        """Wake whom time has woken and return whose turn it is; None if nobody can run before a limit.

        Afterwards `is_alone` says whether the next turn is the same one's, unless somebody is started or woken meanwhile.
        """
        while True:
            runnable, waiting, suspended, parked = _sorted(vcpus, states)
            self.is_alone = runnable.count(True) == 1 and not parked and not self._scheduler.draws
            if all(runnable):
                return self._scheduler.choose(runnable)
            woken = self._sleepers.woken(waiting, suspended)
            for index in woken:
                self._sleepers.wake(index)
            is_running = True in runnable
            # While somebody runs, a parked loop may be rewritten: it gets its turn, to be looked at again.
            if woken or (not is_running and [index for index in parked if self._sleepers.unpark(index)]):
                continue
            for index in parked if is_running else ():
                runnable[index] = True
            chosen = self._scheduler.choose(runnable)
            if chosen is not None or self._limits.reached(self._clock.now_ns) is not None:
                return chosen
            deadline = self._next_deadline(vcpus, [*waiting, *suspended, *filter(self._sleepers.interrupts.can_take, parked)])
            if self._sleepers.pause(None if deadline is None else deadline * NS_PER_TICK - self._clock.now_ns):
                continue
            if deadline is None:
                return None
            self._clock.advance_to_tick(deadline)

    def _next_deadline(self, vcpus: list[Vcpu], waiting: Sequence[int]) -> int | None:
        now = self._clock.now_ticks
        deadlines = [vcpus[index].timers.deadline_after(now) for index in waiting]
        if waiting:
            deadlines.append(self._sleepers.interrupts.deadline_ticks)
        return min((deadline for deadline in deadlines if deadline is not None and deadline < _LAST_TICK), default=None)


def _sorted(vcpus: Sequence[Vcpu], states: Sequence[PowerState]) -> tuple[list[bool], list[int], list[int], list[int]]:
    """Return who runs, of all, and who is in WFI, who is suspended, and who is parked; those that are off are none of these."""
    runnable = [False] * len(vcpus)
    waiting: list[int] = []
    suspended: list[int] = []
    parked: list[int] = []
    for index, vcpu in enumerate(vcpus):
        if states[index] is _OFF:
            continue
        wait = vcpu.wait
        if wait is _WFI:
            waiting.append(index)
        elif wait is _NOTHING:
            runnable[index] = True
        else:
            (parked if wait is _PARKED else suspended).append(index)
    return runnable, waiting, suspended, parked
