"""Debian's arm64 kernel where it goes wrong: it panics, Oopses or hangs, and the run ends with a sentence and an exit code that say so."""

from __future__ import annotations

import dataclasses
import re
import struct

import pytest

from emu.machine import Machine
from emu.outcome import ExitCode, Outcome
from emu.setup import Choices, Setup, make
from emu.words import parse_smp
from tests import real
from tests.emu.programs import UDF, Label, add, b, flat
from tests.test_linux import LINKED, LOADED

RAM_BYTES = 256 << 20
MOUNT = "kernel panic: VFS: Unable to mount root fs on unknown-block(0,0)"
EARLY = r"kernel panic: early_init_dt_alloc_memory_arch: Failed to allocate \d+ bytes align=0x8"  # what its device tree takes unpacked
EARLYCON = re.compile(rb"bootconsole \[pl11\] enabled\r?\n")


def setup_of(append: str, *, smp: int = 1, **changes: object) -> Setup:
    setup = make(Choices(host="kvm-6.12", mpidrs=parse_smp(str(smp)), ram_bytes=RAM_BYTES))
    return dataclasses.replace(setup, kernel=real.kernel(), append=append, **changes)  # type: ignore[arg-type]


def run(append: str, *, smp: int = 1, **changes: object) -> Outcome:
    return Machine(setup_of(append, smp=smp, **changes)).run()


# ---- panics


@pytest.mark.parametrize(("smp", "no_reboot"), [(1, False), (2, True)])
def test_a_kernel_that_panics_and_waits_for_ever_ends_without_any_limit(smp: int, no_reboot: bool) -> None:
    assert run("init=/nonexistent panic=0", smp=smp, no_reboot=no_reboot) == (ExitCode.PANIC, MOUNT)


def test_a_kernel_that_resets_at_its_panic_ends_with_it_under_no_reboot() -> None:
    outcome = run("init=/nonexistent panic=-1", no_reboot=True)

    assert outcome == (ExitCode.PANIC, f"{MOUNT}; then system reset, and -no-reboot")


def test_a_kernel_that_panics_before_its_first_call_ends_without_any_limit() -> None:
    machine = Machine(setup_of("earlycon mem=20M panic=0"))

    outcome = machine.run()
    assert outcome.code == ExitCode.PANIC
    assert re.fullmatch(EARLY, outcome.sentence)
    assert machine.clock.traps == 0


def test_a_panic_that_no_console_tells_of_is_no_progress() -> None:
    outcome = run("mem=20M panic=0", max_insns=30_000_000)

    limit = "--max-insns 30000000"
    assert outcome == (
        ExitCode.NO_PROGRESS,
        f"no progress: neither a call nor output in the second half of {limit}, and no call before",
    )


# ---- broken kernels


def broken(code: bytes, append: str, max_insns: int | None = None) -> Machine:
    """Stop a kernel early, and put code where the function it is in returns to start_kernel: interrupts are off there."""
    machine = Machine(setup_of(append, max_insns=max_insns))
    assert machine.run(EARLYCON) == (ExitCode.OK, "--until was met")
    frame = machine.engine.x[29].get()
    while True:
        record = machine.engine.read_virtual(frame, 16)
        assert record is not None
        frame, place = struct.unpack("<QQ", record)
        if re.match(r"start_kernel\b", machine.board.symbols.resolve(place) or ""):
            break
    machine.memory.write(place - LINKED + LOADED, code)
    machine.engine.flush_translations()
    return machine


def test_an_early_oops_ends_without_any_limit() -> None:
    machine = broken(flat(UDF), "earlycon panic=0")

    oops = "Oops - Undefined instruction: 0000000002000000"
    assert machine.run() == (ExitCode.PANIC, f"kernel panic: Attempted to kill the idle task!; before it an Oops: {oops}")


def test_a_kernel_that_hangs_with_interrupts_off_is_told_so_at_the_limit() -> None:
    machine = broken(flat(Label("hang"), add(19, 19, 1), b("hang")), "earlycon", max_insns=40_000_000)

    limit = "--max-insns 40000000"
    words = f"neither a call nor output in the second half of {limit}"
    assert machine.run() == (
        ExitCode.NO_PROGRESS,
        f"no progress: no interrupt possible: every CPU that runs spins with interrupts masked; {words}",
    )


def test_a_kernel_that_stops_itself_with_interrupts_off_is_a_deadlock() -> None:
    machine = broken(flat(Label("stop"), b("stop")), "earlycon")

    words = "cpu0 is ON and waits for nothing: it spins in a loop that only an interrupt could leave"
    assert machine.run() == (ExitCode.DEADLOCK, f"deadlock: {words}")
