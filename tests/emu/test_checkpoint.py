"""Going back to an instant, again and again: the same run each time, at the cost of what was touched."""

from __future__ import annotations

import dataclasses
import struct
from pathlib import Path
from typing import Final

import pytest

from emu import checkpoint
from emu.checkpoint import Checkpoint
from emu.machine import Machine
from emu.memory import RAM_BASE, MiB
from emu.pristine import PristineError
from emu.setup import Choices, make
from emu.state import adopt, capture
from guests import catalogue
from tests import real
from tests.emu.gicprograms import gic_on, interface_on, timer_after
from tests.emu.programs import (
    CPU_OFF,
    CPU_ON,
    RET,
    SYSTEM_RESET,
    TEXT,
    At,
    Bench,
    Label,
    Part,
    add,
    b_ne,
    call,
    call_at,
    cbnz,
    cbz,
    ldr,
    mov,
    off,
    skips,
    store,
    store32,
    subs,
    vector,
    vectors_here,
    word_at,
)
from tests.emu.programs import SCRATCH as TABLE
from tests.emu.test_exceptions import VALID_BLOCK, mmu_on
from tests.emu.test_snapshot import finished, setup_of, undisturbed, watched
from tests.flat import CODE, SCRATCH, machine_of, move32

GUESTS: Final = catalogue()


SYSTEM_OFF: Final = [*move32(0, 0x8400_0008), 0xD400_0002]

# Runs an instruction, makes another one of it, runs it again; what each gave is stored.
PATCHES_ITSELF: Final = [
    *move32(9, SCRATCH),
    *move32(10, CODE + 5 * 4),
    0xD280_000B,  # movz x11, #0
    0xD280_0021,  # movz x1, #1: becomes movz x1, #2
    0xF82B_6921,  # str x1, [x9, x11]
    0xB500_00CB,  # cbnz x11, over the rest
    0xD280_010B,  # movz x11, #8
    *move32(12, 0xD280_0041),
    0xB900_014C,  # str w12, [x10]
    0x17FF_FFF9,  # b back to the instruction that is another one now
    0xD503_201F,
    *SYSTEM_OFF,
]


BLR_X9: Final = 0xD63F_0120
MAPPED: Final = 0xC000_0000  # where no memory is


def stored(machine: Machine) -> tuple[int, ...]:
    content = machine.memory.read(SCRATCH, 16)
    assert content is not None
    return struct.unpack("<2Q", content)


def test_a_guest_that_patches_itself_finds_its_code_as_it_was() -> None:
    machine = machine_of(PATCHES_ITSELF)
    machine.step(1)
    kept = Checkpoint(machine)

    for _ in range(5):
        assert machine.run().sentence == "system off"
        assert stored(machine) == (1, 2)
        kept.restore()
        assert stored(machine) == (0, 0)


def test_a_map_that_a_guest_made_is_forgotten(tmp_path: Path) -> None:
    high = VALID_BLOCK | RAM_BASE
    program: list[Part] = [
        [vectors_here(), mov(19, 0), mov(1, MAPPED + TEXT - RAM_BASE), ldr(20, 1)],  # an abort, while the MMU is off
        [mov(9, high), mov(10, TABLE + 8 * (MAPPED >> 30)), store(9, 10), mmu_on(RAM_BASE), ldr(20, 1), off()],
        [vector(0x200), add(19, 19, 1), skips()],
    ]
    machine = Bench(tmp_path).machine(*program)
    machine.step(2)
    kept = Checkpoint(machine)

    for _ in range(3):
        assert machine.run().sentence == "system off"
        assert machine.engine.x[19].get() == 1
        assert machine.engine.x[20].get() == word_at(machine, TEXT)
        kept.restore()


@pytest.mark.parametrize("before", ["nothing", "executed"])
@pytest.mark.parametrize("first", ["nothing", "written"])
def test_code_is_as_it_was_whether_it_was_first_executed_or_written(tmp_path: Path, before: str, first: str) -> None:
    page, plus_16 = 0x4000, add(19, 19, 16)
    program: list[Part] = [
        [mov(9, TEXT + page), [BLR_X9] if before == "executed" else [], mov(19, 0)],
        [cbnz(5, "write"), BLR_X9, Label("write"), mov(10, plus_16), [] if first == "written" else [cbnz(5, "end")], store32(10, 9)],
        [cbnz(5, "end"), BLR_X9, Label("end"), off(), At(page), add(19, 19, 1), RET],
    ]
    machine = Bench(tmp_path).machine(*program)
    machine.step(8 if before == "nothing" else 8 + 3)
    kept = Checkpoint(machine)
    machine.engine.x[5].set(1)
    machine.run()
    kept.restore()

    for _ in range(3):
        machine.run()
        assert machine.engine.x[19].get() == 1 + 16
        kept.restore()


DELAYS: Final[list[Part]] = [mov(9, 60_000), Label("delay"), subs(9, 9, 1), b_ne("delay")]
WITHOUT_AN_ACCESS: Final[dict[str, tuple[list[Part], list[Part]]]] = {
    "a timer fires": (timer_after(8_000), DELAYS),
    "a CPU starts": (call_at(CPU_ON, 1, "second", 0), [call_at(CPU_ON, 1, "second", 1), DELAYS]),
    "a reset": ([], [mov(9, TABLE), store(9, 9), call(SYSTEM_RESET)]),
}


