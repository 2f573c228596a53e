"""How long a run may take, and whether it gets anywhere meanwhile."""

from __future__ import annotations

from emu.outcome import ExitCode, Outcome
from emu.setup import Setup


class Limits:
    """Hold a run against --max-insns and --timeout; instructions are counted by whole slices."""

    def __init__(self, setup: Setup) -> None:
        self._max_insns = setup.max_insns
        self._timeout_ns = setup.timeout_ns
        self.instructions = 0
        self.seen = ((-1, -1), 0)  # calls and printed bytes when there last was progress, and at how many instructions that was

    def cap(self, instructions: int) -> int:
        """Return how many of a slice's instructions are left before the limit."""
        return instructions if self._max_insns is None else min(instructions, self._max_insns - self.instructions)

    def count(self, instructions: int, progress: tuple[int, int]) -> bool:
        """Count a slice; say whether there was progress: other numbers of calls and printed bytes."""
        self.instructions += instructions
        if progress == self.seen[0]:
            return False
        self.seen = progress, self.instructions
        return True

    def reached(self, now_ns: int) -> Outcome | None:
        """Return how the run ends if a limit is reached."""
        if self._max_insns is not None and self.instructions >= self._max_insns:
            limit = f"--max-insns {self._max_insns}"
        elif self._timeout_ns is not None and now_ns >= self._timeout_ns:
            limit = f"--timeout {duration(self._timeout_ns)}"
        else:
            return None
        if self.instructions - self.seen[1] > self.instructions // 2:
            return Outcome(ExitCode.NO_PROGRESS, f"no progress: neither a call nor output in the second half of {limit}")
        return Outcome(ExitCode.LIMIT, f"limit reached: {limit}")


def duration(nanoseconds: int) -> str:
    """Spell a time in the largest unit that divides it: 1ms, 1500us."""
    for unit, size in (("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1_000)):
        if nanoseconds % size == 0:
            return f"{nanoseconds // size}{unit}"
    return f"{nanoseconds}ns"
