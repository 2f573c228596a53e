"""The console's two registers in machine code: a guest cannot tell them from Python's."""

from __future__ import annotations

import dataclasses
import platform

import pytest

from emu import teletype
from emu.checkpoint import Checkpoint
from emu.devices.pl011 import DR, FR, IMSC, INT_TX, RIS
from emu.machine import Machine
from emu.memory import UART
from emu.setup import Choices, make
from guests import elf_path
from tests.flat import machine_of, move32

OFF = [*move32(0, 0x8400_0008), 0xD400_0002]


@pytest.fixture(params=["machine code", "Python"])
def served_by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "Python":
        monkeypatch.setattr(teletype, "_native", lambda: (None, None))
    return str(request.param)


def write(offset: int, value: int) -> list[int]:
    return [*move32(9, UART.base + offset), *move32(10, value), 0xB900_012A]  # str w10, [x9]


def read(offset: int, register: int) -> list[int]:
    return [*move32(9, UART.base + offset), 0xB940_0120 | register]  # ldr w<register>, [x9]


@pytest.mark.usefixtures("served_by")
def test_what_is_sent_comes_out_in_order_whatever_else_is_accessed_between() -> None:
    sent = [*write(DR, 0x41), *read(FR, 1), *write(DR, 0x142), *read(RIS, 2), *write(IMSC, INT_TX), *write(DR, 0x43), *write(IMSC, 0)]
    machine = machine_of([*sent, *write(DR, 0x44), *OFF])
    printed = bytearray()
    machine = Machine(machine.setup, output=printed.extend)

    assert machine.run().sentence == "system off"

    assert printed == b"ABCD"
    assert [machine.engine.x[number].get() for number in (1, 2)] == [0x90, INT_TX]
    assert (machine.console.uart.ris, machine.console.uart.imsc) == (INT_TX, 0)


@pytest.mark.usefixtures("served_by")
def test_more_than_there_is_room_for_is_not_lost() -> None:
    loop = [*move32(9, UART.base), *move32(11, 5_000), 0xB900_012B, 0xF100_056B, 0x54FF_FFC1]  # str w11, [x9]; subs x11, x11, #1; b.ne
    printed = bytearray()

    Machine(machine_of([*loop, *OFF]).setup, output=printed.extend).run()

    assert printed == bytes(number & 0xFF for number in range(5_000, 0, -1))


@pytest.mark.usefixtures("served_by")
def test_a_checkpoint_does_not_keep_what_was_sent_after_it() -> None:
    machine = machine_of([*write(DR, 0x41), *OFF])
    kept = Checkpoint(machine)
    machine.step(5)

    kept.restore()

    assert (bytes(machine.console.uart.tx), machine.console.uart.ris) == (b"", 0)


def test_a_guest_prints_the_same_either_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def run() -> tuple[bytes, int, int]:
        printed = bytearray()
        setup = make(Choices(host="kvm-6.12", mpidrs=(0, 1)))
        machine = Machine(dataclasses.replace(setup, kernel=elf_path("prober")), output=printed.extend)
        machine.run()
        return bytes(printed), machine.clock.now_ns, machine.instructions

    native = run()
    monkeypatch.setattr(teletype, "_native", lambda: (None, None))

    assert run() == native
    assert native[0].startswith(b"prober")


@pytest.mark.parametrize("character", [0x41])
def test_where_somebody_types_the_flags_are_python_s(served_by: str, character: int) -> None:
    del served_by
    typed = [bytes((character,))]
    setup = machine_of([*read(FR, 1), *read(DR, 2), *read(FR, 3), *OFF]).setup
    machine = Machine(setup, typed=lambda _limit: typed.pop() if typed else b"")

    machine.run()

    assert [machine.engine.x[number].get() for number in (1, 2, 3)] == [0xC0, character, 0x90]


def test_machine_code_is_used_where_it_is_known() -> None:
    known = platform.machine() in teletype._READ

    assert [each is not None for each in teletype._native()] == [known, known]
