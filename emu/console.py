"""The guest's console: a PL011 between the guest and whoever reads and types."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from emu.devices.pl011 import FR_IDLE, INT_TX, Pl011
from emu.teletype import Teletype

# How much of the console a regular expression sees: its end.
_TAIL_BYTES: Final = 1 << 16


def nobody(_limit: int) -> bytes:
    """Type nothing."""
    return b""


class Console:
    """Carry characters in both directions.

    output  takes what the guest prints, as it comes
    typed   gives up to n characters that have been typed, without waiting
    """

    def __init__(self, output: Callable[[bytes], object], typed: Callable[[int], bytes]) -> None:
        self.front = Teletype()
        self.printed_bytes = 0
        self.matched = False
        self._output = output
        self._typed = typed
        self._changes = 0  # of the UART, behind everybody's back
        self.uart = Pl011()
        self._until: re.Pattern[bytes] | None = None
        self._tail = b""
        self._last = b""
        self.kept = b""

    @property
    def uart(self) -> Pl011:
        """The UART as it is, what its front has noted included."""
        text = self.front.take()
        if text:
            self._uart.send(text)
            self._changes += 1
        return self._uart

    @uart.setter
    def uart(self, uart: Pl011) -> None:
        self.front.take()  # which was the other one's
        self._uart = uart
        self.accessed()

    @property
    def changes(self) -> int:
        """How often it was changed without an access that anybody saw."""
        _ = self.uart
        return self._changes

    def accessed(self) -> None:
        """Tell the UART's front what it may do, after an access."""
        uart = self._uart
        self.front.serve(FR_IDLE if self._typed is nobody and not uart.rx else 0, notes=not uart.imsc & INT_TX)

    @property
    def at_line_start(self) -> bool:
        """Whether what comes next stands at the beginning of a line."""
        return not self._last or self._last == b"\n"

    def look_for(self, until: re.Pattern[bytes] | None) -> None:
        """Look for a regular expression in what is printed from now on; None looks for nothing any more."""
        self._until, self.matched, self._tail = until, False, b""

    def read(self, offset: int, size_bytes: int) -> int:
        """Read a register of the UART; what has been typed is there as soon as the guest looks."""
        if not self.uart.rx and self._typed is not nobody:
            self.poll()
        return self.uart.read(offset, size_bytes)

    def poll(self) -> None:
        """Let the UART receive what has been typed, as far as it has room."""
        room = self.uart.depth - len(self.uart.rx)
        if room > 0 and (characters := self._typed(room)):
            self.uart.feed(characters)

    def flush(self) -> None:
        """Hand out what the guest has sent; of what completes a match, only as far as that."""
        if self.uart.tx or (self.kept and not self.matched):
            self._print(self.uart.drain())

    def print(self, text: bytes) -> None:
        """Print past the UART, after what the UART has been given already."""
        self.flush()
        self._print(text)

    def _print(self, text: bytes) -> None:
        # What the guest sent after the match, in the rest of its turn, is printed if the run goes on.
        text, self.kept = self.kept + text, b""
        if self.matched:
            self.kept = text
            return
        if self._until is not None and (match := self._until.search(self._tail + text)) is not None:
            self.matched = True
            end = max(0, match.end() - len(self._tail))
            text, self.kept = text[:end], text[end:]
        self._tail = (self._tail + text)[-_TAIL_BYTES:]
        self._last = text[-1:] or self._last
        self._output(text)
        self.printed_bytes += len(text)

    def reset(self) -> None:
        """Do as a system reset does to the device: what was sent stays sent."""
        self.flush()
        self.uart = Pl011()
