"""Values and places in words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emu.symbols import Symbols
from emu.trace import Text, value_in_words
from firmware.abi import MASK64
from firmware.dispatch import configuration, functions_by_id
from firmware.hosts import HOSTS
from firmware.trap import Reply

FUNCTIONS = functions_by_id(configuration(HOSTS["spec"]))
TEXT = Text(FUNCTIONS.get, Symbols(None))


@pytest.mark.parametrize(
    ("fid", "x0", "words"),
    [
        (0x8400_0000, 0x1_0001, "0x10001 (1.1)"),
        (0x8400_0003, 0, "SUCCESS"),
        (0x8400_0003, -4, "ALREADY_ON"),
        (0x8400_0003, -9, "INVALID_ADDRESS"),
        (0x8400_0003, -77, "0xffffffffffffffb3"),
        (0x8400_0004, 2, "2 (ON_PENDING)"),
        (0x8400_0004, 7, "7 (?)"),
        (0x8400_0006, 2, "2 (no migration needed)"),
        (0x8000_0001, -2, "NOT_REQUIRED"),
        (0x8400_0050, -1, "NOT_SUPPORTED"),
    ],
)
def test_a_result_is_spelled_as_its_function_reads(fid: int, x0: int, words: str) -> None:
    assert value_in_words(FUNCTIONS[fid], Reply(((0, x0 & MASK64),))) == words


@given(fid=st.sampled_from([None, *FUNCTIONS]), values=st.lists(st.integers(0, MASK64), min_size=1, max_size=4))
def test_any_result_has_a_spelling(fid: int | None, values: list[int]) -> None:
    function = None if fid is None else FUNCTIONS[fid]

    assert value_in_words(function, Reply(tuple(enumerate(values))))


@pytest.mark.parametrize(
    ("fid", "name"),
    [
        (0xC400_0003, "CPU_ON"),
        (0x8300_0001, "0x83000001 (OEM)"),
        (0x8700_0000, "0x87000000 (Vendor EL3)"),
        (0xB000_0000, "0xb0000000 (unknown)"),
        (0x0000_0000, "0x00000000 (unknown)"),
        (0x0400_0003, "0x04000003 (unknown)"),
    ],
)
def test_a_function_without_a_name_is_told_by_its_owner(fid: int, name: str) -> None:
    assert TEXT.function_name(fid) == name


@pytest.mark.parametrize(
    ("time_ns", "stamp"), [(0, "[    0.000000000] cpu0"), (1_000_000_001, "[    1.000000001] cpu0"), (10**13, "[10000.000000000] cpu0")]
)
def test_a_stamp_is_virtual_time_to_the_nanosecond(time_ns: int, stamp: str) -> None:
    assert TEXT.stamp(time_ns, 0) == stamp


def test_a_place_without_a_symbol_is_a_number() -> None:
    assert TEXT.place(0x4008_0000) == "0x40080000"
