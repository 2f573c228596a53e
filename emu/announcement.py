"""What a Linux kernel says of its own end: its panic or Oops, read off the console.

1. Whatever else prints such a line is believed as well; so it ends no run by itself, and only explains how one ended. But a kernel that has
   said its last word is not waited for beyond a moment (emu/limits.py).
2. After a reset the last announcement stands: a kernel that panics, resets and panics again reaches a limit in between.

The lines are those of kernel/panic.c ("Kernel panic - not syncing: %s", "---[ end Kernel panic ...") and arch/arm64/kernel/traps.c
("Internal error: %s [#%d]"), with printk's time stamp and caller before them, or without.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from emu.observer import Observer
from firmware.trap import Event, Reply, Reset

_LONGEST_LINE_BYTES: Final = 512
_LONGEST_TEXT: Final = 200
_ANNOUNCEMENT: Final = re.compile(
    rb"(?:\[ *\d+\.\d+\](?:\[ *[CT]\d+\])? )?(?:"
    rb"(?P<end>---\[ end )?Kernel panic - not syncing(?:: (?P<panic>.*?))?(?: \]---)?|Internal error: (?P<oops>.*?)(?: \[#\d+\].*)?)\r*"
)
_NOT_PRINTABLE: Final = re.compile(r"[^ -~]")


@dataclass(slots=True)
class Announcement(Observer):
    """The last ones.

    line    what has been printed since the last line's end
    is_end  whether the kernel has said that there is nothing more to come
    """

    line: bytes = b""
    panic: str | None = None
    oops: str | None = None
    is_end: bool = False

    def copy(self) -> Announcement:
        """Return another one like it."""
        return Announcement(self.line, self.panic, self.oops, self.is_end)

    def adopt(self, other: Announcement) -> None:
        """Go on from there."""
        self.line, self.panic, self.oops, self.is_end = other.line, other.panic, other.oops, other.is_end

    def console(self, text: bytes) -> None:
        """Read what the guest printed."""
        *lines, last = (self.line + text).split(b"\n")
        self.line = last[:_LONGEST_LINE_BYTES]
        for line in lines:
            # Nearly every line needs no regular expression.
            if (b"Kernel panic" in line or b"Internal error" in line) and (found := _ANNOUNCEMENT.fullmatch(line[:_LONGEST_LINE_BYTES])):
                self._believe(found)

    def _believe(self, found: re.Match[bytes]) -> None:
        if found["oops"] is not None:
            self.oops = _text(found["oops"])
        else:
            self.panic = _text(found["panic"] or b"")
            self.is_end = found["end"] is not None

    def firmware_event(self, event: Event, reply: Reply) -> None:
        """Begin to read again after a system reset."""
        del reply
        if isinstance(event, Reset):
            self.line, self.is_end = b"", False

    @property
    def sentence(self) -> str | None:
        """Say what was announced, None if nothing was."""
        if self.panic is None:
            return None if self.oops is None else f"kernel Oops: {self.oops}"
        panic = f"kernel panic: {self.panic}" if self.panic else "kernel panic"
        return panic if self.oops is None else f"{panic}; before it an Oops: {self.oops}"


def _text(said: bytes) -> str:
    return _NOT_PRINTABLE.sub("?", said.decode("ascii", "replace"))[:_LONGEST_TEXT]
