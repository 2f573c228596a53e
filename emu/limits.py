"""How long a run may take, whether it gets anywhere meanwhile, and what the guest has said of its own end."""

from __future__ import annotations

from typing import Final

from emu.announcement import Announcement
from emu.outcome import ExitCode, Outcome
from emu.setup import Setup

# A kernel whose last word was its panic's gets that many instructions for another sign of life. It waits for ever by reading the counter,
# each time a callback: these take a second.
LAST_MOMENT_INSTRUCTIONS: Final = 2_000_000

_WITHOUT_SUCCESS: Final = (ExitCode.LIMIT, ExitCode.NO_PROGRESS, ExitCode.DEADLOCK, ExitCode.RESET)


class Limits:
    """Hold a run against --max-insns and --timeout; instructions are counted by whole slices."""

    def __init__(self, setup: Setup) -> None:
        self._max_insns = setup.max_insns
        self._timeout_ns = setup.timeout_ns
        self._max_calls = setup.max_calls
        self._has_interrupts = setup.gic is not None
        self.instructions = 0
        self.seen = ((-1, -1), 0)  # calls and printed bytes when there last was progress, and at how many instructions that was
        self.spun = (0, 0)  # since then: in how many instructions vCPUs span with interrupts masked, and not masked
        self.announced = Announcement()

    def cap(self, instructions: int) -> int:
        """Return how many of a slice's instructions are left before the limit."""
        return instructions if self._max_insns is None else min(instructions, self._max_insns - self.instructions)

    def count(self, instructions: int, progress: tuple[int, int]) -> bool:
        """Count a slice; say whether there was progress: other numbers of calls and printed bytes."""
        self.instructions += instructions
        if progress != self.seen[0]:
            self.seen, self.spun = (progress, self.instructions), (0, 0)
            return True
        return False

    def spin(self, instructions: int, *, takes: bool) -> None:
        """Count a slice without progress whose vCPU still runs at its end; `takes`: it would take an interrupt."""
        masked, unmasked = self.spun
        self.spun = (masked, unmasked + instructions) if takes else (masked + instructions, unmasked)

    def reached(self, now_ns: int) -> Outcome | None:
        """Return how the run ends if a limit is reached, or the guest's last word was that it has ended."""
        stands_still = self.instructions - self.seen[1]
        if self.announced.is_end and stands_still > LAST_MOMENT_INSTRUCTIONS and self.announced.sentence is not None:
            return Outcome(ExitCode.PANIC, self.announced.sentence)
        if self._max_insns is not None and self.instructions >= self._max_insns:
            limit = f"--max-insns {self._max_insns}"
        elif self._timeout_ns is not None and now_ns >= self._timeout_ns:
            limit = f"--timeout {duration(self._timeout_ns)}"
        elif self._max_calls is not None and self.seen[0][0] >= self._max_calls:
            limit = f"{self._max_calls} calls"
        else:
            return None
        never_called = self.seen[0][0] <= 0
        if stands_still <= self.instructions // 2:
            return self.explained(Outcome(ExitCode.LIMIT, f"limit reached: {limit}" + (", without a single call" if never_called else "")))
        words = f"neither a call nor output in the second half of {limit}" + (", and no call before" if never_called else "")
        masked, unmasked = self.spun
        if self._has_interrupts and not unmasked and masked > stands_still // 2:
            words = f"no interrupt possible: every CPU that runs spins with interrupts masked; {words}"
        return self.explained(Outcome(ExitCode.NO_PROGRESS, f"no progress: {words}"))

    def deadlock(self, standstill: str) -> Outcome:
        """Return how a run ends in which nobody can go on."""
        return self.explained(Outcome(ExitCode.DEADLOCK, f"deadlock: {standstill}"))

    def explained(self, outcome: Outcome) -> Outcome:
        """Return how a run ended, by what the guest has announced if that is why."""
        why = self.announced.sentence
        if why is None or outcome.code not in _WITHOUT_SUCCESS:
            return outcome
        return Outcome(ExitCode.PANIC, f"{why}; then {outcome.sentence}")


def duration(nanoseconds: int) -> str:
    """Spell a time in the largest unit that divides it: 1ms, 1500us."""
    for unit, size in (("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1_000)):
        if nanoseconds % size == 0:
            return f"{nanoseconds // size}{unit}"
    return f"{nanoseconds}ns"
