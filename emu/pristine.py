"""Memory that can be put back as it was, at the cost of what was touched and not of what exists.

The region becomes a private mapping of a file that holds it as it was. A page is dirty once it has become private, and stays in the set
from then on: it is copied back each time, and causes no fault any more. The set is looked for again only when this thread had a fault,
since the first write to another page always is one (a measured choice: see README, "Figures").
"""

from __future__ import annotations

import ctypes
import mmap
import os
import resource
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from emu.memory import PAGE_BYTES

_WORD_BYTES: Final = 4
_ENTRY_BYTES: Final = 8
_ENTRIES_AT_ONCE: Final = 1 << 16
# An entry's last byte (Linux Documentation/admin-guide/mm/pagemap.rst): bit 63 present, 62 swapped, 61 of a file still.
_PRESENT_OR_SWAPPED: Final = 0xC0
_OF_A_FILE: Final = 0x20
_IS_DIRTY: Final = bytes(bool(flag & _PRESENT_OR_SWAPPED and not flag & _OF_A_FILE) for flag in range(256))

_PROT: Final = mmap.PROT_READ | mmap.PROT_WRITE
_MAP_FIXED: Final = 0x10  # Linux include/uapi/asm-generic/mman-common.h

_memmove: Final = ctypes.PyDLL(None).memmove  # ctypes' own converts at each call what is ready here
_memcmp: Final = ctypes.PyDLL(None).memcmp
_pointer: Final = ctypes.c_void_p.from_param


class PristineError(Exception):
    """This host cannot tell which pages were written."""


class Pristine:
    """Regions of memory, and what they held when this was made.

    regions  each one's first guest physical address and its memory, whose addresses stay
    pages    content of every page that is not zero, by guest physical address
    Raises PristineError where the host has no memory files, or does not tell about pages.
    """

    def __init__(self, regions: Iterable[tuple[int, mmap.mmap]], pages: Mapping[int, bytes]) -> None:
        self._regions = [_Region(base, buffer, pages) for base, buffer in regions]
        self._copies: tuple[tuple[Any, Any, Any], ...] = ()  # arguments of memmove
        self._faults = -1
        self._differences: dict[int, _Difference] = {}  # by page
        self.ranges: tuple[tuple[int, int], ...] = ()  # (address, bytes) of what may have changed at any time

    def look(self) -> bool:
        """Look for pages that have been written; say whether there are other `ranges` than before."""
        if _faults() == self._faults:
            return False
        # Not `any`, which would not look at them all.
        is_other = True in [region.look() for region in self._regions]
        if is_other:
            ranges = [(region, *run) for region in self._regions for run in region.runs()]
            self._copies = tuple(
                (_pointer(region.address + offset), _pointer(region.copy_address + offset), ctypes.c_size_t.from_param(size_bytes))
                for region, offset, size_bytes in ranges
            )
            self.ranges = tuple((region.base + offset, size_bytes) for region, offset, size_bytes in ranges)
        self._faults = _faults()
        return is_other

    def difference(self, page: int) -> tuple[int, int] | None:
        """Return (address, bytes) of a range with all that is not as it was in a page; None if all is.

        It is sticky, too: it only grows, and is looked for again only where there is a difference beside it.
        """
        known = self._differences.get(page)
        if known is None or _memcmp(*known.before) or _memcmp(*known.behind):
            region = next(region for region in self._regions if region.contains(page))
            known = self._differences[page] = region.difference(page, known)
        return known.range if _memcmp(*known.within) else None

    def restore(self) -> None:
        """Put everything back, as of the last look."""
        for copy in self._copies:
            _memmove(*copy)


class _Difference(NamedTuple):
    """A range of a page, (address, bytes), and memcmp's arguments for the parts of the page."""

    range: tuple[int, int]
    before: tuple[Any, Any, Any]
    within: tuple[Any, Any, Any]
    behind: tuple[Any, Any, Any]


