"""What stands between the engine and Python at MRS and MSR, in machine code and in none."""

from __future__ import annotations

import platform
import struct

import pytest

from emu import sieve
from emu.engine import Engine
from emu.memory import Region
from tests.emu.programs import RET, UDF, At, Part, flat, movz, mrs, msr, set_system

CODE = 0x1_0000
PYTHON = CODE + 0xB00
RETURNED = CODE + 0xC00


def engine_with(*parts: Part) -> Engine:
    engine = Engine("cortex-a57", (0,))
    memory = engine.map_ram(Region(CODE, 0x1_0000))
    memory[: len(flat(*parts))] = flat(*parts)
    engine.pc.set(CODE)
    return engine


@pytest.fixture(params=["machine code", "Python"])
def sieved_by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "Python":
        monkeypatch.setattr(sieve, "_native", lambda: None)
    return str(request.param)


@pytest.mark.usefixtures("sieved_by")
def test_a_register_is_served_and_those_beside_it_are_the_engines() -> None:
    engine = engine_with(
        set_system("CNTV_CVAL_EL0", 5),
        set_system("TPIDR_EL0", 6),
        set_system("CNTKCTL_EL1", 2),
        [mrs(1, "CNTV_CVAL_EL0"), mrs(2, "TPIDR_EL0"), mrs(3, "CNTKCTL_EL1"), mrs(4, "CNTFRQ_EL0")],
        msr("TPIDR_EL1", 1),
        UDF,
    )
    written: list[int] = []
    cval = (3, 3, 14, 3, 2)
    engine.hook_system_registers({cval: lambda: 7}, {cval: written.append}, lambda _register: False)
    engine.hook_interrupts(lambda _uc, _number: engine.stop())

    engine.run(100)

    assert ([engine.x[number].get() for number in (1, 2, 3, 4)], written) == ([7, 6, 2, 62_500_000], [5])
    assert engine.system_register((3, 0, 13, 0, 4)) == 7


def test_machine_code_is_used_where_it_is_known() -> None:
    assert (sieve._native() is not None) == (platform.machine() in sieve._CODE)


@pytest.mark.parametrize(("crn", "answer"), [(0, 0), (13, 0), (14, 9), (15, 0), (2, 9)])
def test_the_machine_code_for_arm64_goes_to_python_for_a_crn_that_is_served(crn: int, answer: int) -> None:
    code: Part = struct.unpack("<8I", sieve._CODE["aarch64"])
    engine = engine_with(code, At(PYTHON - CODE), movz(0, 9), RET)
    memory = engine.map_ram(Region(0x10_0000, 0x1000))
    memory[:12] = struct.pack("<QI", PYTHON, 1 << 14 | 1 << 2)
    memory[0x100:0x104] = struct.pack("<I", crn)
    for register, value in ((0, 0xE), (1, 0x4000), (2, 0x10_0100), (3, 0x10_0000), (30, RETURNED)):
        engine.x[register].set(value)

    while engine.pc.get() != RETURNED:
        engine.run(1)

    assert [engine.x[register].get() for register in (0, 1, 2, 3)] == [answer, 0x4000, 0x10_0100, 0x10_0000]
