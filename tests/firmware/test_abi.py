"""Numbers fixed by the standards, against the pages that list them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware import abi
from firmware.abi import Psci, Smccc, Trng, Version


@pytest.mark.parametrize(
    ("version", "word"),
    [((0, 1), 0x1), ((0, 2), 0x2), ((1, 0), 0x1_0000), ((1, 1), 0x1_0001), ((1, 2), 0x1_0002), ((1, 3), 0x1_0003), ((2, 0), 0x2_0000)],
)
def test_a_version_has_its_major_in_the_upper_half(version: tuple[int, int], word: int) -> None:
    assert Version(*version).word == word
    assert Version.from_word(word) == Version(*version)
    assert str(Version(*version)) == f"{version[0]}.{version[1]}"


@given(st.integers(0, 0x7FFF_FFFF), st.integers(0, 0x7FFF_FFFF))
def test_versions_sort_as_their_words_do(first: int, second: int) -> None:
    assert (Version.from_word(first) < Version.from_word(second)) is (first < second)


def test_the_standards_versions_are_listed_in_order() -> None:
    assert [version.word for version in abi.PSCI_VERSIONS] == [0x1, 0x2, 0x1_0000, 0x1_0001, 0x1_0002, 0x1_0003]
    assert [version.word for version in abi.SMCCC_VERSIONS] == [0x1_0000 + minor for minor in range(7)]


def test_the_affinity_fields_are_aff0_to_aff3_and_make_up_the_mask() -> None:
    assert abi.AFFINITY_FIELDS == (0xFF, 0xFF00, 0xFF_0000, 0xFF_0000_0000)
    assert sum(abi.AFFINITY_FIELDS) == abi.AFFINITY_MASK
    assert len(abi.AFFINITY_FIELDS) == abi.HIGHEST_AFFINITY_LEVEL + 1


def test_return_codes_are_the_standards() -> None:
    assert {code.name: code.value for code in Psci} == {
        "SUCCESS": 0,
        "NOT_SUPPORTED": -1,
        "INVALID_PARAMETERS": -2,
        "DENIED": -3,
        "ALREADY_ON": -4,
        "ON_PENDING": -5,
        "INTERNAL_FAILURE": -6,
        "NOT_PRESENT": -7,
        "DISABLED": -8,
        "INVALID_ADDRESS": -9,
    }
    assert {code.name: code.value for code in Smccc} == {"SUCCESS": 0, "NOT_SUPPORTED": -1, "NOT_REQUIRED": -2, "INVALID_PARAMETER": -3}
    assert {code.name: code.value for code in Trng} == {"SUCCESS": 0, "NOT_SUPPORTED": -1, "INVALID_PARAMETERS": -2, "NO_ENTROPY": -3}


def test_a_started_vcpu_is_at_el1h_with_everything_masked() -> None:
    el1h, masks = 0b0101, 0b1111 << 6
    assert el1h | masks == abi.ENTRY_PSTATE
