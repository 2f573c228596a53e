"""Recognise a vCPU that has parked itself for good.

The engine neither stops at WFE nor tells of it, so a guest that ends in `1: wfe; b 1b` would spin until a limit. Such a loop can be
told from its code alone: hints, barriers and unconditional branches that come back to where they were change nothing, ever.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

LONGEST_LOOP: Final = 8  # instructions

_HINTS: Final = frozenset({0xD503_201F, 0xD503_203F, 0xD503_205F, 0xD503_209F, 0xD503_20BF})  # NOP, YIELD, WFE, SEV, SEVL
_BARRIER_MASK: Final = 0xFFFF_F01F  # DSB, DMB, ISB and CLREX, any option
_BARRIER: Final = 0xD503_301F
_BRANCH_MASK: Final = 0xFC00_0000
_BRANCH: Final = 0x1400_0000


def is_parked(instruction_at: Callable[[int], int | None], pc: int) -> bool:
    """Say whether the code from `pc` on is a loop that nothing but an interrupt can leave."""
    seen: set[int] = set()
    while len(seen) <= LONGEST_LOOP:
        if pc in seen:
            return True
        seen.add(pc)
        word = instruction_at(pc)
        if word is None:
            return False
        if word & _BRANCH_MASK == _BRANCH:
            pc += ((word & 0x03FF_FFFF ^ 0x0200_0000) - 0x0200_0000) * 4
        elif word in _HINTS or word & _BARRIER_MASK == _BARRIER:
            pc += 4
        else:
            return False
    return False
