"""A job: plain data in, plain data out, the same out for the same in, on whatever computer and after whatever other jobs.

1. A worker keeps what it has booted, translated and judged between jobs; that makes it faster and changes nothing.
2. What a worker has not got, a file of the guest's, it says (`Lacks`), and is sent the job again with it.
"""

from __future__ import annotations

import gc
import hashlib
import threading
from functools import cache
from random import Random
from typing import Final, NamedTuple

import msgspec

from emu.fuzz.case import Case
from emu.fuzz.guest import Guest, Store
from emu.fuzz.judge import Suspect
from emu.fuzz.mutate import Choice, Profile, mutated
from emu.fuzz.world import Execution
from emu.fuzz.worlds import Worlds
from emu.lint.trace import Trace


class Parent(NamedTuple):
    """A case of the corpus: its number there, and what it called."""

    number: int
    case: Case
    profile: Profile


class Job(NamedTuple):
    """What to run.

    reference  the case that all others are held against
    cases      what is run first, as it is
    parents    what is mutated after that, so many times (runs), by seed
    known      what has been found: cause, and whether the firmware was legal
    careful    fork for each run: a worker has died of this job
    files      the content of the guest's files, where the worker had asked for it
    """

    guest: Guest
    reference: Case
    choice: Choice
    cases: tuple[Case, ...] = ()
    parents: tuple[Parent, ...] = ()
    runs: int = 0
    seed: int = 0
    known: frozenset[tuple[str, str, bool]] = frozenset()
    careful: bool = False
    files: tuple[bytes, ...] = ()


class Ran(NamedTuple):
    """A run that did something new: blocks that the job had not come to, or it is one of `cases`.

    parent  the number of the case it was made from, None for one of `cases`
    how     what was changed last
    """

    case: Case
    parent: int | None
    how: str
    profile: Profile
    blocks: tuple[int, ...]
    code: int
    cpus_up: int
    instructions: int


class Found(NamedTuple):
    """What a run was found guilty of, with the fewest things changed that show it.

    calls   the last ones up to the one to blame, in words
    digest  SHA-256 of the whole run, in hex: calls with their registers and replies, console, end
    """

    case: Case
    suspect: Suspect
    is_legal: bool
    code: int
    sentence: str
    cpus_up: int
    calls: tuple[str, ...]
    digest: str

    @property
    def key(self) -> tuple[str, str, bool]:
        return *self.suspect.cause, self.is_legal


class Result(NamedTuple):
    """What came of a job: how many runs there were, those for minimising included; those that did something new; findings."""

    executions: int
    ran: tuple[Ran, ...]
    found: tuple[Found, ...]


class Lacks(NamedTuple):
    """The digests of files that the worker has not got."""

    digests: tuple[str, ...]


def work(job: Job) -> Result | Lacks:
    """Do a job; raise UserError for a guest that cannot be run at all."""
    worker = _worker()
    with worker.lock:  # a worker's threads would share its machines
        return worker.work(job)


