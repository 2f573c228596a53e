"""The symbol table that a Linux Image carries for its own stack traces (CONFIG_KALLSYMS), read from the raw Image.

1. The Image is hostile and has no header for this: the table is recognised by its shape, every step of the search is bounded, and
   what does not fit is no table.
2. Nothing is unpacked that is not asked for: an address is found by bisection, and its name alone is expanded.
3. Where the kernel runs is not in the file but in memory: once it has relocated itself (with KASLR or without) the table's
   relative_base holds the address it counts from. This file only tells where to look.

scripts/kallsyms.c writes, each part aligned to 8 bytes, in one of three orders:

    4.20        offsets, relative_base, num_syms, names, markers, token_table, token_index
    6.2         the same, with seqs_of_names (3 bytes a symbol) after the markers; also in later 6.1.y
    6.4         num_syms, names, markers, token_table, token_index, offsets, relative_base, seqs_of_names

Since Linux commit 73bbb94466fd ("kallsyms: support \"big\" kernel symbols") (in v6.1) a name's length is a ULEB128 of one or two bytes.
"""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple

from emu.printable import printable

# Every digit is in some name and keeps its own code, so these ten tokens stand in a row in every table.
_DIGITS: Final = b"".join(b"%d\0" % digit for digit in range(10))
_TOKENS: Final = 256
_INDEX: Final = struct.Struct(f"<{_TOKENS}H")
_WORD: Final = struct.Struct("<I")
_QUAD: Final = struct.Struct("<Q")
_RELA: Final = struct.Struct("<3Q")
_R_AARCH64_RELATIVE: Final = 0x403
_IMAGE_ALIGNMENT: Final = 1 << 21
_PER_MARKER: Final = 256
_SEQUENCE_BYTES: Final = 3

# Bounds of the search. Today's largest kernels have some 300 000 symbols.
_MOST_CANDIDATES: Final = 16
_MOST_ZEROES: Final = 1 << 8
_MOST_RELOCATIONS: Final = 1 << 12
_MOST_SYMBOLS: Final = 1 << 22
_LONGEST_ENTRY: Final = 0x3FFF + 2
_LONGEST_NAME: Final = 256
# Most kernels list functions only: what lies further behind one is not in it.
_LONGEST_FUNCTION: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Kallsyms:
    """A kernel's own symbol table.

    base_at      where in the Image the kernel keeps the address that its table counts from, once it has relocated itself
    base_offset  how far into the Image that address is
    """

    base_at: int
    base_offset: int
    _offsets: list[int]
    _names: _Names

    def find(self, offset: int) -> tuple[str, int] | None:
        """Return the symbol that covers an offset into the Image, and the distance from it in bytes; None if there is none."""
        offset -= self.base_offset
        last = bisect_right(self._offsets, offset) - 1
        if last < 0 or offset - self._offsets[last] >= _LONGEST_FUNCTION:
            return None
        # Of several names for one address the kernel's own choice, the first.
        start = self._offsets[last]
        name = self._names.expand(bisect_left(self._offsets, start))
        return None if name is None else (name, offset - start)


def read(image: bytes) -> Kallsyms | None:
    """Find the table in a raw Image; None if there is none this file knows."""
    at = -1
    for _ in range(_MOST_CANDIDATES):
        at = image.find(_DIGITS, at + 1)
        if at < 0:
            return None
        tokens = _tokens(image, at)
        names = _names(image, tokens) if tokens else None
        table = _table(image, tokens, names) if tokens and names else None
        if table is not None:
            return table
    return None


