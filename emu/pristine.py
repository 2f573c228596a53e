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
from typing import Any, Final

from emu.memory import PAGE_BYTES

_ENTRY_BYTES: Final = 8
_ENTRIES_AT_ONCE: Final = 1 << 16
# An entry's last byte (Linux Documentation/admin-guide/mm/pagemap.rst): bit 63 present, 62 swapped, 61 of a file still.
_PRESENT_OR_SWAPPED: Final = 0xC0
_OF_A_FILE: Final = 0x20

_PROT: Final = mmap.PROT_READ | mmap.PROT_WRITE
_MAP_FIXED: Final = 0x10  # Linux include/uapi/asm-generic/mman-common.h

_memmove: Final = ctypes.PyDLL(None).memmove  # ctypes' own converts at each call what is ready here
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
        self.ranges: tuple[tuple[int, int], ...] = ()  # (address, bytes) of what may have changed at any time

    def restore(self) -> bool:
        """Put everything back; say whether there are other `ranges` than before."""
        differs = _faults() != self._faults and self._look()
        for copy in self._copies:
            _memmove(*copy)
        return differs

    def _look(self) -> bool:
        # Not `any`, which would not look at them all.
        differs = True in [region.look() for region in self._regions]
        if differs:
            ranges = [(region, *run) for region in self._regions for run in region.runs()]
            self._copies = tuple(
                (_pointer(region.address + offset), _pointer(region.copy_address + offset), ctypes.c_size_t.from_param(size_bytes))
                for region, offset, size_bytes in ranges
            )
            self.ranges = tuple((region.base + offset, size_bytes) for region, offset, size_bytes in ranges)
        self._faults = _faults()
        return differs


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

    def look(self) -> bool:
        """Look for pages that have been written; say whether there are other ones than before."""
        first, pages = self.address // PAGE_BYTES, self._bytes // PAGE_BYTES
        known = len(self._dirty)
        for start in range(0, pages, _ENTRIES_AT_ONCE):
            size_bytes = min(_ENTRIES_AT_ONCE, pages - start) * _ENTRY_BYTES
            flags = os.pread(self._pagemap, size_bytes, (first + start) * _ENTRY_BYTES)[_ENTRY_BYTES - 1 :: _ENTRY_BYTES]
            if any(flags):
                self._dirty.update(start + at for at, flag in enumerate(flags) if flag & _PRESENT_OR_SWAPPED and not flag & _OF_A_FILE)
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
