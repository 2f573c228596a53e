"""The firmware pseudo-registers: get, set and list, with KVM's errno."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from tests.oracle.functions import STD_BMAP, STD_HYP_BMAP, VENDOR_HYP_BMAP, VENDOR_HYP_BMAP_2
from tests.oracle.words import Errno
from tests.oracle.world import Config, World

PSCI_VERSION: Final = 0x6030_0000_0014_0000
WORKAROUND_1, WORKAROUND_2, WORKAROUND_3 = (PSCI_VERSION + index for index in (1, 2, 3))

SIZE_MASK: Final = 0x00F0_0000_0000_0000
SIZE_U64: Final = 0x0030_0000_0000_0000
ARM64: Final = 0x6000_0000
COPROC_MASK: Final = 0x0FFF_0000
FW, FW_FEAT_BMAP = 0x0014_0000, 0x0016_0000

LEVEL_MASK: Final = 0xF
ENABLED: Final = 0x10
# WORKAROUND_2's levels as 5.10 and later compare them: UNKNOWN counts as NOT_AVAIL, AVAIL as NOT_REQUIRED
WORKAROUND_2_COMPARES: Final = {0: 0, 1: 0, 2: 3, 3: 3}
WORKAROUND_2_AVAIL: Final = 2
# ARCH_FEATURES' answer and the register's level are two faces of the host's state.
LEVELS: Final = {-1: 0, 0: 1, 1: 2}
WORKAROUND_2_LEVELS: Final = {-1: 0, -2: 3}


# The valid bits of each feature bitmap, in the order of `Columns.bitmap_resets`.
BITMAPS: Final = {STD_BMAP: 0x1, STD_HYP_BMAP: 0x1, VENDOR_HYP_BMAP: 0x3, VENDOR_HYP_BMAP_2: 0x3}


def level(config: Config, reg: int) -> int:
    if reg == WORKAROUND_2:
        return WORKAROUND_2_LEVELS[config.workaround("ARCH_WORKAROUND_2")]
    return LEVELS[config.workaround("ARCH_WORKAROUND_1" if reg == WORKAROUND_1 else "ARCH_WORKAROUND_3")]


def lookup(config: Config, reg: int) -> Errno:
    """Whether the host has this register, in the order in which the kernel takes the ID apart."""
    columns = config.columns
    if reg & ~SIZE_MASK & ~0xFFFF_FFFF != ARM64 << 32:
        return Errno.EINVAL
    bitmaps_exist = any(known & COPROC_MASK == FW_FEAT_BMAP for known in columns.registers)
    coproc = reg & COPROC_MASK
    if coproc not in (FW, FW_FEAT_BMAP) or (coproc == FW_FEAT_BMAP and not bitmaps_exist):
        return Errno.ENOENT
    if reg & SIZE_MASK != SIZE_U64:
        return Errno.ENOENT if columns.size_errno_is_enoent else Errno.EINVAL
    if reg not in columns.registers:
        return Errno.ENOENT if columns.unknown_fw_index_is_enoent else Errno.EINVAL
    return Errno.OK


def get(config: Config, world: World, reg: int) -> tuple[Errno, int | None]:
    errno = lookup(config, reg)
    if errno:
        return errno, None
    if reg == PSCI_VERSION:
        return Errno.OK, world.version if config.feature_psci_0_2 else 0x1
    if reg in BITMAPS:
        return Errno.OK, world.bitmaps[reg]
    return Errno.OK, level(config, reg)


def set_(config: Config, world: World, reg: int, value: int) -> tuple[Errno, World]:
    errno = lookup(config, reg)
    if errno:
        return errno, world
    if reg == PSCI_VERSION:
        accepted = config.columns.versions if config.feature_psci_0_2 else (0x1,)
        return (Errno.OK, replace(world, version=value)) if value in accepted else (Errno.EINVAL, world)
    if reg in BITMAPS:
        errno = set_bitmap(world, reg, value)
        return errno, world if errno else replace(world, bitmaps={**world.bitmaps, reg: value})
    return (check_workaround_2 if reg == WORKAROUND_2 else check_workaround)(config, reg, value), world


def set_bitmap(world: World, reg: int, value: int) -> Errno:
    if value & ~BITMAPS[reg]:
        return Errno.EINVAL
    return Errno.EBUSY if world.has_run and value != world.bitmaps[reg] else Errno.OK


def check_workaround(config: Config, reg: int, value: int) -> Errno:
    return Errno.EINVAL if value & ~LEVEL_MASK or value > level(config, reg) else Errno.OK


def check_workaround_2(config: Config, reg: int, value: int) -> Errno:
    wanted = value & LEVEL_MASK
    if value & ~(LEVEL_MASK | ENABLED) or (value & ENABLED and wanted != WORKAROUND_2_AVAIL):
        return Errno.EINVAL
    compared = WORKAROUND_2_COMPARES.get(wanted)
    return Errno.EINVAL if compared is None or compared > level(config, reg) else Errno.OK
