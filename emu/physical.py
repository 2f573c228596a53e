"""Guest physical memory as the host holds it: RAM and what else is backed by bytes."""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator, Mapping

from emu.loader import Segment
from emu.memory import PAGE_BYTES, MiB, Region
from emu.pages import ZERO_PAGE, touched


class PhysicalMemory:
    """The mapped regions and their buffers; a write here is not seen by translated code until that is flushed."""

    def __init__(self, regions: Iterable[tuple[Region, mmap.mmap]]) -> None:
        self._regions = tuple(regions)
        self._behind: dict[int, frozenset[int]] = {}

    @property
    def buffers(self) -> tuple[tuple[int, mmap.mmap], ...]:
        """Each region's first guest physical address and its bytes."""
        return tuple((region.base, buffer) for region, buffer in self._regions)

    def touched(self) -> Iterator[tuple[int, bytes]]:
        """Yield every page that may hold something, in the order of addresses."""
        for base, buffer in self.buffers:
            offsets = {*touched(buffer), *self._behind.get(base, ())}
            yield from ((base + offset, buffer[offset : offset + PAGE_BYTES]) for offset in sorted(offsets))

    def put_behind(self, base: int, offsets: frozenset[int]) -> None:
        """Remember which pages of a region hold something without having been touched: those of a file that is mapped there."""
        self._behind[base] = offsets

    def content(self) -> dict[int, bytes]:
        """Return every page that is not zero, by guest physical address."""
        return {address: page for address, page in self.touched() if page != ZERO_PAGE}

    def replace(self, pages: Mapping[int, bytes]) -> None:
        """Make these all that is not zero."""
        for address in self.content().keys() - pages.keys():
            self.write(address, ZERO_PAGE)
        for address, page in pages.items():
            self.write(address, page)

    def write(self, address: int, content: bytes) -> None:
        """Write; where there is no memory nothing is written, as on a bus."""
        for region, buffer in self._regions:
            if region.contains(address, len(content)):
                buffer[address - region.base : address - region.base + len(content)] = content

    def load(self, segment: Segment) -> None:
        """Write a segment's content, and zeroes behind it."""
        content = segment.content
        if isinstance(content, bytes):
            self.write(segment.address, content)
        else:
            for region, buffer in self._regions:
                if region.contains(segment.address, len(content)):
                    start = segment.address - region.base
                    with memoryview(buffer) as view, view[start : start + len(content)] as part:
                        content.read_into(part)
        self.zero(segment.address + len(content), segment.size_bytes - len(content))

    def read(self, address: int, size_bytes: int) -> bytes | None:
        """Return the bytes, or None where there is no memory."""
        for region, buffer in self._regions:
            if region.contains(address, size_bytes):
                return buffer[address - region.base : address - region.base + size_bytes]
        return None

    def zero(self, address: int, size_bytes: int) -> None:
        for start in range(address, address + size_bytes, MiB):
            self.write(start, bytes(min(MiB, address + size_bytes - start)))
