"""The end of a slice: the callback that counts instructions down, in machine code and in Python."""

from __future__ import annotations

import platform
import struct

import pytest

from emu import budget
from emu.engine import Engine
from emu.memory import Region
from tests.emu.programs import RET, UDF, At, Label, Part, b, b_ne, flat, mov, movz, store32, svc

CODE = 0x1_0000
STOPPED = CODE + 0xC00
RETURNED = STOPPED + 4
READ = CODE + 0xB00
MRS_DAIF = 0xD53B_4221  # mrs x1, daif
AND_NOT_I = 0x9278_F821  # and x1, x1, #~0x80
MSR_DAIF = 0xD51B_4221
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


@pytest.mark.parametrize(
    ("left", "pstate", "retries", "after", "pc"),
    [
        (7, None, 0, 2, RETURNED),
        (1, None, 0, -4, RETURNED),
        (0, None, 0, 0, STOPPED),
        (-3, None, 0, -3, STOPPED),
        (7, 0x3C5, 0, 2, RETURNED),
        (7, 0x345, 0, 7, STOPPED),
        (0, 0x3C5, 0, 0, STOPPED),
        (7, None, 1, 7, RETURNED),
        (-3, 0x345, 1, -3, RETURNED),
    ],
)
def test_the_machine_code_for_arm64_counts_watches_and_stops(left: int, pstate: int | None, retries: int, after: int, pc: int) -> None:
    code: Part = struct.unpack("<27I", budget._CODE["aarch64"])
    # cmp w1, #9; and what a call may spoil is spoilt.
    reads: list[Part] = [0x7100_243F, b_ne("wrong"), movz(9, pstate or 0), store32(9, 2), mov(2, 0), mov(3, 0), mov(4, 0), RET]
    reads += [Label("wrong"), UDF]
    engine = engine_with(code, At(READ - CODE), reads)
    memory = engine.map_ram(Region(0x10_0000, 0x1000))
    memory[:56] = struct.pack("<q6Q", left, STOPPED, pstate is not None, 0, 9, READ, retries)
    for register, value in ((0, 0xE), (1, 0x4000), (2, 0xFFFF_FFFF_0000_0014), (3, 0x10_0000), (29, 0xF), (30, RETURNED)):
        engine.x[register].set(value)
    engine.sp.set(0x10_1000)

    while engine.pc.get() not in (STOPPED, RETURNED):
        engine.run(1)

    assert (int.from_bytes(memory[:8], "little", signed=True), engine.pc.get()) == (after, pc)
    assert memory[48:56] == bytes(8)
    assert [engine.x[register].get() for register in (0, 3, 29)] == [0xE, 0x10_0000, 0xF]
    assert engine.sp.get() == 0x10_1000


@pytest.mark.usefixtures("counted_by")
@pytest.mark.parametrize("unmasks", [0xD503_42FF, [MRS_DAIF, AND_NOT_I, MSR_DAIF]], ids=["DAIFClr", "DAIF"])
def test_a_watched_slice_ends_before_the_first_block_that_does_not_mask_interrupts(unmasks: Part) -> None:
    engine = engine_with(ADD, b("next"), Label("next"), ADD, unmasks, ADD, ADD, Label("loop"), b("loop"))
    engine.watch_for_unmasked(True)

    run = engine.run_slice(100)

    assert (run, engine.x[0].get()) == (len(flat(ADD, ADD, ADD, unmasks)) // 4, 2)
    engine.watch_for_unmasked(False)
    assert engine.run_slice(3) >= 3
    assert engine.x[0].get() == 4


def test_an_exact_run_that_is_watched_tells_how_far_it_came() -> None:
    engine = engine_with(ADD, 0xD503_42FF, ADD, ADD)
    engine.watch_for_unmasked(True)

    assert [engine.run(10), engine.x[0].get()] == [2, 1]
