"""Semihosting: what a guest prints, and the code it ends with."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from emu.outcome import ExitCode
from tests.emu.programs import (
    HLT_SEMIHOSTING,
    NOWHERE,
    SCRATCH,
    Bench,
    Part,
    copy,
    exits,
    hlt,
    keeps_exception,
    kept,
    mov,
    prints,
    vector,
    vectors_here,
)

TEXT_AT: Final = SCRATCH + 0x200
BLOCK_AT: Final = SCRATCH + 0x100
LONGEST: Final = 1 << 16


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def calls(operation: int, parameter: int) -> list[Part]:
    return [mov(0, operation), mov(1, parameter), HLT_SEMIHOSTING]


def run(bench: Bench, memory: dict[int, bytes], *program: Part) -> tuple[int, bytes, int, str]:
    """Run with some memory written; return exit code, output, x19 and the sentence."""
    output = bytearray()
    machine = bench.machine(*program, output=output)
    for address, content in memory.items():
        machine.memory.write(address, content)
    outcome = machine.run()
    return outcome.code, bytes(output), kept(machine)[0], outcome.sentence


def block(*fields: int) -> bytes:
    return b"".join(field.to_bytes(8, "little") for field in fields)


@pytest.mark.parametrize("operation", [0x18, 0x20], ids=["SYS_EXIT", "SYS_EXIT_EXTENDED"])
@pytest.mark.parametrize(
    ("reason", "code", "ends"),
    [
        (0x2_0026, 0, 0),
        (0x2_0026, 1, 1),
        (0x2_0026, 99, 99),
        (0x2_0026, 100, 99),
        (0x2_0026, 0xFFFF_FFFF_FFFF_FFFF, 99),
        (0x2_0026, 1 << 32, 0),
        (0x2_0023, 0, 1),
        (0, 0, 1),
        (0x2_0024, 55, 1),
        (0xFFFF_FFFF_0002_0026, 3, 1),
    ],
)
def test_an_exit_gives_the_guests_code_and_any_other_reason_1(bench: Bench, operation: int, reason: int, code: int, ends: int) -> None:
    ended = run(bench, {BLOCK_AT: block(reason, code)}, calls(operation, BLOCK_AT))

    assert ended[::3] == (ends, f"the guest ended with exit code {ends}")


def test_the_operation_is_a_word(bench: Bench) -> None:
    assert run(bench, {BLOCK_AT: block(0x2_0026, 7)}, calls(0xDEAD_BEEF_0000_0018, BLOCK_AT))[0] == 7


def test_writec_write0_and_write_print(bench: Bench) -> None:
    memory = {TEXT_AT: b"hello\0not this", BLOCK_AT: block(1, TEXT_AT, 4)}
    program: list[Part] = [calls(3, TEXT_AT), calls(4, TEXT_AT), calls(5, BLOCK_AT), copy(19, 0), exits(0)]

    assert run(bench, memory, *program)[:3] == (0, b"hhellohell", 0)


WRITES: Final = [(1, 5, 0), (2, 5, 0), (0, 5, 5), (3, 5, 5), (1, 0, 0), (1, LONGEST, 0), (1, LONGEST + 1, LONGEST + 1)]


@pytest.mark.parametrize(("handle", "size", "left"), WRITES)
def test_write_returns_what_it_did_not_write(bench: Bench, handle: int, size: int, left: int) -> None:
    code, output, x19, _ = run(bench, {BLOCK_AT: block(handle, TEXT_AT, size)}, calls(5, BLOCK_AT), copy(19, 0), exits(0))

    assert (code, len(output), x19) == (0, size - left, left)


def test_what_is_printed_keeps_its_order_among_uart_and_semihosting(bench: Bench) -> None:
    program: list[Part] = [prints("a"), calls(4, TEXT_AT), prints("c"), calls(4, TEXT_AT), exits(0)]

    assert run(bench, {TEXT_AT: b"b\0"}, *program)[:2] == (0, b"abcb")


def test_a_string_may_cross_pages_and_end_at_the_end_of_ram(bench: Bench) -> None:
    end = 0x4800_0000
    long = b"x" * 0x2FFF

    assert run(bench, {end - 4: b"end\0"}, calls(4, end - 4), exits(0))[:2] == (0, b"end")
    assert run(bench, {SCRATCH + 0x1801: long + b"\0"}, calls(4, SCRATCH + 0x1801), exits(0))[:2] == (0, long)


@pytest.mark.parametrize(
    ("program", "sentence"),
    [
        (calls(3, NOWHERE), "guest crash: semihosting parameter at 0x30000000 cannot be read"),
        (calls(4, NOWHERE), "guest crash: semihosting parameter at 0x30000000 cannot be read"),
        (calls(5, NOWHERE), "guest crash: semihosting parameter at 0x30000000 cannot be read"),
        (calls(0x18, NOWHERE), "guest crash: semihosting parameter at 0x30000000 cannot be read"),
        (calls(0x20, 0x47FF_FFF8), "guest crash: semihosting parameter at 0x47fffff8 cannot be read"),
        (calls(1, 0), "guest crash: semihosting operation 0x1 is not served; served: 0x3, 0x4, 0x5, 0x18, 0x20"),
        (calls(0xFFFF_FFFF, 0), "guest crash: semihosting operation 0xffffffff is not served; served: 0x3, 0x4, 0x5, 0x18, 0x20"),
    ],
)
def test_a_call_that_cannot_be_served_is_a_guest_crash(bench: Bench, program: list[Part], sentence: str) -> None:
    ended = run(bench, {}, program)

    assert (ended[0], ended[3]) == (ExitCode.CRASH, sentence)


def test_a_string_without_an_end_is_a_guest_crash(bench: Bench) -> None:
    code, _, _, sentence = run(bench, {SCRATCH: b"x" * 2 * LONGEST}, calls(4, SCRATCH))

    assert (code, sentence) == (ExitCode.CRASH, f"guest crash: semihosting string at {SCRATCH:#x} does not end within {LONGEST} bytes")


def test_another_hlt_is_undefined(bench: Bench) -> None:
    outcome, machine = bench.run(vectors_here(), hlt(0xF001), vector(0x200), keeps_exception())

    assert outcome.code == 7
    assert kept(machine)[0] == 0x200_0000


def test_it_goes_on_behind_the_instruction(bench: Bench) -> None:
    assert run(bench, {TEXT_AT: b"x"}, mov(19, 1), calls(3, TEXT_AT), mov(19, 2), exits(0))[:3] == (0, b"x", 2)
