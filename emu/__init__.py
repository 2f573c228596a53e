"""The machine that runs a guest, and the ways to look at it.

`from emu import Machine` is the Python interface (emu/api.py); `psci-emu` and `python -m emu` are the command line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emu.api import Call, Machine

__all__ = ["Call", "Machine"]


def __getattr__(name: str) -> Any:
    # Imported when asked for, so that the command line starts without it.
    if name not in __all__:
        raise AttributeError(name)
    from emu import api  # noqa: PLC0415

    return getattr(api, name)