@pytest.mark.parametrize("case", WITHOUT_AN_ACCESS)
def test_a_controller_that_changes_without_an_access_is_as_it_was(tmp_path: Path, case: str) -> None:
    before, after = WITHOUT_AN_ACCESS[case]
    program: list[Part] = [
        [mov(9, TABLE), ldr(10, 9), cbnz(10, "end")],  # it was reset: memory stays
        [gic_on(3), before, mov(27, 0), Label("wait"), cbz(27, "wait"), after, Label("end"), off()],
        [Label("second"), cbnz(0, "again"), interface_on(3, 1), Label("again"), call(CPU_OFF)],
    ]
    machine = Bench(tmp_path).machine(*program, gic=3, choices=Choices(mpidrs=(0, 1)))
    for _ in range(40):
        machine.step(200)
    machine.engine.switch(0)
    machine.engine.x[27].set(1)
    state, kept = capture(machine), Checkpoint(machine)

    for _ in range(2):
        accesses = machine.interrupts.accesses
        assert machine.run().sentence == "system off"
        assert machine.interrupts.accesses == accesses
        assert machine.interrupts.controller != state.controller
        kept.restore()
        assert capture(machine) == state


def test_an_alarm_that_nobody_is_told_of_is_still_to_come(tmp_path: Path) -> None:
    machine = Bench(tmp_path).machine(off(), gic=3)
    machine.board.rtc.alarm_ns, machine.clock.now_ns = 1, 1
    adopt(machine, capture(machine))  # whoever takes it up looks at everything again
    state, kept = capture(machine), Checkpoint(machine)

    machine.run()
    assert machine.board.rtc.alarm_ns is None
    kept.restore()

    assert capture(machine) == state


def test_what_is_typed_and_not_read_is_not_there_afterwards() -> None:
    typed: list[bytes] = []
    setup = machine_of(SYSTEM_OFF).setup
    machine = Machine(setup, typed=lambda _limit: typed.pop() if typed else b"")
    machine.step(1)
    before, kept = capture(machine), Checkpoint(machine)

    typed.append(b"x")
    machine.step(1)
    assert machine.console.uart.rx == b"x"
    kept.restore()

    assert capture(machine) == before


@pytest.mark.parametrize("ram_bytes", [2 * MiB, 64 * MiB], ids=lambda size: f"{size >> 20} MiB")
def test_memory_is_as_it_was_whatever_was_written(ram_bytes: int) -> None:
    pages = 24
    touch = [0xF900_0129, 0x9140_0529]  # str x9, [x9]; add x9, x9, #1, lsl #12
    machine = machine_of([*move32(9, SCRATCH), *(touch * pages), *SYSTEM_OFF], ram_bytes)
    machine.step(1)
    before = capture(machine)
    kept = Checkpoint(machine)

    for _ in range(4):
        machine.run()
        assert machine.memory.read(SCRATCH + (pages - 1) * 0x1000, 8) == struct.pack("<Q", SCRATCH + (pages - 1) * 0x1000)
        kept.restore()
        assert capture(machine) == before


@pytest.mark.parametrize("host", ["spec", "kvm-6.12", "kvm-4.18"])
@pytest.mark.parametrize("guest", GUESTS)
def test_a_guest_runs_the_same_each_time_it_is_put_back(guest: str, host: str) -> None:
    setup = setup_of(guest, host)
    expected = undisturbed(setup)
    run = watched(setup)
    run.machine.step(None)
    if run.machine.is_over:
        pytest.skip("it ends in its first turn")
    kept, seen, printed = Checkpoint(run.machine), len(run.seen), len(run.printed)

    for _ in range(3):
        assert finished(run) == expected
        kept.restore()
        del run.seen[seen:], run.printed[printed:]


def test_a_version_that_was_changed_is_what_it_was() -> None:
    machine = Machine(setup_of("version-loop", "kvm-6.12"))
    machine.step(1)
    kept = Checkpoint(machine)
    machine.set_one_reg(0x6030_0000_0014_0000, 0x2)

    kept.restore()

    assert machine.firmware.get_one_reg(0x6030_0000_0014_0000) == 0x1_0001
    assert str(machine.config.offered) == "1.1"


def test_a_linux_kernel_with_its_mmu_on_is_put_back() -> None:
    setup = dataclasses.replace(make(Choices(host="kvm-6.12")), kernel=real.kernel(), append="earlycon", max_insns=30_000_000)
    expected = undisturbed(setup)
    run = watched(setup)
    while run.machine.clock.traps < 3:
        assert run.machine.step(None) is None
    kept, seen, printed = Checkpoint(run.machine), len(run.seen), len(run.printed)

    for _ in range(2):
        assert finished(run) == expected
        kept.restore()
        del run.seen[seen:], run.printed[printed:]


def test_where_the_host_does_not_tell_about_pages_every_page_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object) -> None:
        raise PristineError("not here")

    monkeypatch.setattr(checkpoint, "Pristine", refuse)
    machine = machine_of(PATCHES_ITSELF)
    machine.step(1)
    before = capture(machine)
    kept = Checkpoint(machine)

    for _ in range(2):
        assert machine.run().sentence == "system off"
        assert stored(machine) == (1, 2)
        kept.restore()
        assert capture(machine) == before
