"""The user's side of the console: standard output, and standard input where there is one.

A terminal is put into raw mode, so that every key reaches the guest, and Ctrl-A x ends the run, as in QEMU. Input that is a regular
file is handed out as the guest reads, so that a run with it repeats exactly; a pipe or a terminal is live.
"""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, Final

from firmware.errors import UserError

_ESCAPE: Final = 0x01  # Ctrl-A
_QUIT: Final = ord("x")
_LOOKS_EVERY_S: Final = 0.05


class Output:
    """Where the guest's console goes; `broken` is called when its reader has gone away."""

    def __init__(self, stream: BinaryIO | None, broken: Callable[[], None] = lambda: None) -> None:
        self._stream = stream
        self._broken = broken

    def write(self, text: bytes) -> None:
        if self._stream is None:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except BrokenPipeError:
            self._stream = None
            self._broken()
        except OSError as error:
            self._stream = None
            raise UserError(f"the console cannot be written: {error.strerror}") from None


class Input:
    """What the user types, without waiting for it; `quit` is called at Ctrl-A x on a terminal."""

    def __init__(self, descriptor: int, escapes: bool, quit_: Callable[[], None]) -> None:
        self._descriptor: int | None = descriptor
        self._escapes = escapes
        self._quit = quit_
        self._escaped = False

    def take(self, limit: int) -> bytes:
        """Return up to `limit` characters that are there already."""
        if self._descriptor is None or not select.select([self._descriptor], [], [], 0)[0]:
            return b""
        try:
            characters = os.read(self._descriptor, limit)
        except OSError:
            characters = b""
        if not characters:
            self._descriptor = None
        return self._without_escapes(characters) if self._escapes else characters

    def wait(self, nanoseconds: int | None, is_over: Callable[[], bool]) -> bool:
        """Wait until there is something to take, until its end, or until it is over; say whether there is.

        nanoseconds  how long at most. On a terminal they pass as everywhere; otherwise time is the guest's own, and there is no waiting
        """
        if self._descriptor is None or (nanoseconds is not None and not self._escapes):
            return False
        end = None if nanoseconds is None else time.monotonic() + nanoseconds / 1e9
        while not is_over():
            left = _LOOKS_EVERY_S if end is None else min(end - time.monotonic(), _LOOKS_EVERY_S)
            if select.select([self._descriptor], [], [], max(left, 0))[0]:
                return True
            if left < 0:
                return False
        return False

    def _without_escapes(self, characters: bytes) -> bytes:
        kept = bytearray()
        for character in characters:
            if self._escaped:
                self._escaped = False
                if character == _QUIT:
                    self._quit()
                elif character == _ESCAPE:
                    kept.append(character)
            elif character == _ESCAPE:
                self._escaped = True
            else:
                kept.append(character)
        return bytes(kept)


@contextmanager
def standard_input(quit_: Callable[[], None]) -> Iterator[Input | None]:
    """Yield standard input as a console's input, a terminal in raw mode meanwhile; None where there is none."""
    try:
        descriptor = sys.stdin.fileno()
        is_terminal = os.isatty(descriptor)
    except (AttributeError, ValueError, OSError):
        yield None
        return
    if not is_terminal:
        yield Input(descriptor, escapes=False, quit_=quit_)
        return
    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor, termios.TCSANOW)
        # Output goes on being cooked, or every newline of a log would need a carriage return.
        attributes = termios.tcgetattr(descriptor)
        attributes[1] |= termios.OPOST
        termios.tcsetattr(descriptor, termios.TCSANOW, attributes)
        yield Input(descriptor, escapes=True, quit_=quit_)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
