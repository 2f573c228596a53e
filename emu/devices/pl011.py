"""A PL011 UART as plain state, in both directions (Arm DDI 0183, PrimeCell UART PL011; behaviour as QEMU's `pl011`).

1. It knows neither Unicorn nor the machine: the machine calls `read` and `write`, drains `tx`, feeds what the user typed,
   and connects `irq` to whatever it has.
2. Its fields are its whole state, so that a snapshot is a copy of them.

Where QEMU is laxer than the manual, so are we, because guests rely on it: a byte is sent although nobody enabled the UART,
and one received character raises the receive interrupt whatever IFLS says (there is no receive timeout).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

DR: Final = 0x000
RSR_ECR: Final = 0x004
FR: Final = 0x018
ILPR: Final = 0x020
IBRD: Final = 0x024
FBRD: Final = 0x028
LCR_H: Final = 0x02C
CR: Final = 0x030
IFLS: Final = 0x034
IMSC: Final = 0x038
RIS: Final = 0x03C
MIS: Final = 0x040
ICR: Final = 0x044
DMACR: Final = 0x048

FR_RXFE: Final = 1 << 4
FR_RXFF: Final = 1 << 6
FR_TXFE: Final = 1 << 7
FR_IDLE: Final = FR_TXFE | FR_RXFE
LCR_H_FEN: Final = 1 << 4
INT_RX: Final = 1 << 4
INT_TX: Final = 1 << 5

FIFO_DEPTH: Final = 16

# UARTPeriphID0-3 and UARTPCellID0-3: the AMBA bus matches its driver by these.
_ID_BASE: Final = 0xFE0
_ID: Final = (0x11, 0x10, 0x14, 0x00, 0x0D, 0xF0, 0x05, 0xB1)

# Registers that only keep what was written: field and implemented bits.
_KEPT: Final = {
    ILPR: ("ilpr", 0xFF),
    IBRD: ("ibrd", 0xFFFF),
    FBRD: ("fbrd", 0x3F),
    LCR_H: ("lcr_h", 0xFF),
    CR: ("cr", 0xFFFF),
    IFLS: ("ifls", 0x3F),
    IMSC: ("imsc", 0x7FF),
    DMACR: ("dmacr", 0x7),
}


@dataclass(slots=True)
class Pl011:
    """One UART; a new one is in its reset state."""

    rx: bytearray = field(default_factory=bytearray)
    tx: bytearray = field(default_factory=bytearray)
    ilpr: int = 0
    ibrd: int = 0
    fbrd: int = 0
    lcr_h: int = 0
    cr: int = 0x300
    ifls: int = 0x12
    imsc: int = 0
    ris: int = 0
    dmacr: int = 0

    def copy(self) -> Pl011:
        """Return another one like it."""
        kept = (self.ilpr, self.ibrd, self.fbrd, self.lcr_h, self.cr, self.ifls, self.imsc, self.ris, self.dmacr)
        return Pl011(bytearray(self.rx), bytearray(self.tx), *kept)

    @property
    def irq(self) -> bool:
        """Give the level of the combined interrupt output, UARTINTR."""
        return self.ris & self.imsc != 0

    @property
    def depth(self) -> int:
        """Give how many characters the receiver holds: a FIFO, or one holding register while LCR_H.FEN is clear."""
        return FIFO_DEPTH if self.lcr_h & LCR_H_FEN else 1

    def feed(self, characters: bytes) -> int:
        """Receive what fits and return how many characters that were; the sender keeps the rest."""
        accepted = characters[: max(0, self.depth - len(self.rx))]
        if accepted and not self.rx:
            self.ris |= INT_RX
        self.rx += accepted
        return len(accepted)

    def send(self, text: bytes) -> None:
        """Send characters as writes of DR do."""
        self.tx += text
        # The transmitter is never busy, so its FIFO falls to the trigger level at once.
        self.ris |= INT_TX

    def drain(self) -> bytes:
        """Take what the guest has sent since the last call."""
        sent = bytes(self.tx)
        self.tx.clear()
        return sent

    def read(self, offset: int, size_bytes: int) -> int:
        """Read 1, 2 or 4 bytes; unknown offsets read 0."""
        if offset == FR:  # before every character, and again
            return (FR_TXFE if self.rx else FR_IDLE) | (FR_RXFF if self.rx and len(self.rx) >= self.depth else 0)
        lane = offset & 3
        register = self._read(offset & ~3, consume=lane == 0)
        return register >> 8 * lane & (1 << 8 * size_bytes) - 1

    def write(self, offset: int, size_bytes: int, value: int) -> None:
        """Write 1, 2 or 4 bytes; unknown and read-only offsets, and a register's upper byte lanes alone, ignore it."""
        value &= (1 << 8 * size_bytes) - 1
        if offset == DR:
            self.send(bytes((value & 0xFF,)))
        elif offset == ICR:
            self.ris &= ~value
        elif offset in _KEPT:
            name, implemented = _KEPT[offset]
            if offset == LCR_H and (self.lcr_h ^ value) & LCR_H_FEN:
                self.rx.clear()
            setattr(self, name, value & implemented)

    def _read(self, register: int, *, consume: bool) -> int:
        if register == DR:
            return self._receive() if consume else 0
        if register == FR:
            return self.read(FR, 4)
        if register == RIS:
            return self.ris
        if register == MIS:
            return self.ris & self.imsc
        if register in _KEPT:
            return int(getattr(self, _KEPT[register][0]))
        if register >= _ID_BASE and register < _ID_BASE + 4 * len(_ID):
            return _ID[(register - _ID_BASE) // 4]
        # RSR/ECR too: no framing, parity, break or overrun error ever happens here.
        return 0

    def _receive(self) -> int:
        if not self.rx:
            return 0
        character = self.rx.pop(0)
        if not self.rx:
            self.ris &= ~INT_RX
        return character
