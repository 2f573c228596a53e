"""What the oracle's functions read: the fixed configuration, the state, and one call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from tests.oracle.columns import CODE_SINCE, UNAFFECTED, Columns
from tests.oracle.words import AFFINITY_BITS, MASK32, Effect, PendingReset, Psci, Regs, Resume, Trap, Vcpu

UP_MIGRATABLE, UP_FIXED, NO_TRUSTED_OS = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Config:
    columns: Columns
    mpidrs: tuple[int, ...]
    feature_psci_0_2: bool = True
    cap_system_suspend: bool = False
    spectre_v2: int = UNAFFECTED
    spectre_v4: int = UNAFFECTED
    spectre_bhb: int = UNAFFECTED
    ssbs: int = 0
    ram: tuple[int, int] | None = None  # base, size in bytes; None: every entry point is inside RAM
    trusted_os_type: int = NO_TRUSTED_OS
    trusted_os_cpu: int = 0
    extended_power_state: bool = False
    conduits: frozenset[str] = frozenset(("hvc", "smc"))  # a conduit that does not exist is UNDEF
    stolen_time_ipas: Mapping[int, int] = field(default_factory=dict)
    ptp: bool = True  # the host's clock source is the architected counter

    def workaround(self, name: str) -> int:
        state = {"ARCH_WORKAROUND_1": self.spectre_v2, "ARCH_WORKAROUND_2": self.spectre_v4, "ARCH_WORKAROUND_3": self.spectre_bhb}[name]
        answers = self.columns.workarounds.get(name)
        return Psci.NOT_SUPPORTED if answers is None else answers[state, self.ssbs]

    def find(self, target_cpu: int) -> int | None:
        """The vCPU that a target_cpu argument names, with this host's rule for the bits around the affinity fields."""
        if self.columns.reserved_affinity_bits_refused and target_cpu & ~AFFINITY_BITS:
            return None
        affinities = [mpidr & AFFINITY_BITS for mpidr in self.mpidrs]
        wanted = target_cpu & AFFINITY_BITS
        return affinities.index(wanted) if wanted in affinities else None


@dataclass(frozen=True, slots=True)
class World:
    vcpus: tuple[Vcpu, ...]
    version: int  # the VM-wide store behind PSCI_VERSION
    bitmaps: Mapping[int, int]
    has_run: bool = False
    os_initiated: bool = False
    memory_protected: bool = False
    slept: Mapping[tuple[int, int], int] = field(default_factory=dict)  # how often, by (vCPU, power_state)

    def put(self, index: int, vcpu: Vcpu) -> World:
        return replace(self, vcpus=(*self.vcpus[:index], vcpu, *self.vcpus[index + 1 :]))


@dataclass(frozen=True, slots=True)
class Call:
    config: Config
    world: World
    trap: Trap
    name: str
    smc32: bool
    args: tuple[int, int, int]  # x1..x3 after the host's truncation

    @property
    def version(self) -> int:
        return self.world.version if self.config.feature_psci_0_2 else 0x1

    @property
    def vcpu(self) -> int:
        return self.trap.vcpu

    @property
    def base_name(self) -> str:
        return self.name.removeprefix("0.1 ")

    @property
    def entry(self) -> PendingReset:
        """entry_point_address and context_id, wherever this function has them."""
        first = 0 if self.base_name in ("SYSTEM_SUSPEND", "CPU_DEFAULT_SUSPEND") else 1
        return PendingReset(self.args[first], self.args[first + 1], self.trap.big_endian)

    @property
    def extended(self) -> bool:
        """Whether power_state has the extended format, which a guest can only ask for from 1.0 on."""
        return self.config.extended_power_state and self.version >= 0x1_0000

    @property
    def power_state(self) -> int:
        """What CPU_SUSPEND is told; CPU_DEFAULT_SUSPEND is a powerdown of the CPU alone."""
        if self.base_name == "CPU_DEFAULT_SUSPEND":
            return 1 << (30 if self.extended else 16)
        return self.u32

    @property
    def powerdown(self) -> bool:
        return bool(self.power_state >> (30 if self.extended else 16) & 1)

    @property
    def suspend_level(self) -> int:
        """How far up CPU_SUSPEND reaches: a field of the original format, StateID's highest nonzero digit in the extended one."""
        if not self.extended:
            return self.power_state >> 24 & 3
        digits = f"{self.power_state & 0x0FFF_FFFF:x}"
        return min(len(digits) - 1, 3)

    @property
    def u32(self) -> int:
        """x1 of the functions whose first parameter is 32 bits wide in both conventions."""
        return self.args[0] & MASK32

    def code(self, code: Psci) -> int:
        """The return code as this PSCI version spells it."""
        newer = any(code is since and self.version < version for version, since in CODE_SINCE)
        return Psci.INVALID_PARAMETERS if newer else code


@dataclass(frozen=True, slots=True)
class Answer:
    """What a function does: results from x0 up (none: it writes nothing), and the world after it."""

    world: World
    x: tuple[int, ...] = ()
    resume: Resume = Resume.NEXT
    effects: frozenset[Effect] = frozenset()
    exact: bool = False  # no zeros behind `x`, on hosts that otherwise write them
    free: Regs = field(default_factory=dict)
    remote: Mapping[int, Regs] = field(default_factory=dict)
