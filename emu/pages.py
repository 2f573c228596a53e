"""Guest memory page by page: which pages the guest can have touched, and which of them are not as at power-on."""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from emu.loader import Segment
from emu.memory import PAGE_BYTES

_PAGEMAP: Final = "/proc/self/pagemap"
_ENTRY_BYTES: Final = 8
_PRESENT_OR_SWAPPED: Final = 0xC0  # bits 63 and 62, in the entry's last byte (Linux Documentation/admin-guide/mm/pagemap.rst)
_ENTRIES_AT_ONCE: Final = 1 << 16
ZERO_PAGE: Final = bytes(PAGE_BYTES)


def touched(buffer: mmap.mmap) -> Iterator[int]:
    """Yield the offset of every page that may hold something; all of them where the host does not tell."""
    if not sys.platform.startswith("linux"):
        yield from range(0, len(buffer), PAGE_BYTES)
        return
    first = ctypes.addressof(ctypes.c_char.from_buffer(buffer)) // PAGE_BYTES
    pages = len(buffer) // PAGE_BYTES
    try:
        with open(_PAGEMAP, "rb", buffering=0) as pagemap:
            for start in range(0, pages, _ENTRIES_AT_ONCE):
                pagemap.seek((first + start) * _ENTRY_BYTES)
                flags = pagemap.read(min(_ENTRIES_AT_ONCE, pages - start) * _ENTRY_BYTES)[_ENTRY_BYTES - 1 :: _ENTRY_BYTES]
                if any(flags):
                    yield from ((start + index) * PAGE_BYTES for index, flag in enumerate(flags) if flag & _PRESENT_OR_SWAPPED)
    except OSError:
        yield from range(0, len(buffer), PAGE_BYTES)


def at_power_on(segments: Sequence[Segment], address: int) -> bytes:
    """Return a page as the loader leaves it."""
    page = bytearray()
    for segment in segments:
        start, end = max(address, segment.address), min(address + PAGE_BYTES, segment.address + len(segment.content))
        if start < end:
            content = segment.content[start - segment.address : end - segment.address]
            if len(content) == PAGE_BYTES:
                return content
            page = page or bytearray(PAGE_BYTES)
            page[start - address : end - address] = content
    return bytes(page) if page else ZERO_PAGE


def changed(content: Iterable[tuple[int, bytes]], segments: Sequence[Segment]) -> dict[int, bytes]:
    """Return every page that is not as at power-on, by guest physical address; `content` is all that may hold something."""
    return {address: page for address, page in content if page != at_power_on(segments, address)}
