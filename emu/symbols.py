"""Names for guest addresses: from the ELF the user loaded, the Image's own kallsyms, or a file that lists a kernel's symbols.

1. Whatever is read here is hostile, and names are a convenience: a broken table names nothing, and never ends a run.
2. Nothing is parsed, nor pyelftools imported (40 ms), before the first address is asked for.
3. A Linux Image runs at two addresses: where it was loaded, with the MMU off, and where it maps itself, which under KASLR nobody knows
   beforehand. The latter is read from guest memory whenever it is needed (`emu/kallsyms.py`).

pyelftools finds an ELF's table; its entries, a hundred thousand in a kernel, are unpacked in one go (ten times as fast).
"""

from __future__ import annotations

import io
import itertools
import os
import re
import struct
from bisect import bisect_right
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from emu import elf
from emu.loader import MAX_ELF_BYTES, File, Stored, read_file
from emu.printable import printable
from firmware.errors import InputError

if TYPE_CHECKING:
    from elftools.elf.elffile import ELFFile

    from emu.kallsyms import Kallsyms

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
_NO_ADDRESS: Final = frozenset(b"AaNUvw?")  # absolute, debugging, undefined
_WEAK: Final = frozenset(b"WV")
# Linux: arch/arm64/kernel/smccc-call.S and the functions around it in drivers/firmware/psci/psci.c.
_CONDUIT_STUB: Final = re.compile(r"(?:__arm_smccc|__invoke_psci_fn)_(?:hvc|smc)(?![^+])")
_FRAME: Final = struct.Struct("<QQ")
_MOST_FRAMES: Final = 4
_LAST_BYTES: Final = 0x1_0000  # how far the last listed symbol reaches
_GLANCE: Final = 1000
_KERNEL_HALF: Final = 63  # a kernel's addresses have this bit
# Where a kernel's Image begins.
_IMAGE_START: Final = ("_text", "_head")


class Image(NamedTuple):
    """A Linux Image as it was loaded; memory(address, size_bytes) reads guest physical memory, None where there is none."""

    content: bytes | Stored
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

    def read(self) -> None:
        """Read the names now rather than when they are first asked for: whoever forks has them once."""
        self.resolve(0)

    def caller(self, pc: int, lr: int, fp: int, read: Callable[[int, int], bytes | None]) -> int:
        """Return where a call comes from: pc, or what called it where that is a function that does nothing but make calls.

        read(address, size_bytes) reads the caller's memory, for its frame records (AAPCS64: the caller's x29, then x30).
        """
        places = [pc, lr]
        for _ in range(_MOST_FRAMES):
            frame = read(fp, 16)
            if frame is None:
                break
            fp, lr = _FRAME.unpack(frame)
            places.append(lr)
        for place in places:
            name = self.resolve(place)
            if name is None:
                break
            if not _CONDUIT_STUB.match(name):
                return place
        return pc

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
            base = int.from_bytes(image.memory(image.load_address + self._kallsyms.base_at, 8) or b"", "little")
            if base >> _KERNEL_HALF:
                starts.append(base - self._kallsyms.base_offset)
        return next((address - start for start in starts if 0 <= address - start < image.size_bytes), None)

    @cached_property
    def _kallsyms(self) -> Kallsyms | None:
        from emu import kallsyms  # noqa: PLC0415  for those who ask

        try:
            return kallsyms.read(bytes(self._image.content)) if self._image else None
        except InputError:  # somebody has built the kernel again meanwhile
            return None

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

    @cached_property
    def image_start(self) -> int | None:
        """Where a kernel's Image begins, as linked; None if this is no kernel."""
        return next((symbol.start for symbol in self._symbols if symbol.name in _IMAGE_START), None)

    def find(self, address: int) -> tuple[str, int] | None:
        index = bisect_right(self._starts, address) - 1
        if index < 0 or address >= self._symbols[index].end:
            return None
        return self._symbols[index].name, address - self._symbols[index].start


# ---- lists


def _check(file: File) -> None:
    # Only what a glance shows: the names themselves are read when they are needed.
    if file.content.startswith(elf.MAGIC):
        elf.executable(file.name, file.content)
        if _symbol_table(file.content) is None:
            raise InputError(f"{file.name} is an ELF without a symbol table; allowed is one that is not stripped")
        return
    first = _LISTED.match(file.content)
    if first is None:
        raise InputError(
            f"{file.name} lists no symbols; allowed are an AArch64 ELF, System.map (`address type name` a line) and /proc/kallsyms"
        )
    if not any(int(match[1], 16) for match in itertools.islice(_LISTED.finditer(file.content), _GLANCE)):
        raise InputError(f"{file.name} has 0 for every address; allowed is a copy of /proc/kallsyms that root has made")


def _from_list(content: bytes) -> list[_Symbol]:
    found = []
    for order, (address, kind, name) in enumerate(_LISTED.findall(content)):
        if kind[0] not in _NO_ADDRESS and not _MAPPING.fullmatch(name):
            # Where several names share an address, as the kernel chooses: a weak one last, then by leading underscores, then as listed.
            found.append((int(address, 16), kind[0] in _WEAK, len(name) - len(name.lstrip(b"_")), order, name))
    found.sort()
    starts = sorted({address for address, *_ in found})
    ends = dict(zip(starts, [*starts[1:], starts[-1] + _LAST_BYTES] if starts else [], strict=True))
    symbols: list[_Symbol] = []
    for address, _weak, _underscores, _order, name in found:
        if not symbols or symbols[-1].start != address:
            symbols.append(_Symbol(address, ends[address], printable(name)))
    return symbols


# ---- ELF


def _from_elf(content: bytes) -> list[_Symbol]:
    found = _symbol_table(content)
    if found is None:
        return []
    table, sections = found
    return _symbols(_bytes_of(table, content), _bytes_of(sections[table["sh_link"]], content), sections)


def _symbol_table(content: bytes) -> tuple[Any, list[Any]] | None:
    from elftools.common.exceptions import ELFError  # noqa: PLC0415 (40 ms)
    from elftools.elf.elffile import ELFFile  # noqa: PLC0415

    try:
        file = ELFFile(io.BytesIO(content))
        sections = _sections(file, len(content)) if file.elfclass == 64 and file.little_endian else []
    except ELFError:
        return None
    for section in sections:
        if section["sh_type"] == _SHT_SYMTAB and section["sh_entsize"] == _SYMBOL.size and section["sh_link"] < len(sections):
            return section, sections
    return None


def _sections(file: ELFFile, size_bytes: int) -> list[Any]:
    # Section headers one by one: ELFFile.iter_sections() also parses what each section holds, which here nobody has checked.
    from elftools.common.utils import struct_parse  # noqa: PLC0415

    header = file.structs.Elf_Shdr
    start, count = file["e_shoff"], file["e_shnum"]
    if file["e_shentsize"] != header.sizeof() or start + count * header.sizeof() > size_bytes:
        return []
    return [struct_parse(header, file.stream, start + index * header.sizeof()) for index in range(count)]


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
        symbols.append(_Symbol(value, end, printable(name)))
    return symbols
