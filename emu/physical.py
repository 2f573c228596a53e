"""Guest physical memory as the host holds it: RAM and what else is backed by bytes."""

from __future__ import annotations

import mmap
from collections.abc import Iterable

from emu.memory import MiB, Region


class PhysicalMemory:
    """The mapped regions and their buffers; a write here is not seen by translated code until that is flushed."""

    def __init__(self, regions: Iterable[tuple[Region, mmap.mmap]]) -> None:
        self._regions = tuple(regions)

    @property
    def buffers(self) -> tuple[tuple[int, mmap.mmap], ...]:
        """Each region's first guest physical address and its bytes."""
        return tuple((region.base, buffer) for region, buffer in self._regions)

    def write(self, address: int, content: bytes) -> None:
        """Write; where there is no memory nothing is written, as on a bus."""
        for region, buffer in self._regions:
            if region.contains(address, len(content)):
                buffer[address - region.base : address - region.base + len(content)] = content

    def read(self, address: int, size_bytes: int) -> bytes | None:
        """Return the bytes, or None where there is no memory."""
        for region, buffer in self._regions:
            if region.contains(address, size_bytes):
                return buffer[address - region.base : address - region.base + size_bytes]
        return None

    def zero(self, address: int, size_bytes: int) -> None:
        for start in range(address, address + size_bytes, MiB):
            self.write(start, bytes(min(MiB, address + size_bytes - start)))
