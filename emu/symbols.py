"""Names for guest addresses, from the symbol table of the ELF the user loaded.

The ELF is hostile and its symbols are a convenience: a broken table names nothing, and never ends a run.
pyelftools finds the table; its entries, a hundred thousand in a kernel, are unpacked in one go (ten times as fast).
Nothing is parsed, nor pyelftools imported (40 ms), before the first address is asked for.
"""

from __future__ import annotations

import io
import re
import struct
from bisect import bisect_right
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from elftools.elf.elffile import ELFFile

_SYMBOL: Final = struct.Struct("<IBBHQQ")
_FUNC_OR_NOTYPE: Final = (2, 0)
_SHN_UNDEF: Final = 0
_SHN_LORESERVE: Final = 0xFF00
_SHT_SYMTAB: Final = "SHT_SYMTAB"

# AAELF64: $x and $d mark code and data inside a function, and are no names for it.
_MAPPING: Final = re.compile(rb"\$[xd](?:\..*)?", re.DOTALL)
_LONGEST_NAME: Final = 256


class _Symbol(NamedTuple):
    start: int
    end: int
    name: str


class Symbols:
    """The function and label names of one AArch64 ELF, or no names at all."""

    def __init__(self, elf: bytes | None = None) -> None:
        self._elf = elf

    def resolve(self, address: int) -> str | None:
        """Spell an address as "symbol" or "symbol+0x10"; None where no symbol covers it.

        A symbol with a size covers that much; one without reaches to the next symbol, at most to the end of its section.
        """
        symbols, starts = self._table
        index = bisect_right(starts, address) - 1
        if index < 0 or address >= symbols[index].end:
            return None
        symbol = symbols[index]
        return symbol.name if address == symbol.start else f"{symbol.name}+{address - symbol.start:#x}"

    @cached_property
    def _table(self) -> tuple[list[_Symbol], list[int]]:
        symbols = _read(self._elf) if self._elf else []
        return symbols, [symbol.start for symbol in symbols]


def _read(content: bytes) -> list[_Symbol]:
    from elftools.common.exceptions import ELFError  # noqa: PLC0415 (40 ms)
    from elftools.elf.elffile import ELFFile  # noqa: PLC0415

    try:
        elf = ELFFile(io.BytesIO(content))
        if elf.elfclass != 64 or not elf.little_endian:
            return []
        sections = _sections(elf, len(content))
    except ELFError:
        return []
    for section in sections:
        if section["sh_type"] == _SHT_SYMTAB and section["sh_entsize"] == _SYMBOL.size and section["sh_link"] < len(sections):
            return _symbols(_bytes_of(section, content), _bytes_of(sections[section["sh_link"]], content), sections)
    return []


def _sections(elf: ELFFile, size_bytes: int) -> list[Any]:
    # Section headers one by one: ELFFile.iter_sections() also parses what each section holds, which here nobody has checked.
    from elftools.common.utils import struct_parse  # noqa: PLC0415

    header = elf.structs.Elf_Shdr
    start, count = elf["e_shoff"], elf["e_shnum"]
    if elf["e_shentsize"] != header.sizeof() or start + count * header.sizeof() > size_bytes:
        return []
    return [struct_parse(header, elf.stream, start + index * header.sizeof()) for index in range(count)]


def _bytes_of(section: Any, content: bytes) -> bytes:
    start, size_bytes = section["sh_offset"], section["sh_size"]
    return content[start : start + size_bytes] if start + size_bytes <= len(content) else b""


def _symbols(table: bytes, strings: bytes, sections: list[Any]) -> list[_Symbol]:
    found = []
    whole = len(table) - len(table) % _SYMBOL.size
    for name_at, info, _other, shndx, value, size_bytes in _SYMBOL.iter_unpack(memoryview(table)[:whole]):
        if info & 0xF not in _FUNC_OR_NOTYPE or shndx == _SHN_UNDEF or shndx >= min(_SHN_LORESERVE, len(sections)):
            continue
        name = strings[name_at : name_at + _LONGEST_NAME].partition(b"\0")[0]
        if not name or _MAPPING.fullmatch(name):
            continue
        section_end = sections[shndx]["sh_addr"] + sections[shndx]["sh_size"]
        # Where several names share an address: a function before a label, a global before a local, then by name.
        rank = (info & 0xF != _FUNC_OR_NOTYPE[0], info >> 4 == 0, name)
        found.append((value, rank, size_bytes, section_end, name))
    found.sort()

    symbols: list[_Symbol] = []
    for value, _rank, size_bytes, section_end, name in found:
        if symbols and symbols[-1].start == value:
            continue
        end = value + size_bytes if size_bytes else section_end
        # A name is printed on a terminal: whatever is not plain text is escaped.
        text = name.decode("utf-8", "backslashreplace")
        symbols.append(_Symbol(value, end, text if text.isprintable() else ascii(text)[1:-1]))
    return symbols
