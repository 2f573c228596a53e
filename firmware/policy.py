"""Migration policies as data: what kernels, VMMs and machine types agree on before a guest is moved.

1. A policy never looks at a host's name: it reads registers, values and errno alone.
2. Which register may hold what, is the host's business (fwregs.py); a policy says what travels and what a refusal means.
3. Each policy of the 2018 discussion and of QEMU since is one row; a user's own is read from TOML (emu/policyfile.py).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final, NamedTuple

from firmware.abi import PSCI_0_2, PSCI_1_0, Version
from firmware.errors import unknown


class Asks(enum.Enum):
    """Whether a user can ask for a PSCI version, and which side's VMM then writes it after creating the vCPUs."""

    NOBODY = "nobody"
    SOURCE = "source"
    BOTH = "both"


class Unknown(enum.Enum):
    """What the receiver does with a register that its kernel does not have."""

    REFUSE = "refuse"
    IGNORE = "ignore"


class Missing(enum.Enum):
    """What the receiver does with a register of its kernel's that was not sent."""

    KEEP = "keep"
    REFUSE = "refuse"


class Withheld(NamedTuple):
    """A register that the sender keeps back: always, or only while it holds a value."""

    register: str
    value: int | None = None


class MachineType(NamedTuple):
    """A VMM's machine type, the same on both sides.

    asks_for  the PSCI version it asks for; None: it asks for nothing
    hides     registers it neither sends nor expects
    """

    name: str
    asks_for: Version | None = None
    hides: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What a move goes by.

    kernel_default  what kernels with a version register offer unasked; None: each its newest
    asks            who writes the version that a user asked for
    machine_types   the first is the default
    withholds       the sender's filter; the register "*" stands for all
    unknown         the receiver's rule for registers its kernel does not have
    missing         the receiver's rule for registers that were not sent
    safe_missing    registers that the receiver's kernel may lack all the same: what was sent of them is dropped
    absent_version  what the receiver writes to PSCI_VERSION when that was not sent; None: nothing
    """

    name: str
    summary: str
    cite: str
    kernel_default: Version | None = None
    asks: Asks = Asks.SOURCE
    machine_types: tuple[MachineType, ...] = (MachineType("virt"),)
    withholds: tuple[Withheld, ...] = ()
    unknown: Unknown = Unknown.REFUSE
    missing: Missing = Missing.KEEP
    safe_missing: frozenset[str] = frozenset()
    absent_version: Version | None = None

    def sends(self, register: str, value: int) -> bool:
        """Say whether the sender lets a register with this value travel."""
        return not any(entry.register in (register, "*") and entry.value in (None, value) for entry in self.withholds)

    def machine_type(self, name: str | None) -> MachineType:
        """Return a machine type, the default one for None; raise UserError with the nearest name."""
        known = {each.name: each for each in self.machine_types}
        if name is None:
            return self.machine_types[0]
        if name not in known:
            raise unknown("machine type", name, known)
        return known[name]

    def may_lack(self, register: str) -> bool:
        """Say whether the receiver goes on although its kernel does not have a register that was sent."""
        return self.unknown is Unknown.IGNORE or register in self.safe_missing


DO_NOTHING: Final = Policy(
    name="do-nothing",
    summary="Linux 4.16.0 as released: no register, a guest gets what its kernel offers",
    cite='Linux v4.16, before commit 85bd0ba1ff98 ("arm/arm64: KVM: Add PSCI version selection API")',
    asks=Asks.NOBODY,
    withholds=(Withheld("*"),),
)

PSEUDO_REGISTER: Final = Policy(
    name="pseudo-register",
    summary="what was merged: every firmware register travels, and the destination's errno decides",
    cite='Linux commit 85bd0ba1ff98 ("arm/arm64: KVM: Add PSCI version selection API") (in v4.17), '
    "Documentation/virt/kvm/arm/fw-pseudo-registers.rst",
)

STRAIGHTFORWARD: Final = Policy(
    name="straightforward",
    summary="Maydell's: kernels offer 0.2 unless asked, virt-2.12 asks for 1.0, and the register travels when it is not 0.2",
    cite="Peter Maydell on kvmarm, 2018, in the thread of the version selection API",
    kernel_default=PSCI_0_2,
    asks=Asks.NOBODY,
    machine_types=(MachineType("virt-2.12", PSCI_1_0), MachineType("virt-2.11", PSCI_0_2)),
    withholds=(Withheld("PSCI_VERSION", PSCI_0_2.word),),
)

FILTER_0_2: Final = Policy(
    name="filter-0.2",
    summary="Dall's: as pseudo-register, and the VMM keeps the register back while it says 0.2, so that an old host takes the guest",
    cite="Christoffer Dall on kvmarm, 2018, in the thread of the version selection API",
    withholds=(Withheld("PSCI_VERSION", PSCI_0_2.word),),
)

QEMU_10: Final = Policy(
    name="qemu-10",
    summary="QEMU 10: an opaque register list; what the destination's kernel lacks or refuses fails the move, what was not sent stays",
    cite="QEMU v10.1 target/arm/machine.c, cpu_post_load; target/arm/kvm.c, write_list_to_kvmstate",
    asks=Asks.NOBODY,
)

QEMU_11: Final = Policy(
    name="qemu-11",
    summary="QEMU 11: kvm-psci-version on both command lines, hidden registers, and registers that may safely be missing",
    machine_types=(MachineType("virt-11.0"), MachineType("virt-10.1", hides=frozenset({"VENDOR_HYP_BMAP_2"}))),
    cite="qemu-devel: Sebastian Ott, kvm-psci-version (2025-09 to 2026-02); Eric Auger, x-mig-hidden-regs and x-mig-safe-missing-regs",
    asks=Asks.BOTH,
)

POLICIES: Final = {policy.name: policy for policy in (DO_NOTHING, PSEUDO_REGISTER, STRAIGHTFORWARD, FILTER_0_2, QEMU_10, QEMU_11)}
DEFAULT_POLICY: Final = PSEUDO_REGISTER.name


def policy_named(name: str) -> Policy:
    """Return a policy; raise UserError with the nearest name for one that does not exist."""
    if name not in POLICIES:
        raise unknown("policy", name, POLICIES)
    return POLICIES[name]
