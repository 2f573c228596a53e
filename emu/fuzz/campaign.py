"""Rounds of jobs: what is plain, what is one fault away, and then what comes of mutating the corpus.

1. A round's jobs depend on the rounds before it and on the seed, and on nothing else; their results are taken in the jobs' order. So the
   same seed gives the same corpus and findings over any number of workers, and a run that is longer begins as the shorter one.
2. The reference is PSCI 0.2 of host spec; where the guest is not right there, the plain firmware on which it fares best.
3. A run may take twenty times what the reference's takes, but no more than some seconds longer: what takes more hangs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final, NamedTuple

from emu.fuzz.case import Case
from emu.fuzz.guest import Guest
from emu.fuzz.job import Found, Job, Parent, Ran, Result
from emu.fuzz.mutate import Choice, Profile, single
from emu.fuzz.workers import Workers
from emu.outcome import WELL, ExitCode

REFERENCE: Final = Case("spec", "0.2")
NEWEST: Final = Case("spec", "1.3")
_JOBS_A_ROUND: Final = 8
_MOST_PARENTS: Final = 64
_AS_LONG_AS: Final = 20
_LEAST_INSNS: Final = 2_000_000
_MOST_MORE_INSNS: Final = 200_000_000  # a kernel's hangs take seconds each
_LEAST_CALLS: Final = 200


class Entry(NamedTuple):
    """A case of the corpus: the run that it is in it for, and how many blocks nobody had come to before."""

    ran: Ran
    new: int


class News(NamedTuple):
    """What a job added."""

    entries: tuple[Entry, ...]
    found: tuple[Found, ...]


@dataclass(slots=True)
class Progress:
    """How far a campaign has come."""

    reference: Case = REFERENCE
    executions: int = 0
    blocks: set[int] = field(default_factory=set)
    corpus: list[Entry] = field(default_factory=list)
    found: dict[tuple[str, str, bool], Found] = field(default_factory=dict)


class Campaign:
    """Fuzz one guest.

    seeds    cases to begin with, beside the plain ones
    batch    how many cases a job has
    runs     how many cases there are in all, None for no end
    is_over  asked before each job is begun
    """

    def __init__(
        self,
        guest: Guest,
        choice: Choice,
        workers: Workers,
        *,
        seed: int = 0,
        seeds: Sequence[Case] = (),
        batch: int = 256,
        runs: int | None = None,
        is_over: Callable[[], bool] = lambda: False,
    ) -> None:
        self._guest = guest
        self._choice = choice
        self._workers = workers
        self._seed = seed
        self._seeds = seeds
        self._batch = batch
        self._left = runs
        self._is_over = is_over
        self.progress = Progress()

    def run(self) -> Iterator[News]:
        """Go on until it is over; yield what each job adds, the first time what all did that it took to find the reference."""
        plain = [Case(host, version) for host, versions in self._choice.firmware for version in versions]
        newest = NEWEST if NEWEST in plain else plain[-1]  # spec's may not have been chosen
        profiles = self._begin(plain, newest)
        yield News(tuple(self.progress.corpus), ())
        yield from self._round(self._explicit([*plain, *self._seeds]))
        for base in dict.fromkeys((self.progress.reference, newest)):
            if base in profiles:
                yield from self._round(self._explicit([each.case for each in single(base, profiles[base], self._choice)]))
        number = 0
        while self.progress.corpus and not self._has_ended():
            yield from self._round(self._mutating(number))
            number += 1

    @property
    def guest(self) -> Guest:
        """The guest, with the limits that its runs have."""
        return self._guest

    def _has_ended(self) -> bool:
        return self._left == 0 or self._is_over()

    def _begin(self, plain: Sequence[Case], newest: Case) -> dict[Case, Profile]:
        """Find the reference, and how long a run may take; return what the guest calls there and on the newest firmware."""
        usual = self._run_plainly([REFERENCE])
        if any(ran.code in WELL for ran in usual):
            self._limit(usual)
        else:  # how long it takes to be wrong there says nothing about how long it takes to be right
            usual = self._run_plainly(plain) or usual
            best = min(usual, key=lambda ran: (ran.case.psci == "0.1", ran.code not in WELL, -ran.cpus_up))
            self.progress.reference = best.case
            self._limit([best])
        ran = usual + self._run_plainly([case for case in (self.progress.reference, newest) if case not in {each.case for each in usual}])
        return {each.case: each.profile for each in ran}

    def _run_plainly(self, cases: Sequence[Case]) -> list[Ran]:
        ran: list[Ran] = []
        for _, result in self._workers.results(self._jobs(cases, frozenset())):
            self._taken(result._replace(found=()))  # which are told once it is known what the reference is
            ran += result.ran
        return ran

    def _limit(self, usual: Sequence[Ran]) -> None:
        ended = [ran for ran in usual if ran.code not in (ExitCode.LIMIT, ExitCode.NO_PROGRESS)]
        if ended:
            usually = max(ran.instructions for ran in ended)
            insns = max(_LEAST_INSNS, min(_AS_LONG_AS * usually, usually + _MOST_MORE_INSNS))
            calls = max(_LEAST_CALLS, _AS_LONG_AS * max(sum(count for _, count in ran.profile) for ran in ended))
            self._guest = self._guest._replace(max_insns=min(insns, self._guest.max_insns), max_calls=min(calls, self._guest.max_calls))

    # ---- rounds

    def _round(self, jobs: Iterable[Job]) -> Iterator[News]:
        for _, result in self._workers.results(jobs):
            yield self._taken(result)

    def _explicit(self, cases: Sequence[Case]) -> Iterator[Job]:
        if self._left is not None:
            cases = cases[: self._left]
            self._left -= len(cases)
        for job in self._jobs(cases, frozenset(self.progress.found)):
            if self._is_over():
                return
            yield job

    def _jobs(self, cases: Iterable[Case], known: frozenset[tuple[str, str, bool]]) -> Iterator[Job]:
        # What stands together is alike: that it is booted once, a job is a stretch of it.
        ordered = list(cases)
        for start in range(0, len(ordered), self._batch):
            yield self._job(known, cases=tuple(ordered[start : start + self._batch]))

    def _mutating(self, number: int) -> Iterator[Job]:
        known, parents = frozenset(self.progress.found), self._parents(Random(f"{self._seed} {number}"))
        for position in range(_JOBS_A_ROUND):
            if self._has_ended():
                return
            runs = self._batch if self._left is None else min(self._batch, self._left)
            if self._left is not None:
                self._left -= runs
            seed = Random(f"{self._seed} {number} {position}").getrandbits(64)
            yield self._job(known, parents=parents, runs=runs, seed=seed)

    def _job(self, known: frozenset[tuple[str, str, bool]], **what: object) -> Job:
        job = Job(self._guest, self.progress.reference, self._choice, known=known)
        return job._replace(**what)  # type: ignore[arg-type]

    def _parents(self, draw: Random) -> tuple[Parent, ...]:
        """Return the newest of the corpus, and some of the others."""
        corpus = self.progress.corpus
        numbers = set(range(max(0, len(corpus) - _MOST_PARENTS // 4), len(corpus)))
        numbers |= set(draw.sample(range(len(corpus)), min(len(corpus), _MOST_PARENTS - len(numbers))))
        return tuple(Parent(number, corpus[number].ran.case, corpus[number].ran.profile) for number in sorted(numbers))

    def _taken(self, result: Result) -> News:
        progress = self.progress
        progress.executions += result.executions
        entries = []
        for ran in result.ran:
            new = [block for block in ran.blocks if block not in progress.blocks]
            if new or (not progress.corpus and ran.profile):
                progress.blocks.update(new)
                entries.append(Entry(ran, len(new)))
        progress.corpus += entries
        found = []
        for each in result.found:
            if each.key not in progress.found and (*each.suspect.cause, True) not in progress.found:
                progress.found[each.key] = each
                found.append(each)
        return News(tuple(entries), tuple(found))