def _differing(now: bytes, then: bytes) -> tuple[int, int]:
    # By halves: from the first word that differs to the last; nothing of a page that does not.
    if now == then:
        return 0, 0
    start, end = 0, len(now)
    while end - start > _WORD_BYTES:
        middle = (start + end) // 2
        if now[start:middle] == then[start:middle]:
            start = middle
        else:
            end = middle
    first, start, end = start, 0, len(now)
    while end - start > _WORD_BYTES:
        middle = (start + end) // 2
        if now[middle:end] == then[middle:end]:
            end = middle
        else:
            start = middle
    return first, end


def _faults() -> int:
    usage = resource.getrusage(resource.RUSAGE_THREAD)
    return usage.ru_minflt + usage.ru_majflt


class _Region:
    """One region, from now on a private mapping of a copy."""

    def __init__(self, base: int, buffer: mmap.mmap, pages: Mapping[int, bytes]) -> None:
        self.base = base
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
        self._bytes = len(buffer)
        try:
            file = os.memfd_create("psci-emu")
            os.ftruncate(file, self._bytes)
            self._copy = mmap.mmap(file, self._bytes)
            self._pagemap = os.open("/proc/self/pagemap", os.O_RDONLY)
        except (AttributeError, OSError) as error:
            raise PristineError(str(error)) from None
        for address, content in pages.items():
            offset = address - base
            if 0 <= offset < self._bytes:
                self._copy[offset : offset + len(content)] = content
        self.copy_address = ctypes.addressof(ctypes.c_char.from_buffer(self._copy))
        self._over(file)
        os.close(file)
        self._dirty: set[int] = set()

    def _over(self, file: int) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
        mapped = libc.mmap(self.address, self._bytes, _PROT, mmap.MAP_PRIVATE | _MAP_FIXED, file, 0)
        if mapped != self.address:
            raise PristineError(os.strerror(ctypes.get_errno()))

    def __del__(self) -> None:
        if hasattr(self, "_pagemap"):
            os.close(self._pagemap)

    def contains(self, address: int) -> bool:
        return self.base <= address < self.base + self._bytes

    def difference(self, page: int, known: _Difference | None) -> _Difference:
        """Return the range of a page that differs, and what was known to."""
        now, then = (start + page - self.base for start in (self.address, self.copy_address))
        first, end = _differing(ctypes.string_at(now, PAGE_BYTES), ctypes.string_at(then, PAGE_BYTES))
        if known is not None and known.range[1]:
            first, end = min(first, known.range[0] - page), max(end, sum(known.range) - page)

        def part(start: int, end: int) -> tuple[Any, Any, Any]:
            return _pointer(now + start), _pointer(then + start), ctypes.c_size_t.from_param(end - start)

        return _Difference((page + first, end - first), part(0, first), part(first, end), part(end, PAGE_BYTES))

    def look(self) -> bool:
        """Look for pages that have been written; say whether there are other ones than before."""
        first, pages = self.address // PAGE_BYTES, self._bytes // PAGE_BYTES
        known = len(self._dirty)
        for start in range(0, pages, _ENTRIES_AT_ONCE):
            size_bytes = min(_ENTRIES_AT_ONCE, pages - start) * _ENTRY_BYTES
            flags = os.pread(self._pagemap, size_bytes, (first + start) * _ENTRY_BYTES)[_ENTRY_BYTES - 1 :: _ENTRY_BYTES]
            dirty = flags.translate(_IS_DIRTY)
            at = dirty.find(1)
            while at >= 0:
                self._dirty.add(start + at)
                at = dirty.find(1, at + 1)
        return len(self._dirty) != known

    def runs(self) -> Iterable[tuple[int, int]]:
        """Yield offset and bytes of each run of pages that have been written."""
        run: list[int] = []
        for page in [*sorted(self._dirty), None]:
            if run and page != run[-1] + 1:
                yield run[0] * PAGE_BYTES, len(run) * PAGE_BYTES
                run = []
            if page is not None:
                run.append(page)
