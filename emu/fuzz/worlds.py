"""Every world of one guest: which one a case belongs to, and what is wrong with its runs."""

from __future__ import annotations

import gc
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from emu.commands.probe import is_linux
from emu.coverage import Coverage
from emu.fuzz.case import Case, fault_of, parse_at
from emu.fuzz.guest import Guest
from emu.fuzz.judge import CRASH, Suspect, suspects
from emu.fuzz.legal import is_allowed, is_correct
from emu.fuzz.world import ABORTED, Execution, World
from emu.lint.trace import Trace, Tree
from emu.setup import Setup
from emu.words import parse_call_point
from firmware.abi import PSCI_0_2
from firmware.dispatch import Firmware
from firmware.errors import UserError
from firmware.host import Config
from firmware.overlay import check_faults, with_faults

_MOST_WORLDS: Final = 32
_MOST_WORLDS_OF_A_KERNEL: Final = 6  # each with its own RAM, and a copy of it
_MOST_JUDGED: Final = 1 << 14


class _Place(NamedTuple):
    """What cases of one host, version, conduit and device tree have in common."""

    setup: Setup
    plain: Firmware
    key: tuple[bytes, str]
    is_correct: bool


class Worlds:
    """The worlds of a guest, as many as are kept at once.

    careful  fork for each run even where that is not needed
    """

    def __init__(self, guest: Guest, reference: Case, paths: Mapping[str, Path], *, careful: bool) -> None:
        self._guest = guest
        self._paths = paths
        self._forks = careful
        self._is_kernel = any(name == "kernel" and is_linux(paths[digest]) for name, digest in guest.files)
        self._places: dict[Case, _Place | None] = {}
        self._worlds: OrderedDict[tuple[bytes, str], World] = OrderedDict()
        self._coverage = Coverage()
        self._judged: dict[object, tuple[Suspect, ...]] = {}
        if _config(guest.setup(reference, paths), reference) is None:  # a guest that cannot be run at all is refused here
            raise UserError(f"there is no such firmware: {reference}")
        self.reference = self._usual(reference)

    def begin(self) -> None:
        """Let every block be new again."""
        self._coverage.forget()

    def key(self, case: Case) -> tuple[bytes, str]:
        """Return what is the same for cases of one world."""
        place = self._place(case)
        return (b"", "") if place is None else place.key

    def run(self, case: Case) -> Execution | None:
        """Run a case; None where there is no such firmware."""
        place = self._place(case)
        config = None if place is None else _config(place.setup, case)
        return None if place is None or config is None else self._world(place).run(place.plain, config, case)

    def _usual(self, reference: Case) -> Trace:
        trace = self.observe(reference)
        return _aborted(reference) if trace is None else trace

    def observe(self, case: Case) -> Trace | None:
        """Return the trace of a case that can be run, None where the engine aborts."""
        place = self._place(case)
        config = None if place is None else _config(place.setup, case)
        assert place is not None
        assert config is not None
        return self._world(place).observe(place.plain, config, case)

    def is_legal(self, case: Case, execution: Execution) -> bool:
        """Say whether a guest that keeps to the standards might have met the firmware of this run."""
        place = self._place(case)
        return place is not None and place.is_correct and is_allowed(case) and not execution.harmful

    def suspects(self, case: Case, execution: Execution) -> tuple[Suspect, ...]:
        """Return what is wrong with a run of a case."""
        place = self._place(case)
        assert place is not None
        may_lack = place.setup.config.offered < PSCI_0_2
        if execution.trace is not None:
            return tuple(suspects(execution.trace, self.reference, may_lack=may_lack))
        if self._forks:
            return (Suspect(CRASH, "", "", "", execution.sentence),)
        # Runs that cannot be told apart are judged once: who is to blame takes a second run, with everything looked at.
        looks = execution.looks, execution.console, execution.code, execution.sentence, execution.cpus_up, place.key, may_lack
        judged = self._judged.get(looks)
        if judged is None:
            if len(self._judged) >= _MOST_JUDGED:
                self._judged.clear()
            trace = self.observe(case)
            assert trace is not None
            judged = self._judged[looks] = tuple(suspects(trace, self.reference, may_lack=may_lack))
        return judged

    def _place(self, case: Case) -> _Place | None:
        about = Case(case.host, case.psci, case.conduit, case.compatible)
        if about not in self._places:
            self._places[about] = self._found(about)
        return self._places[about]

    def _found(self, about: Case) -> _Place | None:
        try:
            setup = self._guest.setup(about, self._paths)
        except UserError:
            return None
        return _Place(setup, Firmware(setup.config), (setup.device_tree(None), setup.method), is_correct(setup))

    def _world(self, place: _Place) -> World:
        world = self._worlds.get(place.key)
        if world is None:
            if len(self._worlds) >= (_MOST_WORLDS_OF_A_KERNEL if self._is_kernel else _MOST_WORLDS):
                self._worlds.popitem(last=False)
                gc.collect()  # a machine is a cycle that its RAM hangs on
            world = self._worlds[place.key] = World(place.setup, self._coverage, forks=self._forks, observes=self._is_kernel)
        self._worlds.move_to_end(place.key)
        return world


def _aborted(case: Case) -> Trace:
    """Return a run of which nothing is known but that the engine aborted: whatever has an end of its own is better."""
    return Trace(firmware=str(case), tree=Tree(), calls=(), cpus_up=0, console="", code=ABORTED.code, sentence=ABORTED.sentence)


def _config(setup: Setup, case: Case) -> Config | None:
    try:
        config = with_faults(setup.config, tuple(map(fault_of, case.faults))) if case.faults else setup.config
        check_faults(config)
        for text in (*case.changes, *case.moves):
            parse_call_point(config, parse_at(text)[1])
    except UserError:
        return None
    return config
