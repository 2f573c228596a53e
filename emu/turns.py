"""Who sleeps, who has to be woken, and whose turn it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from emu.limits import Limits
from emu.scheduler import NS_PER_TICK, Clock, Scheduler
from emu.vcpu import Vcpu, Wait
from firmware.abi import PowerState

# Three centuries of virtual time: a deadline beyond is none, and times stay within 64 bits.
_LAST_TICK: Final = (1 << 63) // NS_PER_TICK

_AWAKE: Final = (None, Wait.NOTHING, Wait.PARKED)  # compared by identity; None: off


class Sleepers(NamedTuple):
    """What a machine knows of vCPUs that do not run.

    woken     says which of the vCPUs that sleep something wakes
    wake      wakes it
    unpark    looks again at a vCPU's parked loop, and says whether it can go on
    can_take  says whether a parked vCPU would take an interrupt
    pause     waits, for so many virtual nanoseconds or (None) without end, for somebody to type; says whether somebody has
    """

    woken: Callable[[Sequence[int]], Sequence[int]]
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

    def next(self, vcpus: list[Vcpu], states: Sequence[PowerState]) -> int | None:
        """Wake whom time has woken and return whose turn it is; None if nobody can run before a limit."""
        while True:
            waits = [None if state is PowerState.OFF else vcpu.wait for vcpu, state in zip(vcpus, states, strict=True)]
            runnable = [wait is Wait.NOTHING for wait in waits]
            if all(runnable):
                return self._scheduler.choose(runnable)
            parked = [index for index, wait in enumerate(waits) if wait is Wait.PARKED]
            sleepers = [index for index, wait in enumerate(waits) if wait not in _AWAKE]
            woken = self._sleepers.woken(sleepers)
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
            deadline = self._next_deadline(vcpus, [*sleepers, *(index for index in parked if self._sleepers.can_take(index))])
            if self._sleepers.pause(None if deadline is None else deadline * NS_PER_TICK - self._clock.now_ns):
                continue
            if deadline is None:
                return None
            self._clock.advance_to_tick(deadline)

    def _next_deadline(self, vcpus: list[Vcpu], waiting: Sequence[int]) -> int | None:
        now = self._clock.now_ticks
        deadlines = [deadline for index in waiting if (deadline := vcpus[index].timers.deadline_after(now)) is not None]
        return min((deadline for deadline in deadlines if deadline < _LAST_TICK), default=None)