class _Tokens(NamedTuple):
    start: int
    end: int  # of the index behind the table
    texts: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class _Names:
    """The compressed names: num_syms stands 8 bytes before them."""

    image: bytes
    start: int
    count: int
    markers: tuple[int, ...]
    tokens: tuple[bytes, ...]

    def entry(self, place: int) -> tuple[int, int]:
        # Where an entry's tokens begin and end.
        length, place = self.image[place], place + 1
        if length & 0x80:
            length, place = length & 0x7F | self.image[place] << 7, place + 1
        return place, place + length

    def has_whole_first_block(self) -> bool:
        place = self.start
        try:
            for _ in range(_PER_MARKER):
                _, place = self.entry(place)
        except IndexError:
            return False
        return place == self.start + self.markers[1]

    def expand(self, index: int) -> str | None:
        try:
            place = self.start + self.markers[index // _PER_MARKER]
            for _ in range(index % _PER_MARKER):
                _, place = self.entry(place)
            begin, end = self.entry(place)
        except IndexError:
            return None
        # The first character is the symbol's type, as nm spells it.
        text = b"".join(self.tokens[code] for code in self.image[begin : min(end, begin + _LONGEST_NAME)])[1 : _LONGEST_NAME + 1]
        return printable(text) or None


def _align(place: int) -> int:
    return place + 7 & ~7


def _word(image: bytes, place: int) -> int:
    # Beyond the file there is nothing that would fit.
    return _WORD.unpack_from(image, place)[0] if 0 <= place <= len(image) - _WORD.size else -1


def _tokens(image: bytes, digits_at: int) -> _Tokens | None:
    # The table is 256 strings, and the index says where each begins.
    end = digits_at
    for _ in range(ord("0"), _TOKENS):
        end = image.find(b"\0", end, end + _LONGEST_NAME) + 1
        if not end:
            return None
    index_at = _align(end)
    if index_at + _INDEX.size > len(image):
        return None
    index = _INDEX.unpack_from(image, index_at)
    start = digits_at - index[ord("0")]
    if start < 0 or start % 8:
        return None
    texts = tuple(image[start:end].split(b"\0")[:-1])
    place = 0
    for text, says in zip(texts, index, strict=False):
        if says != place:
            return None
        place += len(text) + 1
    return _Tokens(start, index_at + _INDEX.size, texts) if len(texts) == _TOKENS else None


def _names(image: bytes, tokens: _Tokens) -> _Names | None:
    # The first marker is 0: look at every zero word before the tokens as one.
    end = tokens.start
    for _ in range(_MOST_ZEROES):
        found = image.rfind(bytes(4), 0, end)
        if found < 0:
            return None
        markers_at = found & ~7
        end = markers_at + 3
        if not 2 * _PER_MARKER <= _word(image, markers_at + 4) <= _LONGEST_ENTRY * _PER_MARKER:
            continue
        for count, fewest in _counts(tokens.start - markers_at):
            names = _names_before(image, markers_at, count, fewest, tokens)
            if names is not None:
                return names
    return None


def _counts(distance: int) -> list[tuple[int, int]]:
    # From the first marker to the tokens: how many markers that may be, and the fewest symbols then.
    without = [(count, (count - 1) * _PER_MARKER + 1) for count in (distance // 4, distance // 4 - 1)]
    most = distance // (4 + _PER_MARKER * _SEQUENCE_BYTES) + 2
    with_sequences = [
        (count, (distance - _align(4 * count) - 7) // _SEQUENCE_BYTES)
        for count in range(max(1, most - 2), most + 1)
        if 4 * count < distance
    ]
    return [(count, fewest) for count, fewest in (*with_sequences, *without) if 1 < count <= _MOST_SYMBOLS // _PER_MARKER]


def _names_before(image: bytes, markers_at: int, count: int, fewest: int, tokens: _Tokens) -> _Names | None:
    if markers_at + 4 * count > len(image):
        return None
    markers = struct.unpack_from(f"<{count}I", image, markers_at)
    if any(not 2 * _PER_MARKER <= after - before <= _LONGEST_ENTRY * _PER_MARKER for before, after in pairwise(markers)):
        return None
    # num_syms in front of the names: its upper three bytes follow from the number of markers, and padding follows it.
    latest = markers_at - markers[-1] & ~7
    earliest = max(latest - _LONGEST_ENTRY * _PER_MARKER, 0)
    for upper in (count - 1, count):
        end = latest
        for _ in range(_MOST_CANDIDATES):
            found = image.rfind(_WORD.pack(upper * _PER_MARKER)[1:] + bytes(4), earliest, end)
            if found < 0:
                break
            start, end = found + 7, found + 6
            symbols = _word(image, start - 8)
            if start % 8 or not max(fewest, (count - 1) * _PER_MARKER + 1) <= symbols <= count * _PER_MARKER:
                continue
            names = _Names(image, start, symbols, markers, tokens.texts)
            if names.has_whole_first_block():
                return names
    return None


def _table(image: bytes, tokens: _Tokens, names: _Names) -> Kallsyms | None:
    size_bytes = _align(4 * names.count)
    before = names.start - 16  # num_syms, and relative_base before it
    for offsets_at, base_at in ((tokens.end, tokens.end + size_bytes), (before - size_bytes, before)):
        if offsets_at < 0 or base_at + 8 > len(image):
            continue
        offsets = list(struct.unpack_from(f"<{names.count}I", image, offsets_at))
        if offsets == sorted(offsets) and offsets[0] < offsets[-1] < len(image):
            base = _linked_base(image, base_at)
            return None if base is None else Kallsyms(base_at, base % _IMAGE_ALIGNMENT, offsets, names)
    return None


def _linked_base(image: bytes, base_at: int) -> int | None:
    # What relative_base holds as linked. An Image that relocates itself has 0 there and the address in a relocation (Elf64_Rela: r_offset,
    # r_info, r_addend), whose r_offset is the word's own address. Kernels are linked at multiples of 16 MiB: its lower bytes are known.
    (base,) = _QUAD.unpack_from(image, base_at)
    if base:
        return int(base)
    at = base_at
    for _ in range(_MOST_RELOCATIONS):
        at = image.find(_QUAD.pack(base_at)[:3], at + 8)
        if at < 0 or at + _RELA.size > len(image):
            return None
        place, kind, addend = _RELA.unpack_from(image, at)
        if kind == _R_AARCH64_RELATIVE and place >> 47 and 0 <= addend - (place - base_at) < _IMAGE_ALIGNMENT:
            return int(addend)
    return None
