"""Numbers fixed by the standards: function identifiers, versions, return codes, masks.

PSCI is DEN 0022, SMCCC is DEN 0028, TRNG is DEN 0098.
"""

from __future__ import annotations

import enum
from typing import Final, NamedTuple, Self

MASK32: Final = 0xFFFF_FFFF
MASK64: Final = 0xFFFF_FFFF_FFFF_FFFF

# DEN 0028, "Function Identifiers": bit 31 fast call, bit 30 SMC64, bits 29:24 owning entity, bits 15:0 function number.
FAST_CALL: Final = 0x8000_0000
SMC64: Final = 0x4000_0000
OWNER_SHIFT: Final = 24
OWNER_MASK: Final = 0x3F
SVE_HINT: Final = 0x0001_0000  # since SMCCC 1.3: the caller has no live SVE state; not part of the function's name

# Aff3 in bits 39:32, Aff2..Aff0 in bits 23:0: the affinity fields of MPIDR_EL1 and of PSCI's target_cpu.
AFFINITY_MASK: Final = 0xFF_00FF_FFFF
AFFINITY_FIELDS: Final = (0x0000_0000_00FF, 0x0000_0000_FF00, 0x0000_00FF_0000, 0x00FF_0000_0000)
HIGHEST_AFFINITY_LEVEL: Final = 3

# EL1h with D, A, I and F masked: where PSCI starts a vCPU (DEN 0022, "Initial Core state").
ENTRY_PSTATE: Final = 0x3C5


class Version(NamedTuple):
    """A PSCI or SMCCC version: major in bits 30:16 of the word a guest reads, minor in bits 15:0."""

    major: int
    minor: int

    @property
    def word(self) -> int:
        return self.major << 16 | self.minor

    @classmethod
    def from_word(cls, word: int) -> Self:
        return cls(word >> 16, word & 0xFFFF)

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


PSCI_0_1: Final = Version(0, 1)
PSCI_0_2: Final = Version(0, 2)
PSCI_1_0: Final = Version(1, 0)
PSCI_1_1: Final = Version(1, 1)
PSCI_1_2: Final = Version(1, 2)
PSCI_1_3: Final = Version(1, 3)
PSCI_VERSIONS: Final = (PSCI_0_1, PSCI_0_2, PSCI_1_0, PSCI_1_1, PSCI_1_2, PSCI_1_3)

SMCCC_1_0: Final = Version(1, 0)
SMCCC_1_1: Final = Version(1, 1)
SMCCC_1_2: Final = Version(1, 2)
SMCCC_1_3: Final = Version(1, 3)
SMCCC_1_4: Final = Version(1, 4)
SMCCC_1_5: Final = Version(1, 5)
SMCCC_1_6: Final = Version(1, 6)
SMCCC_VERSIONS: Final = (SMCCC_1_0, SMCCC_1_1, SMCCC_1_2, SMCCC_1_3, SMCCC_1_4, SMCCC_1_5, SMCCC_1_6)


class Psci(enum.IntEnum):
    """PSCI return codes (DEN 0022, "Return error codes")."""

    SUCCESS = 0
    NOT_SUPPORTED = -1
    INVALID_PARAMETERS = -2
    DENIED = -3
    ALREADY_ON = -4
    ON_PENDING = -5
    INTERNAL_FAILURE = -6
    NOT_PRESENT = -7
    DISABLED = -8
    INVALID_ADDRESS = -9


class Smccc(enum.IntEnum):
    """SMCCC return codes (DEN 0028, "Return codes")."""

    SUCCESS = 0
    NOT_SUPPORTED = -1
    NOT_REQUIRED = -2
    INVALID_PARAMETER = -3


class Trng(enum.IntEnum):
    """TRNG return codes (DEN 0098)."""

    SUCCESS = 0
    NOT_SUPPORTED = -1
    INVALID_PARAMETERS = -2
    NO_ENTROPY = -3


class PowerState(enum.IntEnum):
    """What PSCI knows of a vCPU; the first three are AFFINITY_INFO's answers."""

    ON = 0
    OFF = 1
    ON_PENDING = 2
    SUSPENDED = 3
