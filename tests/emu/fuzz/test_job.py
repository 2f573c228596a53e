"""A job is plain data in and plain data out: the same out for the same in, in whatever process and after whatever else."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from emu.fuzz.campaign import REFERENCE
from emu.fuzz.case import Case
from emu.fuzz.guest import digest_of
from emu.fuzz.job import Job, Lacks, Parent, Result, _worker, work
from emu.fuzz.mutate import Choice
from guests import elf_path
from tests.emu.fuzz.fuzzing import Subject
from tests.emu.programs import AFFINITY_INFO, PSCI_VERSION, UDF, Bench, Label, Part, call, exits, mrs, off, tbnz
from tests.fuzzed import ANY_HOST

FAULTY = REFERENCE._replace(faults=("PSCI_VERSION: x0=NOT_SUPPORTED",))


@pytest.fixture(autouse=True)
def _fresh_worker() -> Iterator[None]:
    _worker.cache_clear()
    yield
    _worker.cache_clear()


@contextmanager
def fresh_process() -> Iterator[Executor]:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


def rendezvous(**changes: object) -> Job:
    """Return a job that has the guest's file along."""
    subject = Subject(elf_path("rendezvous"), "-smp 4 -m 16M")
    job = Job(subject.guest, REFERENCE, ANY_HOST, files=(subject.content,))
    return job._replace(**changes)  # type: ignore[arg-type]


def mutating(seed: int, runs: int = 30) -> Job:
    profile = (("CPU_ON", 3), ("SYSTEM_OFF", 1))
    return rendezvous(parents=(Parent(4, REFERENCE, profile),), runs=runs, seed=seed)


def done(job: Job) -> Result:
    result = work(job)
    assert isinstance(result, Result)
    return result


def test_the_same_job_gives_the_same_in_two_fresh_processes_and_in_this_one() -> None:
    job = mutating(seed=5)

    results = []
    for _ in range(2):
        with fresh_process() as pool:
            results.append(pool.submit(work, job).result())

    assert results[0] == results[1] == done(job)
    assert isinstance(results[0], Result)
    assert results[0].ran
    assert results[0].found


def test_a_job_finds_the_same_after_others() -> None:
    job = mutating(seed=5)
    alone = done(job)
    _worker.cache_clear()
    for seed in range(1, 5):
        done(mutating(seed=seed))

    assert done(job) == alone


def test_a_job_that_is_done_again_gives_the_same() -> None:
    job = mutating(seed=2)

    assert done(job) == done(job)


def test_carefully_done_a_job_finds_the_same() -> None:
    job = mutating(seed=5, runs=15)

    quick, careful = done(job), done(job._replace(careful=True))

    assert careful.executions == quick.executions
    assert careful.found == quick.found


def test_a_worker_says_which_file_it_lacks_and_keeps_what_it_was_sent() -> None:
    job = rendezvous(cases=(REFERENCE,))

    lacks = work(job._replace(files=()))
    sent = work(job)
    again = work(job._replace(files=()))

    assert lacks == Lacks((digest_of(job.files[0]),))
    assert isinstance(sent, Result)
    assert isinstance(again, Result)


def test_a_worker_that_is_given_another_guest_runs_that_and_then_the_first_again(tmp_path: Path) -> None:
    job = rendezvous(cases=(REFERENCE,))
    bench = Bench(tmp_path)
    other = Subject(bench.file(call(PSCI_VERSION), exits(7)))
    alone = done(job)

    one = done(Job(other.guest, REFERENCE, ANY_HOST, cases=(REFERENCE,), files=(other.content,)))

    assert [ran.code for ran in one.ran] == [7]
    assert done(job._replace()) == alone


def test_what_is_run_as_it_is_is_told_whether_new_or_not_and_what_cannot_be_is_not() -> None:
    cases = (REFERENCE, Case("spec", "1.3"), Case("no-such-host", "1.0"), REFERENCE)

    result = done(rendezvous(cases=cases))

    assert [ran.case for ran in result.ran] == [REFERENCE, Case("spec", "1.3"), REFERENCE]
    assert [(ran.parent, ran.how, ran.code, ran.cpus_up) for ran in result.ran] == 3 * [(None, "", 0, 4)]
    assert result.executions == 3
    assert result.found == ()


