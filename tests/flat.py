"""Machines that run a handful of instructions, given as words."""

from __future__ import annotations

import dataclasses
import struct
from typing import Final

from emu.loader import Boot, Kind, Segment
from emu.machine import Machine
from emu.memory import RAM_BASE, MiB
from emu.setup import Choices, make

CODE: Final = RAM_BASE + 0x8_0000
SCRATCH: Final = RAM_BASE + 0x10_0000


def machine_of(words: list[int], ram_bytes: int = 2 * MiB) -> Machine:
    """Return a machine that runs these instructions from CODE on."""
    setup = make(Choices(ram_bytes=ram_bytes))
    tree = setup.device_tree(None)
    dtb = Segment(RAM_BASE + ram_bytes - 0x8_0000, tree, len(tree))
    code = struct.pack(f"<{len(words)}I", *words)
    boot = Boot(Kind.FLAT, (Segment(CODE, code, len(code)), dtb), CODE, dtb.address, dtb.region, None, None)
    return Machine(dataclasses.replace(setup, boot=boot, max_insns=1_000_000))


def move32(register: int, value: int) -> list[int]:
    return [0x52A0_0000 | value >> 16 << 5 | register, 0x7280_0000 | (value & 0xFFFF) << 5 | register]
