"""Work in a fork of this process, which the engine may abort."""

from __future__ import annotations

import faulthandler
import gc
import os
import signal
from collections.abc import Callable
from typing import Final, TypeVar

import msgspec

_ENGINE_GIVES_UP: Final = (signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE)
_Plain = TypeVar("_Plain")


def in_a_fork(work: Callable[[], _Plain], decoder: msgspec.msgpack.Decoder[_Plain], aborted: _Plain) -> _Plain:
    """Return what comes of some work in a fork; `aborted`, where the engine aborts the process."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        code = 1
        try:
            gc.disable()  # a collection writes to every object, and each such page would be copied
            os.close(reading)
            silence = os.open(os.devnull, os.O_WRONLY)
            for number in (1, 2):
                os.dup2(silence, number)  # the engine's own words where it aborts
            faulthandler.disable()
            with os.fdopen(writing, "wb") as pipe:
                pipe.write(msgspec.msgpack.encode(work()))
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) in _ENGINE_GIVES_UP:
        return aborted
    assert status == 0, "a child died without a word"
    return decoder.decode(text)
