"""What tests of the fuzzer share: a guest's file as the fuzzer takes it, and cases drawn for it."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Final

from emu.fuzz.campaign import REFERENCE
from emu.fuzz.case import Case
from emu.fuzz.guest import Guest, Store, digest_of
from emu.fuzz.mutate import mutated
from emu.fuzz.workers import Source
from emu.fuzz.worlds import Worlds
from tests.fuzzed import ANY_HOST, Here

ENOUGH_INSTRUCTIONS: Final = 300_000
ENOUGH_CALLS: Final = 300


class Subject:
    """One guest to be fuzzed.

    options  of the machine; a little RAM is all that these guests need
    """

    def __init__(self, path: Path, options: str = "-smp 2 -m 16M", *, until: str | None = None) -> None:
        self.path = path
        self.content = path.read_bytes()
        self.store = Store()
        self.store.add(self.content)
        files = (("kernel", digest_of(self.content)),)
        self.guest = Guest(tuple(options.split()), None, files, until, ENOUGH_INSTRUCTIONS, ENOUGH_CALLS)

    def worlds(self, *, careful: bool = False, reference: Case = REFERENCE) -> Worlds:
        return Worlds(self.guest, reference, self.store.paths, careful=careful)


def drawn(worlds: Worlds, count: int, seed: int) -> list[Case]:
    """Draw cases as a campaign comes to them: each is made from the first or from one before."""
    execution = worlds.run(REFERENCE)
    assert execution is not None
    draw, parents = Random(seed), [(REFERENCE, execution.profile)]
    cases: list[Case] = []
    for _ in range(count):
        parent, profile = draw.choice(parents)
        case = mutated(parent, profile, ANY_HOST, draw).case
        cases.append(case)
        parents.append((case, profile))
    return cases


def inline(width: int = 1) -> Source:
    return Source(Here, lambda executor: executor.shutdown(), width)