class _Worker:
    """What a process keeps between jobs."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._store = Store()
        self._about: object = None
        self._worlds: Worlds | None = None

    def work(self, job: Job) -> Result | Lacks:
        for content in job.files:
            self._store.add(content)
        lacking = self._store.lacks(job.guest)
        if lacking:
            return Lacks(tuple(lacking))
        about = job.guest, job.reference, job.careful
        if self._worlds is None or self._about != about:
            self._worlds = None
            gc.collect()  # a machine is a cycle that its RAM hangs on
            self._worlds, self._about = Worlds(job.guest, job.reference, self._store.paths, careful=job.careful), about
        self._worlds.begin()
        return _Doing(job, self._worlds).result()


@cache
def _worker() -> _Worker:
    return _Worker()


class _Doing:
    """A job while it is done."""

    def __init__(self, job: Job, worlds: Worlds) -> None:
        self._job = job
        self._worlds = worlds
        self._known = set(job.known)
        self._asked = frozenset(job.cases)
        self._blocks: set[int] = set()
        self._executions = 0
        self._ran: list[Ran] = []
        self._found: list[Found] = []

    def result(self) -> Result:
        job = self._job
        for case in job.cases:
            self._try(case, None, "")
        draw, planned = Random(job.seed), []
        for _ in range(job.runs):
            parent = draw.choice(job.parents)
            planned.append((*mutated(parent.case, parent.profile, job.choice, draw), parent.number))
        for case, how, number in sorted(planned, key=lambda plan: self._worlds.key(plan[0])):  # so that caches hold one world at a time
            self._try(case, number, how)
        return Result(self._executions, tuple(self._ran), tuple(self._found))

    def _try(self, case: Case, parent: int | None, how: str) -> None:
        execution = self._run(case, parent, how)
        if execution is None:
            return
        is_legal = self._worlds.is_legal(case, execution)
        for suspect in self._worlds.suspects(case, execution):
            key = (*suspect.cause, is_legal)
            if not self._is_known(key):
                self._keep(*self._minimal(case, execution, suspect, parent))
                self._known.add(key)  # that it comes down to something else is known now

    def _run(self, case: Case, parent: int | None, how: str) -> Execution | None:
        execution = self._worlds.run(case)
        if execution is not None:
            self._executions += 1
            new = tuple(block for block in dict.fromkeys(execution.blocks) if block not in self._blocks)
            self._blocks.update(new)
            if new or case in self._asked:
                self._ran.append(_ran(case, parent, how, execution, new))
        return execution

    def _is_known(self, key: tuple[str, str, bool]) -> bool:
        # What correct firmware shows need not be shown by broken firmware too.
        return key in self._known or (*key[:2], True) in self._known

    def _minimal(self, case: Case, execution: Execution, suspect: Suspect, parent: int | None) -> tuple[Case, Execution, Suspect]:
        # What broken firmware shows too is a bug if correct firmware shows it, however simple the broken one is.
        again, is_legal = True, self._worlds.is_legal(case, execution)
        while again:
            again = False
            for simpler in case.simpler(self._job.reference):
                tried = self._run(simpler, parent, "simpler")
                if tried is None or (is_legal and not self._worlds.is_legal(simpler, tried)):
                    continue
                found = [each for each in self._worlds.suspects(simpler, tried) if each.oracle == suspect.oracle]
                if found:
                    case, execution, suspect, again = simpler, tried, found[0], True
                    is_legal = self._worlds.is_legal(case, execution)
                    break
        return case, execution, suspect

    def _keep(self, case: Case, execution: Execution, suspect: Suspect) -> None:
        is_legal = self._worlds.is_legal(case, execution)
        key = (*suspect.cause, is_legal)
        if self._is_known(key):
            return
        self._known.add(key)
        trace = self._worlds.observe(case)
        self._found.append(
            Found(
                case=case,
                suspect=suspect,
                is_legal=is_legal,
                code=execution.code,
                sentence=execution.sentence,
                cpus_up=execution.cpus_up,
                calls=() if trace is None else _led_to(trace, suspect.site),
                digest=digest_of_run(trace),
            )
        )


def digest_of_run(trace: Trace | None) -> str:
    """Return the SHA-256 of a run, in hex; of one at which the engine aborted there is nothing."""
    return hashlib.sha256(msgspec.json.encode(trace)).hexdigest()


def _led_to(trace: Trace, site: str) -> tuple[str, ...]:
    """Spell the calls up to the last one from a call site, or to the end where there is none."""
    last = next((at for at in reversed(range(len(trace.calls))) if str(trace.calls[at].site) == site), len(trace.calls) - 1)
    shown = trace.calls[max(0, last + 1 - _CALLS_SHOWN) : last + 1]
    return tuple(f"cpu{call.vcpu} {call.conduit} {call.site}: {call.words}" for call in shown)


_CALLS_SHOWN: Final = 5


def _ran(case: Case, parent: int | None, how: str, execution: Execution, new: tuple[int, ...]) -> Ran:
    return Ran(case, parent, how, execution.profile, new, execution.code, execution.cpus_up, execution.instructions)
