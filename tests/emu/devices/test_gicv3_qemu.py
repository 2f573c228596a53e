"""The GICv3 against QEMU's: the same accesses by the same program on the first of two CPUs, and what they read.

Left out is where QEMU is not the standard's: one group enabled at a CPU interface without the other (the disabled one's interrupts hide
the other's).
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Final

import pytest

from emu.devices.gic_bank import ICACTIVER, ICENABLER, ICFGR, ICPENDR, IGROUPR, IPRIORITYR, ISACTIVER, ISENABLER, ISPENDR
from emu.devices.gicv3 import FRAME_BYTES, GICD_CTLR, GICD_IROUTER, GICR_WAKER
from emu.devices.gicv3_interface import (
    CTLR_CBPR,
    CTLR_EOIMODE,
    ICC_AP0R0,
    ICC_AP1R0,
    ICC_BPR0,
    ICC_BPR1,
    ICC_CTLR,
    ICC_DIR,
    ICC_EOIR1,
    ICC_HPPIR0,
    ICC_HPPIR1,
    ICC_IAR1,
    ICC_IGRPEN0,
    ICC_IGRPEN1,
    ICC_PMR,
    ICC_RPR,
    ICC_SGI0R,
    ICC_SGI1R,
    ICC_SRE,
    SystemRegister,
)
from emu.memory import GICD, GICR
from tests.emu.devices.histories import Access, on_model, on_qemu
from tests.emu.programs import Bench

SGI_FRAME: Final = 0x1_0000
ACCESSES: Final = 500
PRIVATE: Final = (0, 1, 15, 16, 27, 31)
SPIS: Final = (32, 33, 63)
PRIORITIES: Final = (0x00, 0x40, 0x48, 0x80, 0xA0, 0xF8)
BITS: Final = (ISENABLER, ICENABLER, ISPENDR, ICPENDR, ISACTIVER, ICACTIVER)
FRAMES: Final = tuple(GICR.base + vcpu * FRAME_BYTES + SGI_FRAME for vcpu in (0, 1))
LOOKED_AT: Final[tuple[int | SystemRegister, ...]] = (
    *(frame + register for frame in FRAMES for register in (IGROUPR, ISENABLER, ISPENDR, ISACTIVER, ICFGR, ICFGR + 4)),
    *(frame + IPRIORITYR + intid // 4 * 4 for frame in FRAMES for intid in PRIVATE),
    *(GICD.base + register + 4 for register in (IGROUPR, ISENABLER, ISPENDR, ISACTIVER)),
    *(GICD.base + register for register in (GICD_CTLR, ICFGR + 8, ICFGR + 12, IPRIORITYR + 32, IPRIORITYR + 60, GICD_IROUTER + 8 * 33)),
    *(ICC_PMR, ICC_CTLR, ICC_SRE, ICC_BPR0, ICC_BPR1, ICC_IGRPEN0, ICC_IGRPEN1, ICC_RPR, ICC_HPPIR0, ICC_HPPIR1, ICC_AP0R0, ICC_AP1R0),
)


def beginning(draw: random.Random) -> list[Access]:
    """Wake both redistributors; draw what then stays, the groups."""
    wakes = [Access(GICR.base + vcpu * FRAME_BYTES + GICR_WAKER, 0) for vcpu in (0, 1)]
    groups = [Access(where + IGROUPR, draw.getrandbits(32) | draw.getrandbits(32)) for where in (*FRAMES, GICD.base + 4)]
    return [*wakes, *groups, Access(ICC_SRE, 7), Access(ICC_IGRPEN0, 1), Access(ICC_IGRPEN1, 1)]


def frame_of(draw: random.Random) -> tuple[int, int]:
    """Draw an interrupt, and the frame that has it."""
    intid = draw.choice((*PRIVATE, *SPIS))
    return intid, GICD.base if intid >= 32 else draw.choice((FRAMES[0], FRAMES[0], FRAMES[1]))


def bit(draw: random.Random) -> Access:
    intid, frame = frame_of(draw)
    return Access(frame + draw.choice(BITS) + intid // 32 * 4, 1 << intid % 32)


def fields(draw: random.Random) -> Access:
    intid, frame = frame_of(draw)
    return draw.choice(
        (
            Access(frame + IPRIORITYR + intid // 4 * 4, draw.choice(PRIORITIES) << intid % 4 * 8),
            Access(frame + ICFGR + intid // 16 * 4, draw.getrandbits(32) & 0xAAAA_AAAA),
            Access(GICD.base + GICD_IROUTER + 8 * draw.choice(SPIS), draw.choice((0, 0, 1, 0x100))),
            Access(GICD.base + GICD_CTLR, draw.choice((0, 1, 2, 3, 3, 3))),
        )
    )


def interface(draw: random.Random) -> Access:
    generates: SystemRegister = draw.choice((ICC_SGI0R, ICC_SGI1R, ICC_SGI1R))
    return draw.choice(
        (
            Access(ICC_CTLR, draw.choice((0, CTLR_CBPR)) | draw.choice((0, CTLR_EOIMODE))),
            Access(ICC_PMR, draw.choice((0xF0, 0xF0, 0x80))),
            Access(ICC_BPR0, draw.randrange(8)),
            Access(ICC_BPR1, draw.randrange(8)),
            Access(generates, draw.choice((0, 1, 15)) << 24 | draw.choice((1, 1, 2, 3))),
            Access(ICC_IAR1, is_acknowledgement=True),
            Access(ICC_IAR1, is_acknowledgement=True),
            Access(ICC_EOIR1, is_end=True),
            Access(ICC_DIR, draw.choice((*PRIVATE, *SPIS))),
        )
    )


def history(seed: int) -> list[Access]:
    draw = random.Random(seed)
    accesses = beginning(draw)
    for _ in range(ACCESSES):
        accesses += [draw.choice((bit, fields, interface))(draw), Access(draw.choice(LOOKED_AT))]
    return accesses


@pytest.mark.parametrize("seed", range(6))
def test_a_history_reads_as_on_qemu(tmp_path: Path, seed: int) -> None:
    accesses, bench = history(seed), Bench(tmp_path)

    mine, theirs = on_model(bench, accesses, 3, 2), on_qemu(bench, accesses, 3, 2)

    reads = [each.where for each in accesses if each.value is None and not each.is_end]
    assert list(zip(reads, mine, strict=True)) == list(zip(reads, theirs, strict=True))
