"""What to do when the engine aborts the process.

Unicorn 2.1.4 reaches "code should not be reached" at some unallocated vector encodings under `-cpu max`, and calls abort(). That is
the guest's doing, so it ends as a guest crash does; there is no way back into the engine.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from emu.outcome import ExitCode

_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_int)


@contextmanager
def told_of_aborts(tell: Callable[[], None]) -> Iterator[None]:
    """Call `tell` and end the process with the exit code of a guest crash if the engine aborts it meanwhile."""

    def on_abort(_number: int) -> None:
        try:
            tell()
        finally:
            os._exit(ExitCode.CRASH)

    # The abort comes on this thread, inside a call into C: a Python-level handler would wait for that call to return.
    libc, handler = ctypes.PyDLL(None), _HANDLER(on_abort)
    libc.signal.restype = ctypes.c_void_p
    libc.signal.argtypes = (ctypes.c_int, ctypes.c_void_p)
    before = libc.signal(signal.SIGABRT, ctypes.cast(handler, ctypes.c_void_p))
    try:
        yield
    finally:
        libc.signal(signal.SIGABRT, before)
