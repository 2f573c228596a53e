"""Jobs over executors: in order, the same results whoever does them, and done although workers die."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, Final

import pytest

from emu.fuzz.campaign import REFERENCE
from emu.fuzz.guest import digest_of
from emu.fuzz.job import Job, Parent, Result, _worker
from emu.fuzz.judge import CRASH, Suspect
from emu.fuzz.workers import Source, Workers, processes
from emu.outcome import ExitCode
from firmware.errors import UserError
from guests import elf_path
from tests.emu.fuzz.fuzzing import Subject, inline
from tests.emu.programs import PSCI_VERSION, Bench, Label, call, off, prints, tbnz
from tests.fuzzed import ANY_HOST, Here

# At which the engine aborts the process under -cpu max (tests/emu/test_machine_fuzz.py).
ABORTS: Final = 0x4ED6_2CD9
PROFILE: Final = (("CPU_ON", 3), ("SYSTEM_OFF", 1))


@pytest.fixture(autouse=True)
def _fresh_worker() -> Iterator[None]:
    _worker.cache_clear()
    yield
    _worker.cache_clear()


@pytest.fixture(scope="module")
def subject() -> Subject:
    return Subject(elf_path("rendezvous"), "-smp 4 -m 16M")


def jobs(subject: Subject, count: int = 6, runs: int = 4) -> list[Job]:
    parents = (Parent(0, REFERENCE, PROFILE),)
    return [Job(subject.guest, REFERENCE, ANY_HOST, parents=parents, runs=runs, seed=number) for number in range(1, count + 1)]


def files(subject: Subject) -> dict[str, bytes]:
    return {digest_of(subject.content): subject.content}


def told(done: list[tuple[Job, Result]]) -> list[object]:
    """Return what does not depend on the worker: findings, and blocks to somebody who takes results in order."""
    known: set[int] = set()
    seen: list[object] = []
    for job, result in done:
        ran = [(each.case, [block for block in each.blocks if block not in known]) for each in result.ran]
        known.update(block for each in result.ran for block in each.blocks)
        seen.append((job, result.executions, result.found, [(case, blocks) for case, blocks in ran if blocks]))
    return seen


@pytest.fixture(scope="module")
def expected(subject: Subject) -> list[object]:
    return told(list(Workers(inline(), files(subject)).results(jobs(subject))))


@pytest.mark.parametrize("width", [1, 2, 5])
def test_results_come_in_the_jobs_order_and_are_the_same_whatever_the_width(subject: Subject, expected: list[object], width: int) -> None:
    assert told(list(Workers(inline(width), files(subject)).results(jobs(subject)))) == expected


def test_results_come_in_the_jobs_order_whichever_is_done_first(subject: Subject, expected: list[object]) -> None:
    class Backwards(Here):
        """Do nothing before three wait, and then the last first."""

        def __init__(self) -> None:
            self._waiting: list[tuple[Future[Any], Any, Any]] = []

        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            del kwargs
            future: Future[Any] = Future()
            self._waiting.append((future, fn, args))
            if len(self._waiting) == 3:
                for each, do, what in reversed(self._waiting):
                    each.set_result(do(*what))
                self._waiting.clear()
            return future

    source = Source(Backwards, lambda executor: executor.shutdown(), 3)
    sent = [job._replace(files=(subject.content,)) for job in jobs(subject)]

    assert [each[1:] for each in told(list(Workers(source, {}).results(sent)))] == [each[1:] for each in expected]  # type: ignore[index]


def test_a_pool_of_two_gives_the_same(subject: Subject, expected: list[object]) -> None:
    workers = Workers(processes(2), files(subject))

    assert told(list(workers.results(jobs(subject)))) == expected

    workers.close()


def test_a_job_is_taken_when_there_is_room_for_it_and_not_before(subject: Subject) -> None:
    taken: list[int] = []

    def coming() -> Iterator[Job]:
        for job in jobs(subject, runs=0):
            taken.append(job.seed)
            yield job

    results = Workers(inline(2), files(subject)).results(coming())

    assert taken == []
    next(results)
    assert taken == [1, 2]
    next(results)
    assert taken == [1, 2, 3]


def test_a_worker_that_is_killed_in_the_middle_changes_nothing(subject: Subject, expected: list[object]) -> None:
    pools: list[ProcessPoolExecutor] = []

    def opened() -> Executor:
        pools.append(ProcessPoolExecutor(2))
        return pools[-1]

    workers = Workers(Source(opened, lambda executor: executor.shutdown(cancel_futures=True), 2), files(subject))
    done = []
    for each in workers.results(jobs(subject)):
        done.append(each)
        if len(pools) < 3:  # one of each of the first two pools
            os.kill(next(iter(pools[-1]._processes)), signal.SIGKILL)
    workers.close()

    assert told(done) == expected
    assert len(pools) >= 3


class Dying(Here):
    """An executor that breaks at its nth job, at once or when asked for the result."""

    def __init__(self, at: int, *, at_once: bool) -> None:
        self._left = at
        self._at_once = at_once

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        self._left -= 1
        if self._left >= 0:
            return super().submit(fn, *args, **kwargs)
        if self._at_once:
            raise BrokenProcessPool("made up")
        future: Future[Any] = Future()
        future.set_exception(BrokenProcessPool("made up"))
        return future


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("at", [2, 4])
def test_an_executor_that_breaks_is_opened_again_and_no_job_is_lost(
    subject: Subject, expected: list[object], at: int, at_once: bool
) -> None:
    ended: list[Executor] = []
    source = Source(lambda: Dying(at, at_once=at_once), ended.append, 3, (BrokenExecutor,))

    assert told(list(Workers(source, files(subject)).results(jobs(subject)))) == expected
    assert ended


def test_workers_that_die_of_everything_are_said_to(subject: Subject) -> None:
    workers = Workers(Source(lambda: Dying(0, at_once=True), lambda _executor: None, 2), files(subject))

    with pytest.raises(UserError) as refusal:
        list(workers.results(jobs(subject)))

    assert str(refusal.value) == "the workers die, whatever they are given to do"


def test_a_job_that_kills_its_worker_every_time_is_done_with_a_fork_for_each_run(tmp_path: Path) -> None:
    program = Bench(tmp_path).file(call(PSCI_VERSION), tbnz(0, 31, "fell"), prints("fine"), off(), Label("fell"), ABORTS)
    guest = Subject(program, "-smp 1 -m 16M -cpu max")
    broken = REFERENCE._replace(faults=("PSCI_VERSION: x0=NOT_SUPPORTED",))
    first = Job(guest.guest, REFERENCE, ANY_HOST, cases=(REFERENCE,))
    deadly = first._replace(cases=(REFERENCE, broken, REFERENCE))
    workers = Workers(processes(2), files(guest))

    (_, before), (done, result), (_, after) = workers.results([first, deadly, first._replace()])
    workers.close()

    assert done == deadly
    assert [(ran.case, ran.code) for ran in result.ran if ran.how != "simpler"] == [
        (REFERENCE, 0),
        (broken, ExitCode.CRASH),
        (REFERENCE, 0),
    ]
    (found,) = result.found
    assert (found.case, found.suspect.oracle, found.calls) == (broken, CRASH, ())
    assert found.suspect == Suspect(CRASH, "", "", "", found.sentence)
    assert [ran.code for each in (before, after) for ran in each.ran] == [0, 0]


def test_what_is_wrong_with_a_guest_is_said_once_in_a_sentence(tmp_path: Path) -> None:
    elf = tmp_path / "broken.elf"
    elf.write_bytes(b"\x7fELF" + bytes(60))
    subject = Subject(elf)

    with pytest.raises(UserError, match="ELF"):
        list(Workers(inline(), files(subject)).results(jobs(subject)))
