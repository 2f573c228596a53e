"""Names for guest addresses: from the ELF the user loaded, the Image's own kallsyms, or a file that lists a kernel's symbols.

1. Whatever is read here is hostile, and names are a convenience: a broken table names nothing, and never ends a run.
2. Nothing is parsed, nor pyelftools imported (40 ms), before the first address is asked for.
3. A Linux Image runs at two addresses: where it was loaded, with the MMU off, and where it maps itself, which under KASLR nobody knows
   beforehand. The latter is read from guest memory whenever it is needed (`emu/kallsyms.py`).

pyelftools finds an ELF's table; its entries, a hundred thousand in a kernel, are unpacked in one go (ten times as fast).
"""

from __future__ import annotations

import os
import re
import struct
from bisect import bisect_right
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Final, NamedTuple

from emu import elf, kallsyms
from emu.loader import MAX_ELF_BYTES, read_file

if TYPE_CHECKING:
    pass

_SYMBOL: Final = struct.Struct("<IBBHQQ")
_FUNC_OR_NOTYPE: Final = (2, 0)
_SHN_UNDEF: Final = 0
_SHN_LORESERVE: Final = 0xFF00
_SHT_SYMTAB: Final = "SHT_SYMTAB"

# AAELF64: $x and $d mark code and data inside a function, and are no names for it.
_MAPPING: Final = re.compile(rb"\$[xd](?:\..*)?", re.DOTALL)
_LONGEST_NAME: Final = 256

# A line of System.map or /proc/kallsyms, as nm spells it: address, type, name, and there the module it is in.
_LISTED: Final = re.compile(rb"^([0-9a-fA-F]{1,16}) ([A-Za-z?]) ([^\s]{1,%d})(?:[ \t]+\[[^\s]*\])?[ \t]*\r?$" % _LONGEST_NAME, re.MULTILINE)
_NO_ADDRESS: Final = b"AaNUvw?"  # absolute, debugging, undefined
_TEXT: Final = b"TtWi"
# What the linker script defines beside a function of the same address.
_LINKER_SCRIPT: Final = re.compile(
    rb"_?_(?:start|stop|s?(?:init)?text).*|_?_[a-z]+text_(?:start|end)|_(?:stext|etext|text|head|sinittext|einittext)"
)
_LAST_BYTES: Final = 0x1_0000
# Where a kernel's Image begins.
_IMAGE_START: Final = ("_text", "_head")


class Image(NamedTuple):
    """A Linux Image as it was loaded; memory(address, size_bytes) reads guest physical memory, None where there is none."""

    content: bytes
    load_address: int
    size_bytes: int
    memory: Callable[[int, int], bytes | None]


class Symbols:
    """The function and label names of what the guest runs, or no names at all.

    file   an AArch64 ELF, a System.map or a copy of /proc/kallsyms
    image  the Linux Image that runs; its own names are used where there is no file
    """

    def __init__(self, file: bytes | None = None, image: Image | None = None) -> None:
        self._file = file
        self._image = image

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], image: Image | None = None) -> Symbols:
        """Take the names from a file of the user's, or raise InputError if it can hold none."""
        file = read_file(path, MAX_ELF_BYTES)
        _check(file)
        return cls(file.content, image)

    def resolve(self, address: int) -> str | None:
        """Spell an address as "symbol" or "symbol+0x10"; None where no symbol covers it.

        A symbol with a size covers that much; one without reaches to the next symbol, at most to the end of its section.
        """
        found = self._find(address)
        if found is None:
            return None
        name, distance = found
        return f"{name}+{distance:#x}" if distance else name

    def _find(self, address: int) -> tuple[str, int] | None:
        if self._image is None:
            return self._table.find(address)
        offset = self._offset_into_image(self._image, address)
        if self._file is None:
            return self._kallsyms.find(offset) if self._kallsyms and offset is not None else None
        start = self._table.image_start
        return self._table.find(address if offset is None or start is None else start + offset)

    def _offset_into_image(self, image: Image, address: int) -> int | None:
        starts = [image.load_address]
        if self._kallsyms is not None:
            base = image.memory(image.load_address + self._kallsyms.base_at, 8)
            starts.append(int.from_bytes(base or b"", "little") - self._kallsyms.base_offset)
        return next((address - start for start in starts if 0 <= address - start < image.size_bytes), None)

    @cached_property
    def _kallsyms(self) -> kallsyms.Kallsyms | None:
        return kallsyms.read(self._image.content) if self._image else None

    @cached_property
    def _table(self) -> _Table:
        if not self._file:
            return _Table([])
        return _Table(_from_elf(self._file) if self._file.startswith(elf.MAGIC) else _from_list(self._file))


class _Symbol(NamedTuple):
    start: int
    end: int
    name: str


class _Table:
    """Symbols by address."""

    def __init__(self, symbols: list[_Symbol]) -> None:
        self._symbols = symbols
        self._starts = [symbol.start for symbol in symbols]

    def find(self, address: int) -> tuple[str, int] | None:
        index = bisect_right(self._starts, address) - 1
        if index < 0 or address >= self._symbols[index].end:
            return None
        return self._symbols[index].name, address - self._symbols[index].start
