"""The end of a slice: the callback that counts instructions down, in machine code and in Python."""

from __future__ import annotations

import platform
import struct

import pytest

from emu import budget
from emu.engine import Engine
from emu.memory import Region
from tests.emu.programs import Label, Part, b, flat, svc

CODE = 0x1_0000
STOPPED = CODE + 0xC00
ADD = 0x9100_0400  # add x0, x0, #1


@pytest.fixture(params=["machine code", "Python"])
def counted_by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "Python":
        monkeypatch.setattr(budget, "_native", lambda: None)
    return str(request.param)


def engine_with(*parts: Part) -> Engine:
    engine = Engine("cortex-a57", (0,))
    memory = engine.map_ram(Region(CODE, 0x1_0000))
    memory[: len(flat(*parts))] = flat(*parts)
    engine.pc.set(CODE)
    return engine


@pytest.mark.usefixtures("counted_by")
@pytest.mark.parametrize(("budgeted", "run"), [(1, 4), (3, 4), (4, 4), (5, 8), (9_999, 10_000), (10_000, 10_000)])
def test_a_slice_ends_with_the_block_of_its_last_instruction(budgeted: int, run: int) -> None:
    engine = engine_with(Label("loop"), ADD, ADD, ADD, b("loop"))

    assert engine.run_slice(budgeted) == run
    assert engine.x[0].get() == run // 4 * 3
    assert engine.pc.get() == CODE


@pytest.mark.usefixtures("counted_by")
def test_slices_add_up_whatever_else_runs_between_them() -> None:
    engine = engine_with(Label("loop"), ADD, ADD, ADD, b("loop"))

    run = [engine.run_slice(4), engine.run(2), engine.run_slice(2), engine.run(3), engine.run_slice(1)]

    assert run == [4, 2, 2, 3, 1]
    assert engine.x[0].get() == 9
    assert engine.pc.get() == CODE


@pytest.mark.usefixtures("counted_by")
def test_a_slice_that_a_callback_ends_has_run_the_blocks_it_began() -> None:
    engine = engine_with(ADD, b("call"), Label("call"), ADD, svc(0), ADD)
    engine.hook_interrupts(lambda _uc, _number: engine.stop())

    assert engine.run_slice(1_000) == 4
    assert engine.x[0].get() == 2


def test_machine_code_is_used_where_it_is_known() -> None:
    known = platform.machine() in budget._CODE

    assert (budget._native() is not None) == known


@pytest.mark.parametrize(("left", "after", "pc"), [(7, 2, STOPPED + 4), (1, -4, STOPPED + 4), (0, 0, STOPPED), (-3, -3, STOPPED)])
def test_the_machine_code_for_arm64_counts_and_stops(left: int, after: int, pc: int) -> None:
    engine = engine_with(struct.unpack("<9I", budget._CODE["aarch64"]))
    memory = engine.map_ram(Region(0x10_0000, 0x1000))
    memory[:16] = left.to_bytes(8, "little", signed=True) + STOPPED.to_bytes(8, "little")
    for register, value in ((0, 0xE), (1, 0x4000), (2, 0xFFFF_FFFF_0000_0014), (3, 0x10_0000), (30, STOPPED + 4)):
        engine.x[register].set(value)

    while engine.pc.get() not in (STOPPED, STOPPED + 4):
        engine.run(1)

    assert (int.from_bytes(memory[:8], "little", signed=True), engine.pc.get(), engine.x[0].get()) == (after, pc, 0xE)
