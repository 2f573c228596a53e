"""File and line of a guest's address, from the DWARF of the image or of what -symbols names.

1. What is read here is hostile, and a line is a convenience: broken DWARF has none, and never ends a run.
2. pyelftools is imported, and DWARF parsed, for those who have a finding; only the units that hold an address are read.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from typing import Any, Final

from emu import elf
from emu.printable import printable

_MOST_DEBUG_BYTES: Final = 64 << 20
_MOST_LINE_BYTES: Final = 4 << 20  # a line a byte, at worst
_MOST_UNITS: Final = 10_000
_SHF_COMPRESSED: Final = 1 << 11


def lines_of(content: bytes | None, addresses: Iterable[int]) -> Mapping[int, tuple[str, int]]:
    """Return file and line of each address that has them."""
    wanted = set(addresses)
    if not wanted or content is None or not content.startswith(elf.MAGIC):
        return {}
    try:
        return _lines(content, wanted)
    except Exception:  # pyelftools meets a broken file with whatever comes: KeyError, struct.error, AssertionError, its own
        return {}


def _lines(content: bytes, wanted: set[int]) -> dict[int, tuple[str, int]]:
    from elftools.elf.elffile import ELFFile  # noqa: PLC0415 (40 ms)

    file = ELFFile(io.BytesIO(content))
    if not file.has_dwarf_info() or not _is_small(file):
        return {}
    dwarf = file.get_dwarf_info(relocate_dwarf_sections=False, follow_links=False)
    found: dict[int, tuple[str, int]] = {}
    for count, unit in enumerate(dwarf.iter_CUs()):
        if count == _MOST_UNITS or len(found) == len(wanted):
            break
        program = dwarf.line_program_for_CU(unit)
        if program is not None:
            _look(program, wanted, found)
    return found


def _is_small(file: Any) -> bool:
    # Compressed sections are not unpacked: nobody knows how large they get.
    sections = [section for section in file.iter_sections() if section.name.startswith((".debug", ".zdebug"))]
    is_packed = any(section["sh_flags"] & _SHF_COMPRESSED or section.name.startswith(".zdebug") for section in sections)
    lines_bytes = sum(section["sh_size"] for section in sections if section.name == ".debug_line")
    return not is_packed and lines_bytes <= _MOST_LINE_BYTES and sum(section["sh_size"] for section in sections) <= _MOST_DEBUG_BYTES


def _look(program: Any, wanted: set[int], found: dict[int, tuple[str, int]]) -> None:
    before = None
    for entry in program.get_entries():
        state = entry.state
        if state is None:
            continue
        if before is not None:
            for address in wanted:
                if before.address <= address < state.address and address not in found:
                    found[address] = _file(program, before.file), before.line
        before = None if state.end_sequence else state


def _file(program: Any, number: int) -> str:
    header = program.header
    starts_at_0 = header["version"] >= 5
    entry = header["file_entry"][number if starts_at_0 else number - 1]
    folder = entry.dir_index
    name = printable(entry.name)
    folders = header["include_directory"]
    if starts_at_0:
        return f"{printable(folders[folder])}/{name}" if folder else name
    return f"{printable(folders[folder - 1])}/{name}" if folder else name
