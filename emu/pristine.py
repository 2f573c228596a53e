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
from collections.abc import Iterable
from typing import Final

from emu.memory import PAGE_BYTES

_ENTRY_BYTES: Final = 8
_ENTRIES_AT_ONCE: Final = 1 << 16
# An entry's last byte (Linux Documentation/admin-guide/mm/pagemap.rst): bit 63 present, 62 swapped, 61 of a file still.
_PRESENT_OR_SWAPPED: Final = 0xC0
_OF_A_FILE: Final = 0x20

_PROT: Final = mmap.PROT_READ | mmap.PROT_WRITE
_MAP_FIXED: Final = 0x10  # Linux include/uapi/asm-generic/mman-common.h


class PristineError(Exception):
    """This host cannot tell which pages were written."""


class Pristine:
    """One region of memory, and what it held when this was made.

    buffer  the memory; its addresses stay
    pages   offset and content of every page that is not zero
    Raises PristineError where the host has no memory files, or does not tell about pages.
    """

    def __init__(self, buffer: mmap.mmap, pages: Iterable[tuple[int, bytes]]) -> None:
        self._bytes = len(buffer)
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
        try:
            file = os.memfd_create("psci-emu")
            os.ftruncate(file, self._bytes)
            self._copy = mmap.mmap(file, self._bytes)
            self._pagemap = os.open("/proc/self/pagemap", os.O_RDONLY)
        except (AttributeError, OSError) as error:
            raise PristineError(str(error)) from None
        for offset, content in pages:
            self._copy[offset : offset + len(content)] = content
        self._copy_address = ctypes.addressof(ctypes.c_char.from_buffer(self._copy))
        self._over(file)
        os.close(file)
        self._dirty: set[int] = set()
        self._ranges: tuple[tuple[int, int, int], ...] = ()  # address, address of the copy, bytes
        self._faults = -1

    def _over(self, file: int) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
        mapped = libc.mmap(self._address, self._bytes, _PROT, mmap.MAP_PRIVATE | _MAP_FIXED, file, 0)
        if mapped != self._address:
            raise PristineError(os.strerror(ctypes.get_errno()))

    def __del__(self) -> None:
        if hasattr(self, "_pagemap"):
            os.close(self._pagemap)

    def restore(self) -> tuple[tuple[int, int], ...]:
        """Put everything back; return (offset, bytes) of the ranges that may have changed, known ones included."""
        usage = resource.getrusage(resource.RUSAGE_THREAD)
        faults = usage.ru_minflt + usage.ru_majflt
        if faults != self._faults:
            self._look()
            usage = resource.getrusage(resource.RUSAGE_THREAD)
            self._faults = usage.ru_minflt + usage.ru_majflt
        for to, of, size_bytes in self._ranges:
            ctypes.memmove(to, of, size_bytes)
        return tuple((to - self._address, size_bytes) for to, _, size_bytes in self._ranges)

    def _look(self) -> None:
        first, pages = self._address // PAGE_BYTES, self._bytes // PAGE_BYTES
        known = len(self._dirty)
        for start in range(0, pages, _ENTRIES_AT_ONCE):
            size_bytes = min(_ENTRIES_AT_ONCE, pages - start) * _ENTRY_BYTES
            flags = os.pread(self._pagemap, size_bytes, (first + start) * _ENTRY_BYTES)[_ENTRY_BYTES - 1 :: _ENTRY_BYTES]
            if any(flags):
                self._dirty.update(start + at for at, flag in enumerate(flags) if flag & _PRESENT_OR_SWAPPED and not flag & _OF_A_FILE)
        if len(self._dirty) != known:
            self._ranges = tuple(self._coalesced())

    def _coalesced(self) -> Iterable[tuple[int, int, int]]:
        run: list[int] = []
        for page in [*sorted(self._dirty), None]:
            if run and page != run[-1] + 1:
                offset = run[0] * PAGE_BYTES
                yield self._address + offset, self._copy_address + offset, len(run) * PAGE_BYTES
                run = []
            if page is not None:
                run.append(page)
