"""How a run ends: documented exit codes, each with one sentence."""

from __future__ import annotations

import enum
from typing import Final, NamedTuple


class ExitCode(enum.IntEnum):
    """The command line's exit codes; 1 to 99 are the guest's own."""

    OK = 0
    CHECK_FAILED = 100
    RESET = 101
    USAGE = 102
    INPUT = 103
    CRASH = 120
    DEADLOCK = 121
    PANIC = 122
    NO_PROGRESS = 123
    LIMIT = 124
    OURS = 125
    INTERRUPTED = 130


# How a run ends where the guest came to no grief: at a reset it is its host's VMM that ends.
WELL: Final = (ExitCode.OK, ExitCode.RESET)


class Outcome(NamedTuple):
    """The end of a run: its exit code, 0 to 130, and one sentence."""

    code: int
    sentence: str


class Ended(Exception):  # noqa: N818  the way out of a callback, not an error
    """The run is over, and this is how."""

    def __init__(self, code: int, sentence: str) -> None:
        super().__init__(sentence)
        self.outcome = Outcome(code, sentence)


class GuestCrash(Ended):
    """The guest cannot go on."""

    def __init__(self, sentence: str) -> None:
        super().__init__(ExitCode.CRASH, f"guest crash: {sentence}")