# ---- findings


def guest_that_trusts_the_version(tmp_path: Path) -> Subject:
    """Return a guest that crashes where PSCI_VERSION answers an error."""
    program: list[Part] = [call(PSCI_VERSION), tbnz(0, 31, "fell"), call(AFFINITY_INFO), off(), Label("fell"), UDF]
    return Subject(Bench(tmp_path).file(*program), "-smp 1 -m 16M")


def judged(subject: Subject, case: Case, **changes: object) -> Result:
    job = Job(subject.guest, REFERENCE, ANY_HOST, cases=(case,), files=(subject.content,))
    return done(job._replace(**changes))  # type: ignore[arg-type]


def test_a_finding_has_the_fewest_things_changed_that_show_it(tmp_path: Path) -> None:
    case = Case(
        "kvm-6.12",
        "1.0",
        conduit="hvc",
        faults=("AFFINITY_INFO: x0=DENIED", "PSCI_VERSION: x0=NOT_SUPPORTED", "features=no"),
        changes=("0.2@call:AFFINITY_INFO#1",),
        moves=("kvm-6.15@call:PSCI_VERSION#1",),
        seed=77,
        call_ns=100,
    )

    result = judged(guest_that_trusts_the_version(tmp_path), case)

    (found,) = [each for each in result.found if each.suspect.oracle == "crash"]
    assert found.case == FAULTY
    assert not found.is_legal
    assert (found.suspect.function, found.suspect.answer) == ("PSCI_VERSION", "error")
    assert len(found.calls) == 1
    assert result.executions > 1


def test_what_is_known_is_not_found_again_and_broken_firmware_need_not_show_what_correct_firmware_showed(tmp_path: Path) -> None:
    subject = guest_that_trusts_the_version(tmp_path)
    (found,) = judged(subject, FAULTY).found

    for known in (found.key, (*found.key[:2], True)):
        assert judged(subject, FAULTY, known=frozenset((known,))).found == ()
    assert judged(subject, FAULTY, known=frozenset((("crash", "elsewhere", False),))).found == (found,)


def test_what_correct_firmware_shows_is_not_made_simpler_into_what_broken_firmware_shows(tmp_path: Path) -> None:
    """The reference may itself be incorrect, where the guest is nowhere right."""
    subject = Subject(Bench(tmp_path).file(call(PSCI_VERSION), UDF), "-smp 1 -m 16M")
    incorrect = Case("jailhouse", "1.1")

    result = judged(subject, Case("xen", "1.1", conduit="smc", seed=3), reference=incorrect)

    found = [(each.case, each.is_legal) for each in result.found if each.suspect.oracle == "crash"]
    assert found == [(Case("xen", "1.1"), True)]


def test_two_runs_that_end_differently_after_the_same_calls_are_told_apart(tmp_path: Path) -> None:
    # It is later than some instant after a call that takes long, and the guest falls elsewhere.
    program: list[Part] = [call(PSCI_VERSION), mrs(1, "CNTVCT_EL0"), tbnz(1, 12, "later"), UDF, Label("later"), UDF]
    subject = Subject(Bench(tmp_path).file(*program), "-smp 1 -m 16M")
    cases = (REFERENCE, REFERENCE._replace(call_ns=100_000))

    for order in (cases, cases[::-1]):
        worlds = subject.worlds()
        runs = [(case, worlds.run(case)) for case in order]
        assert len({run.sentence for _, run in runs if run is not None}) == 2
        for case, run in runs:
            assert run is not None
            (suspect,) = worlds.suspects(case, run)
            assert suspect.detail.startswith(run.sentence)


def test_a_job_without_parents_and_cases_is_nothing() -> None:
    assert done(rendezvous(choice=Choice(()))) == Result(0, (), ())
