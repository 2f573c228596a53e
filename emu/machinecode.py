"""Callbacks for the engine in the computer's own machine code: where it is known which, and may be executed."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Mapping
from typing import Any


def executable(codes: Mapping[str, bytes]) -> Any | None:
    """Return a reference to the code for this computer, by the name `uname -m` gives it; None where there can be none."""
    code = codes.get(os.uname().machine) if os.name == "posix" else None
    if code is None:
        return None
    page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    page[: len(code)] = code
    first = ctypes.c_char.from_buffer(page)
    mprotect = ctypes.CDLL(None).mprotect
    # Not writable and executable at once; and by this call arm64 Linux makes the instruction cache see what was written.
    refused = mprotect(ctypes.byref(first), ctypes.c_size_t(mmap.PAGESIZE), ctypes.c_int(mmap.PROT_READ | mmap.PROT_EXEC))
    return None if refused else ctypes.byref(first)
