"""The machine's physical map as data: QEMU `virt`'s addresses for the parts we have."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from firmware.errors import UserError

KiB: Final = 1 << 10
MiB: Final = 1 << 20
GiB: Final = 1 << 30

PAGE_BYTES: Final = 4 * KiB


@dataclass(frozen=True, slots=True, order=True)
class Region:
    """A range of guest physical addresses."""

    base: int
    size_bytes: int

    @property
    def end(self) -> int:
        """Give the first address after the region."""
        return self.base + self.size_bytes

    def contains(self, address: int, size_bytes: int = 1) -> bool:
        """Tell whether every byte of [address, address + size_bytes) is inside."""
        return self.base <= address and address + size_bytes <= self.end

    def overlaps(self, other: Region) -> bool:
        """Tell whether the two share a byte; an empty region shares none."""
        return max(self.base, other.base) < min(self.end, other.end)

    def __str__(self) -> str:
        return f"{self.base:#x}-{self.end - 1:#x}" if self.size_bytes else f"{self.base:#x}, empty"


# Two flash banks in QEMU; here one window that the guest may write, as U-Boot does after starting from it.
FLASH: Final = Region(0x0000_0000, 128 * MiB)
FLASH_BANK_BYTES: Final = 64 * MiB

GICD: Final = Region(0x0800_0000, 0x1_0000)  # distributor
GICC: Final = Region(0x0801_0000, 0x1_0000)  # GICv2 CPU interface
GICR: Final = Region(0x080A_0000, 0x00F6_0000)  # GICv3 redistributors
UART: Final = Region(0x0900_0000, 0x1000)
RTC: Final = Region(0x0901_0000, 0x1000)
PVTIME: Final = Region(0x090A_0000, 0x1_0000)

RAM_BASE: Final = 0x4000_0000
DEFAULT_RAM_BYTES: Final = 128 * MiB
MIN_RAM_BYTES: Final = 1 * MiB
MAX_RAM_BYTES: Final = 255 * GiB


def ram(size_bytes: int = DEFAULT_RAM_BYTES) -> Region:
    """Give the RAM region of a machine with that much memory."""
    return Region(RAM_BASE, size_bytes)


# Lengths are bounded because int() of thousands of digits is refused by Python itself, in other words.
_SIZE: Final = re.compile(r"(?:size=)?(?P<number>[0-9]{1,20}(?:\.[0-9]{1,20})?)(?P<suffix>[bkmgt]?)", re.ASCII | re.IGNORECASE)
_SUFFIX: Final = {"b": 1, "k": KiB, "": MiB, "m": MiB, "g": GiB, "t": 1 << 40}


def parse_size(text: str) -> int:
    """Read `-m SIZE` as QEMU does (a plain number is MiB) and return bytes, or raise UserError."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UserError(f"-m {text!r} is not a size; allowed is a number of MiB, or a number with K, M, G or T, such as 512M or size=1G")
    whole, _, decimals = match["number"].partition(".")
    size: int
    size, rest = divmod(int(whole + decimals) * _SUFFIX[match["suffix"].lower()], 10 ** len(decimals))
    if not MIN_RAM_BYTES <= size <= MAX_RAM_BYTES:
        raise UserError(f"-m {text} is {'below' if size < MIN_RAM_BYTES else 'above'} what is allowed: 1 MiB to 255 GiB of RAM")
    if rest or size % PAGE_BYTES:
        raise UserError(f"-m {text} is not a whole number of 4 KiB pages; allowed is a multiple of 4K")
    return size
