"""Which blocks were come to: the callback that notes them, in machine code and in Python."""

from __future__ import annotations

import platform

import pytest

from emu import coverage
from emu.coverage import Coverage
from emu.engine import Engine
from emu.memory import Region
from tests.emu.programs import Label, Part, b, b_ne, flat

CODE = 0x1_0000
ADD = 0x9100_0400  # add x0, x0, #1
CMP_3 = 0xF100_0C1F  # cmp x0, #3


@pytest.fixture(params=["machine code", "Python"], autouse=True)
def noted_by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "Python":
        monkeypatch.setattr(coverage, "_native", lambda: None)
    return str(request.param)


def covered(*parts: Part) -> tuple[Engine, Coverage]:
    engine, noted = Engine("cortex-a57", (0,)), Coverage()
    memory = engine.map_ram(Region(CODE, 0x1_0000))
    memory[: len(flat(*parts))] = flat(*parts)
    engine.pc.set(CODE)
    engine.cover(noted)
    return engine, noted


def loop() -> tuple[Engine, Coverage]:
    """Go round three times, and on for ever."""
    return covered(Label("loop"), ADD, CMP_3, b_ne("loop"), Label("end"), ADD, b("end"))


def test_a_block_is_told_once_in_the_order_in_which_they_were_come_to() -> None:
    engine, noted = loop()
    engine.run_slice(30)

    assert noted.take() == (CODE, CODE + 12)
    engine.run_slice(30)
    assert noted.take() == ()


def test_what_is_forgotten_is_new_again_whether_or_not_it_has_been_told() -> None:
    engine, noted = loop()
    engine.run_slice(30)

    noted.forget()
    engine.run_slice(30)

    assert noted.take() == (CODE + 12,)


def test_engines_that_share_it_come_to_a_block_once() -> None:
    engine, noted = loop()
    other, _ = loop()
    other.cover(noted)
    engine.run_slice(30)
    other.run_slice(30)

    assert noted.take() == (CODE, CODE + 12)


def test_what_was_translated_before_is_noted_too() -> None:
    engine, _ = loop()
    engine.run_slice(30)
    later = Coverage()

    engine.cover(later)
    engine.run_slice(30)

    assert later.take() == (CODE + 12,)


def test_the_rest_of_a_block_that_is_begun_again_is_none() -> None:
    engine, noted = loop()
    noted.retry()
    engine.run_slice(30)

    assert noted.take() == (CODE, CODE + 12)  # the first of three rounds passed
    noted.forget()
    noted.retry()
    engine.run_slice(1)
    assert noted.take() == ()


def test_machine_code_is_used_where_it_is_known(noted_by: str) -> None:
    known = platform.machine() in ("x86_64", "aarch64") and noted_by == "machine code"

    assert (coverage._native() is not None) == known
