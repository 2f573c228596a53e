"""Virtual time, and whose turn it is.

1. Guest time is virtual: an instruction costs 1 ns, a trap and a counter read a fixed sum more; nothing reads a host clock.
2. A slice ends with the block in which its last instruction is, and costs what was run. One that ends early (the vCPU waits or went
   off) costs its full length: the rest counts as the time in which nobody else was let in. A run repeats exactly.
3. Seed 0 is plain round robin with equal slices; any other seed draws lengths and order, reproducibly.
   A vCPU that was just started has the next turn, under seed 0 only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from firmware.vendor_hyp import COUNTER_HZ

if TYPE_CHECKING:
    from random import Random

NS_PER_TICK: Final = 1_000_000_000 // COUNTER_HZ

SLICE_INSTRUCTIONS: Final = 10_000
TRAP_NS: Final = 1_000  # about what an exit to a hypervisor costs; it makes calls within a slice follow one another
COUNTER_READ_NS: Final = 1_000  # two reads never see the same count, and a delay loop does not take for ever


class Clock:
    """Virtual time in nanoseconds since power-on, how many traps it has seen, and what each takes."""

    __slots__ = ("now_ns", "trap_ns", "traps")

    def __init__(self) -> None:
        self.now_ns = 0
        self.trap_ns = TRAP_NS
        self.traps = 0

    @property
    def now_ticks(self) -> int:
        return self.now_ns // NS_PER_TICK

    def read_counter(self) -> int:
        """Return CNTVCT_EL0 or CNTPCT_EL0, and let the read take its time."""
        self.now_ns += COUNTER_READ_NS
        return self.now_ns // NS_PER_TICK

    def advance_to_tick(self, ticks: int) -> None:
        self.now_ns = max(self.now_ns, ticks * NS_PER_TICK)


class Scheduler:
    """Choose the next vCPU and the length of its slice."""

    def __init__(self, seed: int) -> None:
        self.last = -1
        self.started: list[int] = []
        self.draw_anew(seed)

    def draw_anew(self, seed: int) -> None:
        """Draw by another seed from now on."""
        self._random = _random(seed) if seed else None

    def start(self, vcpu: int) -> None:
        """Let a vCPU that has just been started have the next turn, as one that starts on its own core would."""
        self.started.append(vcpu)

    def choose(self, runnable: Sequence[bool]) -> int | None:
        """Return the vCPU whose turn it is, or None if none can run."""
        candidates = [vcpu for vcpu, can_run in enumerate(runnable) if can_run]
        started = [vcpu for vcpu in self.started if runnable[vcpu]] if self.started else self.started
        self.started = []
        if not candidates:
            return None
        if self._random is not None:
            self.last = self._random.choice(candidates)
        elif started:
            self.started = started[1:]
            return started[0]
        elif self.last >= candidates[-1]:
            self.last = candidates[0]
        else:
            self.last = next(vcpu for vcpu in candidates if vcpu > self.last)
        return self.last

    @property
    def draws(self) -> bool:
        """Whether order and lengths are drawn."""
        return self._random is not None

    def slice_instructions(self) -> int:
        if self._random is None:
            return SLICE_INSTRUCTIONS
        return self._random.randint(1, 2 * SLICE_INSTRUCTIONS)

    @property
    def draw(self) -> tuple[Any, ...] | None:
        """The seeded draw's state; None under seed 0, which draws nothing."""
        return None if self._random is None else self._random.getstate()

    def restore(self, last: int, started: Sequence[int], draw: tuple[Any, ...] | None) -> None:
        """Go on from there."""
        self.last, self.started = last, list(started)
        if self._random is not None and draw is not None:
            self._random.setstate(draw)

    def reset(self) -> None:
        """Begin a new round, as after a system reset; a seeded draw goes on where it was."""
        self.last = -1
        self.started.clear()


def _random(seed: int) -> Random:
    from random import Random  # noqa: PLC0415  which plain round robin does not need

    return Random(seed)
