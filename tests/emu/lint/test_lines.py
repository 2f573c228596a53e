"""File and line from DWARF, which may be anything."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st

from emu.lint.lines import lines_of
from guests import elf_path

_IMAGE: Final = (Path(__file__).parents[2] / "images" / "bin" / "lines.elf").read_bytes()
_SITES: Final = (0x4020_0004, 0x4020_0010)


def test_an_address_has_the_line_it_was_written_on() -> None:
    assert lines_of(_IMAGE, [*_SITES, 0x4020_0014, 0x1000]) == {
        0x4020_0004: ("lines.c", 7),
        0x4020_0010: ("lines.c", 7),
        0x4020_0014: ("lines.c", 16),
    }


def test_an_image_without_dwarf_has_no_lines() -> None:
    assert lines_of(elf_path("prober").read_bytes(), _SITES) == {}
    assert lines_of(b"flat", _SITES) == {}
    assert lines_of(None, _SITES) == {}
    assert lines_of(_IMAGE, []) == {}


@settings(max_examples=200, deadline=None, derandomize=True)
@given(where=st.integers(min_value=0, max_value=len(_IMAGE) - 1), bytes_=st.binary(min_size=1, max_size=8), cut=st.booleans())
def test_broken_dwarf_ends_nothing(where: int, bytes_: bytes, cut: bool) -> None:
    content = _IMAGE[:where] if cut else _IMAGE[:where] + bytes_ + _IMAGE[where + len(bytes_) :]

    assert set(lines_of(content, _SITES)) <= set(_SITES)
