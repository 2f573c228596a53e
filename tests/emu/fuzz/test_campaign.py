"""Rounds of jobs: what a campaign finds depends on guest, hosts and seed, and on nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from emu.fuzz.campaign import NEWEST, REFERENCE, Campaign, News, Progress
from emu.fuzz.case import Case
from emu.fuzz.guest import digest_of
from emu.fuzz.job import Job, Ran, Result, _worker
from emu.fuzz.mutate import Choice
from emu.fuzz.workers import Workers, processes
from emu.outcome import ExitCode
from guests import elf_path
from guests.gallery import gallery
from tests.emu.fuzz.fuzzing import Subject, inline
from tests.emu.programs import PSCI_VERSION, Bench, Label, Part, call, cbnz, exits, mov, movz, off, prints, subs, tbnz, tbz

CHOICE: Final = Choice((("spec", ("0.2", "1.1", "1.3")), ("kvm-6.12", ("0.1", "1.0")), ("xen", ("1.1",)), ("u-boot", ("1.0",))))
RUNS: Final = 700
BATCH: Final = 40


@pytest.fixture(autouse=True)
def _fresh_worker() -> Iterator[None]:
    _worker.cache_clear()
    yield
    _worker.cache_clear()


@pytest.fixture(scope="module")
def subject() -> Subject:
    return Subject(gallery()["G01"].elf, "-smp 2 -m 16M")


class Imagined(Workers):
    """Workers that run nothing: each case calls CPU_ON twice, ends well, and the first of a job comes to a new block."""

    def __init__(self) -> None:
        super().__init__(inline(), {})
        self.jobs: list[Job] = []

    def results(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Result]]:
        for job in jobs:
            self.jobs.append(job)
            cases = job.cases or tuple(parent.case for parent in job.parents[:1])
            ran = tuple(Ran(case, None, "", (("CPU_ON", 2),), (len(self.jobs),), 0, 1, 1000) for case in cases)
            yield job, Result(len(job.cases) + job.runs, ran, ())


def files(subject: Subject) -> dict[str, bytes]:
    return {digest_of(subject.content): subject.content}


def campaign(subject: Subject, workers: Workers | None = None, **changes: Any) -> Campaign:
    settings = {"runs": RUNS, "batch": BATCH, **changes}
    return Campaign(subject.guest, settings.pop("choice", CHOICE), workers or Workers(inline(), files(subject)), **settings)


def finished(subject: Subject, workers: Workers | None = None, **changes: Any) -> tuple[Progress, list[News]]:
    one = campaign(subject, workers, **changes)
    news = list(one.run())
    return one.progress, news


def left(progress: Progress) -> tuple[object, ...]:
    """Return all that a campaign leaves, but which blocks a worker told of that were no news."""
    corpus = [(entry.ran._replace(blocks=()), entry.new) for entry in progress.corpus]
    return progress.reference, progress.executions, progress.blocks, corpus, list(progress.found.items())


@pytest.fixture(scope="module")
def finish(subject: Subject) -> tuple[Progress, list[News]]:
    _worker.cache_clear()
    progress, news = finished(subject)
    assert len(progress.corpus) > 3
    assert len(progress.found) > 3
    return progress, news


@pytest.fixture(scope="module")
def expected(finish: tuple[Progress, list[News]]) -> tuple[object, ...]:
    return left(finish[0])


@pytest.mark.parametrize("width", [2, 5])
def test_corpus_and_findings_are_the_same_however_many_are_run_at_once(subject: Subject, expected: tuple[object, ...], width: int) -> None:
    assert left(finished(subject, Workers(inline(width), files(subject)))[0]) == expected


def test_corpus_and_findings_are_the_same_in_a_pool_of_two(subject: Subject, expected: tuple[object, ...]) -> None:
    workers = Workers(processes(2), files(subject))

    progress, _ = finished(subject, workers)
    workers.close()

    assert left(progress) == expected


def test_another_seed_runs_other_cases(subject: Subject) -> None:
    watched = [Imagined() for _ in range(3)]
    for workers, seed in zip(watched, (0, 0, 1), strict=True):
        finished(subject, workers, seed=seed)

    drawn = [[job.seed for job in workers.jobs if job.parents] for workers in watched]

    assert drawn[0] == drawn[1]
    assert set(drawn[0]).isdisjoint(drawn[2])


@pytest.mark.parametrize("runs", [1, BATCH, 3 * BATCH + 1, RUNS])
def test_so_many_cases_are_run_as_were_asked_for_beside_the_references(subject: Subject, runs: int) -> None:
    workers = Imagined()

    finished(subject, workers, runs=runs)

    first = next(at for at, job in enumerate(workers.jobs) if len(job.cases) > 1 or (runs == 1 and at == 2))
    assert [job.cases for job in workers.jobs[:first]] == [(REFERENCE,), (NEWEST,)]
    assert sum(len(job.cases) + job.runs for job in workers.jobs[first:]) == runs
    assert all(len(job.cases) + job.runs <= BATCH for job in workers.jobs)


def test_first_is_what_is_plain_and_the_seeds_then_each_single_thing_then_what_is_drawn(subject: Subject) -> None:
    workers = Imagined()
    seed = REFERENCE._replace(faults=("CPU_ON: drop", "PSCI_VERSION: x0=0x5"))

    finished(subject, workers, seeds=[seed])

    cases = [case for job in workers.jobs[2:] for case in job.cases]
    assert cases[:8] == [
        Case("spec", "0.2"),
        Case("spec", "1.1"),
        Case("spec", "1.3"),
        Case("kvm-6.12", "0.1"),
        Case("kvm-6.12", "1.0"),
        Case("xen", "1.1"),
        Case("u-boot", "1.0"),
        seed,
    ]
    assert [(case.host, case.psci) for case in cases[8:]] == sorted((case.host, case.psci) for case in cases[8:])
    kinds = [bool(job.parents) for job in workers.jobs]
    assert kinds == sorted(kinds)
    assert kinds[-1]


@pytest.mark.parametrize("runs", [30, RUNS - 90])
def test_a_longer_run_begins_as_the_shorter(subject: Subject, finish: tuple[Progress, list[News]], runs: int) -> None:
    short, long = finished(subject, runs=runs)[0], finish[0]

    assert [entry.ran.case for entry in long.corpus][: len(short.corpus)] == [entry.ran.case for entry in short.corpus]
    assert list(long.found.values())[: len(short.found)] == list(short.found.values())


def test_news_add_up_to_the_findings_and_the_corpus(
    finish: tuple[Progress, list[News]],
) -> None:
    progress, news = finish

    assert [found for each in news for found in each.found] == list(progress.found.values())
    assert [entry for each in news for entry in each.entries] == progress.corpus


def test_no_cause_is_told_twice_nor_of_broken_firmware_once_correct_firmware_showed_it(
    finish: tuple[Progress, list[News]],
) -> None:
    _, news = finish

    told: set[tuple[str, str, bool]] = set()
    for found in (found for each in news for found in each.found):
        assert found.key not in told
        assert (*found.key[:2], True) not in told
        told.add(found.key)


def test_a_campaign_ends_when_it_is_over_and_is_asked_before_each_job(subject: Subject) -> None:
    asked = 0

    def is_over() -> bool:
        nonlocal asked
        asked += 1
        return asked > 3

    workers = Imagined()
    finished(subject, workers, runs=None, is_over=is_over)

    assert len(workers.jobs) == 2 + 3


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def small(bench: Bench, *parts: Part, max_insns: int = 20_000_000) -> Subject:
    subject = Subject(bench.file(*parts), "-smp 1 -m 16M")
    subject.guest = subject.guest._replace(max_insns=max_insns, max_calls=20_000)
    return subject


def test_a_guest_that_makes_no_call_leaves_nothing_and_comes_to_an_end(bench: Bench) -> None:
    progress, _ = finished(small(bench, prints("hello"), exits(0)), runs=None)

    assert (progress.corpus, progress.blocks, progress.found) == ([], set(), {})


def test_a_guest_that_fails_without_a_call_has_one_bug(bench: Bench) -> None:
    progress, _ = finished(small(bench, exits(3)), runs=None)

    assert [(found.suspect.oracle, found.is_legal) for found in progress.found.values()] == [("result", True)]


WANTS_1_0: Final[list[Part]] = [call(PSCI_VERSION), tbnz(0, 16, "go"), exits(1), Label("go")]


def test_where_the_guest_is_not_right_on_0_2_the_reference_is_the_first_on_which_it_is(bench: Bench) -> None:
    progress, _ = finished(small(bench, WANTS_1_0, off()))

    assert progress.reference == Case("spec", "1.1")
    # That it is not right on 0.2 is a bug: that is correct firmware too.
    assert ("result", True) in {(found.suspect.oracle, found.is_legal) for found in progress.found.values()}


def test_a_guest_that_is_soon_done_where_it_is_wrong_has_its_time_where_it_is_right(bench: Bench) -> None:
    """It is right where it takes more than the least that a run may take."""
    long: list[Part] = [mov(2, 1_500_000), Label("on"), subs(2, 2, 1), cbnz(2, "on")]

    progress, _ = finished(small(bench, WANTS_1_0, long, off()), runs=20)

    assert progress.reference == Case("spec", "1.1")


def test_a_run_that_takes_twenty_times_what_the_reference_s_takes_hangs(bench: Bench) -> None:
    spins: list[Part] = [movz(2, 0), Label("on"), subs(2, 2, 1), cbnz(2, "on")]
    subject = small(bench, call(PSCI_VERSION), tbz(0, 31, "done"), spins, Label("done"), off())

    progress, _ = finished(subject, runs=60)

    hangs = [found for found in progress.found.values() if found.suspect.oracle == "hang"]
    assert {(found.code, found.suspect.function) for found in hangs} == {(ExitCode.NO_PROGRESS, "PSCI_VERSION")}
    assert "--max-insns 2000000" in hangs[0].sentence


def test_a_guest_that_is_right_nowhere_is_held_against_the_best_there_is_and_its_bug_is_told(bench: Bench) -> None:
    progress, _ = finished(small(bench, call(PSCI_VERSION), exits(1)))

    assert progress.reference == REFERENCE
    found = next(iter(progress.found.values()))
    assert (found.case, found.is_legal, found.suspect.detail) == (REFERENCE, True, "the guest ended with exit code 1, as on the reference")


def test_beside_the_reference_on_host_spec_all_is_on_hosts_that_were_chosen(bench: Bench) -> None:
    chosen = Choice((("qemu-6", ("0.2",)), ("xen", ("1.1",))))
    workers = Imagined()

    progress, _ = finished(small(bench, off()), workers, choice=chosen, runs=400)

    assert progress.reference == REFERENCE
    firmware = {(case.host, case.psci) for job in workers.jobs for case in job.cases}
    assert firmware == {(REFERENCE.host, REFERENCE.psci), ("qemu-6", "0.2"), ("xen", "1.1")}
    assert any(job.runs for job in workers.jobs)


def test_a_guest_is_fuzzed_whose_reference_is_on_no_chosen_host(bench: Bench) -> None:
    progress, _ = finished(small(bench, call(PSCI_VERSION), off()), choice=Choice((("xen", ("1.1",)),)), runs=400)

    assert progress.reference == REFERENCE
    assert progress.executions >= 400 / 2


def test_rendezvous_loses_vcpus_on_broken_firmware_alone() -> None:
    progress, _ = finished(Subject(elf_path("rendezvous"), "-smp 4 -m 16M"), runs=300)

    assert {found.is_legal for found in progress.found.values()} == {False}
    assert "lost-vcpu" in {found.suspect.oracle for found in progress.found.values()}
