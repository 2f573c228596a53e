"""Verdicts: how a guest ends that panics, Oopses, hangs, idles for ever or never calls; and in which words."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest

from emu.limits import LAST_MOMENT_INSTRUCTIONS
from emu.machine import Machine
from emu.outcome import ExitCode, Outcome
from emu.setup import Choices
from emu.state import adopt, capture
from tests.emu.gicprograms import IRQ_CLEAR, IRQ_SET, gic_on, timer_after
from tests.emu.programs import (
    CPU_ON,
    PSCI_VERSION,
    SYSTEM_RESET,
    WFE,
    WFI,
    Bench,
    Label,
    Part,
    add,
    b,
    b_ne,
    call,
    call_at,
    mov,
    off,
    prints,
    subs,
    vectors_here,
)
from tests.emu.test_interrupts import TWO, VERSIONS, handles

PANIC: Final = "Kernel panic - not syncing: x\n"
END: Final = "---[ end Kernel panic - not syncing: x ]---\n"
OOPS: Final = "Internal error: Oops: 96000004 [#1] SMP\n"
BOTH: Final = "kernel panic: x; before it an Oops: Oops: 96000004"
PARKED: Final = "deadlock: cpu0 is ON and waits for nothing: it spins in a loop that only an interrupt could leave"
NO_PROGRESS: Final = "neither a call nor output in the second half of --max-insns 1000000"


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def spins(*body: Part) -> list[Part]:
    return [Label("spin"), add(19, 19, 1), *body, b("spin")]


def ends(bench: Bench, *program: Part, **changes: Any) -> Outcome:
    return bench.run(*program, **{"max_insns": 1_000_000, **changes})[0]


# ---- a kernel that announces its end


def test_a_panics_last_word_ends_the_run_soon_without_any_limit(bench: Bench) -> None:
    outcome, machine = bench.run(prints(PANIC + END), spins(), max_insns=None)

    assert outcome == (ExitCode.PANIC, "kernel panic: x")
    assert machine.instructions < LAST_MOMENT_INSTRUCTIONS + 50_000


def test_a_last_word_that_was_none_ends_nothing(bench: Bench) -> None:
    wait: list[Part] = [mov(20, LAST_MOMENT_INSTRUCTIONS // 4), Label("wait"), subs(20, 20, 1), b_ne("wait")]

    assert ends(bench, prints(END), wait, prints("y"), off(), max_insns=None) == (ExitCode.OK, "system off")


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (PANIC, "kernel panic: x"),
        (OOPS, "kernel Oops: Oops: 96000004"),
        (OOPS + PANIC, "kernel panic: x; before it an Oops: Oops: 96000004"),
    ],
    ids=["panic", "Oops", "both"],
)
@pytest.mark.parametrize(
    ("then", "changes", "how"),
    [
        (spins(), {}, f"no progress: {NO_PROGRESS}, and no call before"),
        (spins(call(PSCI_VERSION)), {}, "limit reached: --max-insns 1000000"),
        (
            [Label("park"), WFE, b("park")],
            {},
            "deadlock: cpu0 is ON and waits for nothing: it spins in a loop that only an interrupt could leave",
        ),
        (call(SYSTEM_RESET), {"no_reboot": True}, "system reset, and -no-reboot"),
    ],
    ids=["hangs", "calls", "parks", "resets"],
)
def test_what_was_announced_says_why_a_run_ended_without_success(
    bench: Bench, said: str, words: str, then: list[Part], changes: dict[str, Any], how: str
) -> None:
    assert ends(bench, prints(said), then, **changes) == (ExitCode.PANIC, f"{words}; then {how}")


def test_a_kernel_that_survives_its_oops_and_switches_off_ends_well(bench: Bench) -> None:
    assert ends(bench, prints(OOPS), off()) == (ExitCode.OK, "system off")


def test_a_kernel_that_panics_at_every_boot_ends_at_the_limit_with_its_panic(bench: Bench) -> None:
    outcome = ends(bench, prints(PANIC), call(SYSTEM_RESET))

    assert outcome == (ExitCode.PANIC, "kernel panic: x; then limit reached: --max-insns 1000000")


def test_a_boot_after_a_panic_has_its_time(bench: Bench) -> None:
    wait: list[Part] = [mov(20, LAST_MOMENT_INSTRUCTIONS), Label("wait"), subs(20, 20, 1), b_ne("wait")]

    outcome = ends(bench, wait, prints(END), call(SYSTEM_RESET), max_insns=3 * LAST_MOMENT_INSTRUCTIONS)

    assert outcome.sentence.startswith("kernel panic: x; then ")


def test_a_machine_that_is_kept_in_a_panics_last_moment_ends_as_if_nothing_had_been(bench: Bench) -> None:
    machine = bench.machine(prints(PANIC + END), spins(), max_insns=None)
    for _ in range(20):
        assert machine.step(None) is None
    other = Machine(machine.setup_as_it_is)
    adopt(other, capture(machine))

    assert other.run() == machine.run() == (ExitCode.PANIC, "kernel panic: x")
    assert other.instructions == machine.instructions


# ---- one that hangs


@VERSIONS
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_one_that_hangs_with_interrupts_masked_is_told_so(bench: Bench, gic: int, seed: int) -> None:
    outcome = ends(bench, vectors_here(), gic_on(gic), timer_after(1_000), spins(), gic=gic, seed=seed)

    words = f"no interrupt possible: every CPU that runs spins with interrupts masked; {NO_PROGRESS}, and no call before"
    assert outcome == (ExitCode.NO_PROGRESS, f"no progress: {words}")


@VERSIONS
def test_one_that_hangs_with_all_its_cpus_is_too(bench: Bench, gic: int) -> None:
    outcome = ends(bench, call_at(CPU_ON, 1, "spin"), spins(), gic=gic, choices=TWO)

    words = f"no interrupt possible: every CPU that runs spins with interrupts masked; {NO_PROGRESS}"
    assert outcome == (ExitCode.NO_PROGRESS, f"no progress: {words}")


@VERSIONS
@pytest.mark.parametrize("cpus", [1, 2])
def test_one_that_takes_interrupts_and_gets_nowhere_all_the_same_is_not(bench: Bench, gic: int, cpus: int) -> None:
    program: list[Part] = [vectors_here(), gic_on(gic), timer_after(5_000), call_at(CPU_ON, 1, "masked") if cpus == 2 else [], IRQ_CLEAR]
    program += [spins(), Label("masked"), add(19, 19, 1), b("masked"), handles(gic, timer_after(5_000))]

    outcome = ends(bench, *program, gic=gic, choices=Choices(mpidrs=tuple(range(cpus))))

    words = NO_PROGRESS + (", and no call before" if cpus == 1 else "")
    assert outcome == (ExitCode.NO_PROGRESS, f"no progress: {words}")


@VERSIONS
def test_one_that_idles_between_interrupts_is_not(bench: Bench, gic: int) -> None:
    program: list[Part] = [vectors_here(), gic_on(gic), timer_after(5_000), Label("idle"), WFI, IRQ_CLEAR, IRQ_SET, b("idle")]

    outcome = ends(bench, *program, handles(gic, timer_after(5_000)), gic=gic)

    assert outcome == (ExitCode.NO_PROGRESS, f"no progress: {NO_PROGRESS}, and no call before")


def test_without_a_controller_nobody_expects_an_interrupt(bench: Bench) -> None:
    assert ends(bench, spins()) == (ExitCode.NO_PROGRESS, f"no progress: {NO_PROGRESS}, and no call before")


@VERSIONS
def test_the_sentence_is_the_same_after_a_snapshot(bench: Bench, gic: int) -> None:
    machine = bench.machine(spins(), gic=gic, max_insns=1_000_000)
    for _ in range(70):
        assert machine.step(None) is None
    other = Machine(machine.setup_as_it_is)
    adopt(other, capture(machine))

    assert other.run() == machine.run()
    assert "no interrupt possible" in machine.run().sentence


# ---- one that idles for ever, and one that never calls


@VERSIONS
@pytest.mark.parametrize("daif", [IRQ_CLEAR, IRQ_SET], ids=["unmasked", "masked"])
def test_one_that_idles_without_a_timer_is_a_deadlock(bench: Bench, gic: int, daif: int) -> None:
    outcome = ends(bench, vectors_here(), gic_on(gic), daif, Label("idle"), WFI, b("idle"), gic=gic, max_insns=None)

    assert outcome == (ExitCode.DEADLOCK, "deadlock: cpu0 is ON and waits for an interrupt")


@VERSIONS
def test_one_whose_only_timer_cannot_interrupt_is_a_deadlock(bench: Bench, gic: int) -> None:
    outcome = ends(bench, timer_after(1_000), Label("idle"), WFI, b("idle"), gic=gic, max_insns=None)

    assert outcome == (ExitCode.DEADLOCK, "deadlock: cpu0 is ON and waits for an interrupt")


@pytest.mark.parametrize("limit", [{"max_insns": 100_000}, {"max_insns": None, "timeout_ns": 100_000}], ids=["instructions", "time"])
def test_one_that_never_calls_is_told_so(bench: Bench, limit: dict[str, Any]) -> None:
    what = "--max-insns 100000" if limit["max_insns"] else "--timeout 100us"

    silent = ends(bench, spins(), **limit)
    assert silent == (
        ExitCode.NO_PROGRESS,
        f"no progress: neither a call nor output in the second half of {what}, and no call before",
    )
    prints_on = ends(bench, spins(prints("x")), **limit)
    assert prints_on == (ExitCode.LIMIT, f"limit reached: {what}, without a single call")
    calls = ends(bench, spins(call(PSCI_VERSION)), **limit)
    assert calls == (ExitCode.LIMIT, f"limit reached: {what}")
