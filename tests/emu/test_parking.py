"""Telling from its code that a vCPU has parked itself for good."""

from __future__ import annotations

import pytest

from emu.parking import LONGEST_LOOP, is_parked
from tests.emu.programs import (
    DAIF_CLEAR_ALL,
    DSB,
    ISB,
    NOP,
    RET,
    SEV,
    SEVL,
    UDF,
    WFE,
    WFI,
    YIELD,
    Label,
    Part,
    b,
    br,
    cbz,
    flat,
    hvc,
    ldr,
    mrs,
    store,
    subs,
)

BASE = 0x1000


def parked(*parts: Part, pc: int = BASE) -> bool:
    code = flat(*parts)

    def word(address: int) -> int | None:
        offset = address - BASE
        return int.from_bytes(code[offset : offset + 4], "little") if 0 <= offset < len(code) else None

    return is_parked(word, pc)


LOOPS: dict[str, Part] = {
    "b .": [Label("l"), b("l")],
    "wfe": [Label("l"), WFE, b("l")],
    "hints": [Label("l"), NOP, YIELD, WFE, SEV, SEVL, b("l")],
    "barriers": [Label("l"), DSB, ISB, 0xD503_3BBF, 0xD503_305F, b("l")],  # dmb ish, clrex
    "a branch forward": [Label("l"), b("m"), UDF, Label("m"), b("l")],
    "a way into a loop": [NOP, NOP, Label("l"), WFE, b("l")],
    "the longest": [Label("l"), *([NOP] * (LONGEST_LOOP - 1)), b("l")],
}


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_of_hints_barriers_and_branches_is_parked(name: str) -> None:
    assert parked(LOOPS[name])


@pytest.mark.parametrize("at", range(3))
def test_a_loop_is_recognised_from_anywhere_in_it(at: int) -> None:
    assert parked(Label("l"), NOP, WFE, b("l"), pc=BASE + 4 * at)


OTHERS: dict[str, Part] = {
    "load": ldr(0, 1),
    "store": store(0, 1),
    "count": subs(0, 0, 1),
    "call": hvc(),
    "counter": mrs(0, "CNTVCT_EL0"),
    "return": RET,
    "undefined": UDF,
    "unmask": DAIF_CLEAR_ALL,
    "WFI, which the machine sees itself": WFI,
    "BL, which changes x30": 0x9400_0000,
    "BR": br(0),
}


@pytest.mark.parametrize("name", OTHERS)
def test_anything_that_may_change_something_is_not_parked(name: str) -> None:
    assert not parked(Label("l"), OTHERS[name], b("l"))


def test_a_conditional_loop_is_not_parked() -> None:
    assert not parked(Label("l"), cbz(0, "l"), b("l"))


def test_code_that_cannot_be_read_is_not_parked() -> None:
    assert not parked(NOP)
    assert not parked(pc=0)


def test_a_loop_that_is_longer_is_given_up_on() -> None:
    assert not parked(Label("l"), *([NOP] * 2 * LONGEST_LOOP), b("l"))
