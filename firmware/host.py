"""A modelled host as one value, a VM's configuration on it, and a call as the host's rules see it.

A host's columns are everything in which firmwares differ.

1. Code reads columns; it never compares a host's name.
2. Every column that departs from its predecessor's comes with a citation (`evolve`); `sources` keeps them.
3. A rule that is not a value is a named function in a column; it stands beside the handler that asks it, or, if it is one host's
   alone, in that host's file.
"""

from __future__ import annotations

import dataclasses
import enum
import errno
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Self

from firmware.abi import MASK64, PSCI_0_1, PowerState, Psci, Version
from firmware.entropy import Entropy
from firmware.faults import AnyFault
from firmware.power import Power
from firmware.trap import Conduit, Effect, Reply, Resume


class Conduits(enum.Enum):
    """Who decides which of HVC and SMC is served."""

    PLATFORM = "the platform: the conduit its device tree names, the other is UNDEF"
    BOTH = "the host: both are served alike"


class FunctionIds(NamedTuple):
    """The four function IDs that PSCI 0.1 leaves to the platform (Linux bindings/arm/psci.yaml)."""

    cpu_suspend: int
    cpu_off: int
    cpu_on: int
    migrate: int


class Deviation(NamedTuple):
    """A discovery call of this host answers other than its own dispatch would make one expect."""

    discovery: str
    function: str
    value: int
    cite: str


class TrustedOs(NamedTuple):
    """A uniprocessor Trusted OS.

    type         MIGRATE_INFO_TYPE's answer: 0 migratable, 1 not
    vcpu         the vCPU it sits on
    refuses_off  whether it denies CPU_OFF there
    mpidr_bits   what MIGRATE_INFO_UP_CPU sets beside the affinity fields
    """

    type: int
    vcpu: int
    refuses_off: bool = True
    mpidr_bits: int = 0


class StandardSecure(NamedTuple):
    """What the Standard Secure service says of itself: UID in w0 to w3, revision, count of calls (None: as many as it serves)."""

    uid: tuple[int, int, int, int]
    revision: tuple[int, int]
    calls: int | None = None


class UserInterface(NamedTuple):
    """What a release of KVM offers to user space beside the registers (firmware/kvm.py).

    features           how many feature bits KVM_ARM_VCPU_INIT knows
    generic_target     whether every CPU takes KVM_ARM_TARGET_GENERIC_V8
    power_off_is_kept  POWER_OFF is a feature like the others, which a second KVM_ARM_VCPU_INIT must repeat
    extensions         the KVM_CAP numbers that KVM_CHECK_EXTENSION knows
    mp_state           KVM_GET_MP_STATE and KVM_SET_MP_STATE are there
    suspended          KVM_MP_STATE_SUSPENDED is among the states
    event_data         system events have ndata and data; before, flags alone
    filter             the SMCCC filter is there
    """

    features: int = 2
    generic_target: bool = False
    power_off_is_kept: bool = True
    extensions: frozenset[int] = frozenset()
    mp_state: bool = False
    suspended: bool = False
    event_data: bool = False
    filter: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A modelled hypervisor or firmware release."""

    name: str
    summary: str

    # Versions.
    latest: Version  # what a guest is offered unless the version register says otherwise
    versions: tuple[Version, ...]  # what the version register takes beside 0.1; a single one where it is fixed
    offers_0_1: bool  # whether a guest can be given PSCI 0.1 alone
    smccc: Version | None  # what SMCCC_VERSION answers; None: no such call
    smccc_versions: tuple[Version, ...]  # what `smccc` may be set to

    # Registers, by name and in KVM_GET_REG_LIST's order; empty where the host is not KVM's kin.
    registers: tuple[str, ...]
    bitmap_resets: Mapping[str, int]  # services that have a bitmap, with or without the register
    unknown_register: int = errno.ENOENT  # what an index that the firmware registers' coprocessor lacks gets
    switches_ssbd: bool = False  # WORKAROUND_2 is switched by the guest, and its register tells five states of the host

    # Dispatch.
    serves: frozenset[str]  # function names from 0.2 on
    early: frozenset[str] = frozenset()  # of these, what is served before the version that brought it
    serves_0_1: frozenset[str]  # function names under the 0.1 IDs
    ids_0_1: FunctionIds | None
    ids_0_1_always: bool  # the 0.1 IDs are answered beside the standard ones
    discovers_0_1_ids: bool = True  # PSCI_FEATURES knows the 0.1 IDs
    function_id_mask: int  # the bits of x0 that are looked up
    query_mask: int  # the bits of x1 that PSCI_FEATURES and ARCH_FEATURES look up
    unknown: Psci | None  # what an unknown function ID gets; None: an undefined-instruction exception
    unknown_rule: Callable[[Conduit, int], Answered] | None = None  # the same where it depends on the conduit or the ID
    refuses: frozenset[str] = frozenset()  # functions that are known and answered NOT_SUPPORTED, whatever an unknown ID gets
    refuses_0_1: frozenset[str] = frozenset()  # the same under the 0.1 IDs
    lacks: frozenset[int] = frozenset()  # function IDs that are unknown although their function is served or refused

    # Conduits.
    conduits: Conduits
    default_conduit: Conduit
    immediates: Mapping[Conduit, int | Resume] = field(default_factory=dict)  # a call with a nonzero immediate: x0 alone, or UNDEF
    undispatched: Mapping[Conduit, Reply | Callable[[Call], Result]] = field(default_factory=dict)  # for every call over a conduit

    # Registers of a reply.
    result_registers: int  # a return writes x0 to x(n-1), zero where it has no value
    status_mask: int = MASK64  # the bits of a negative result that reach x0
    writes_unreturned: bool  # a call that never returns leaves its code in x0 all the same
    truncates: frozenset[str]  # functions whose SMC32 form looks at the low 32 bits of its arguments
    truncation_written_back: bool
    words: frozenset[str] = frozenset()  # functions whose results are 32 bits wide, zero-extended

    # PSCI.
    pending_seen_as: PowerState  # how calls see a vCPU between CPU_ON and its first instruction
    target_rule: Callable[[Call, int], int | None]  # the vCPU that a target_cpu names
    resets_in_cpu_on: bool = False  # CPU_ON itself resets the target; otherwise that waits until the target is entered
    access_applies_reset: bool = True  # a waiting reset is applied by KVM_GET_ONE_REG and KVM_SET_ONE_REG too
    off_by_smc_skips: bool = False  # a vCPU that went off by SMC, once started, begins behind its first instruction
    passes_context_id: bool = True  # whether a vCPU starts with context_id in x0; otherwise with 0
    inherits_endianness: bool  # whether a vCPU starts with its starter's SCTLR_EL1.EE
    no_such_cpu: Psci = Psci.INVALID_PARAMETERS  # CPU_ON's answer where it names none
    cpu_on_0_1: Callable[[Call], Result]  # CPU_ON under a 0.1 ID
    entry_rule: Callable[[Call, int], Psci | None]
    affinity_rule: Callable[[Call, int, int], Result]
    suspend_rule: Callable[[Call], Result]
    extended_state_id: bool  # power_state's format (DEN 0022, CPU_SUSPEND)
    hw_state_rule: Callable[[Call, int, int], Result]
    trusted_os: TrustedOs | None
    system_suspend_needs_capability: bool
    system_suspend_needs_others_off: bool
    system_suspend_entry_first: bool = False  # the entry point is looked at before the other vCPUs
    system_event_stops_vcpus: bool = True  # SYSTEM_OFF and SYSTEM_RESET leave every vCPU OFF; otherwise the VMM has to see to it
    any_reset_type: bool = False  # SYSTEM_RESET2 takes every reset_type

    # The other services.
    at_el2: Mapping[str, int]  # functions that HVC gets answered in front of the dispatcher: how many registers become 0
    at_el2_alone: bool = True  # and nowhere else
    workaround_answers: Mapping[str, Callable[[Mitigations], int]]  # ARCH_FEATURES(ARCH_WORKAROUND_n)
    workaround_rule: Callable[[Call], Result]  # what ARCH_WORKAROUND_n does where it is dispatched
    standard_secure: StandardSecure
    pv_time_needs_address: bool = True  # PV_TIME_FEATURES knows nothing while no structure is configured
    soc_id: tuple[int, int] | None  # SoC version and revision
    soc_name: str  # ASCII, up to 135 characters; where there is a soc_id and SMCCC 1.6
    trng_uuid: tuple[int, int, int, int]
    trng_zero_bits: bool  # a request for no bits succeeds

    # The device tree's psci node, newest string first.
    node_compatible: Callable[[Version], tuple[str, ...]]
    node_tells_0_1_ids: bool = False  # from 0.2 on: the served 0.1 IDs, in place of the standard ones

    # The VMM.
    reset_ends: bool = False  # it ends when the guest resets

    deviations: tuple[Deviation, ...] = ()
    user_interface: UserInterface | None = None  # of KVM's releases
    sources: Mapping[str, str] = field(default_factory=dict)
    unknown_columns: frozenset[str] = frozenset()  # columns that nobody has a source for: what stands there is the predecessor's

    def evolve(self, *, cite: str, **changes: Any) -> Self:
        """Return this host with some columns changed, each from the same source."""
        sources = {**self.sources, **dict.fromkeys(changes, cite)}
        return dataclasses.replace(self, sources=sources, unknown_columns=self.unknown_columns - changes.keys(), **changes)

    def leave_unknown(self, *columns: str) -> Self:
        """Return this host with columns marked as unknown: shown as such, and modelled as the predecessor's."""
        assert set(columns) <= {column.name for column in dataclasses.fields(self)}
        sources = {column: source for column, source in self.sources.items() if column not in columns}
        return dataclasses.replace(self, sources=sources, unknown_columns=self.unknown_columns | set(columns))

    def deviation(self, discovery: str, function: str) -> int | None:
        for entry in self.deviations:
            if (entry.discovery, entry.function) == (discovery, function):
                return entry.value
        return None


SPECTRE_STATES: Final = ("unaffected", "mitigated", "vulnerable")
SSBD_STATES: Final = ("unknown", "force-disable", "kernel", "force-enable", "mitigated")


class Mitigations(NamedTuple):
    """What the host's CPU needs and has: each of `SPECTRE_STATES`, and whether the CPU has SSBS.

    ssbd  how Linux 4.18 to 5.9 see Spectre v4, one of `SSBD_STATES` (arch/arm64/include/asm/kvm_host.h, kvm_arm_have_ssbd); None: by
          spectre_v4, "kernel" where the CPU has SSBS
    """

    spectre_v2: str = "mitigated"
    spectre_v4: str = "mitigated"
    spectre_bhb: str = "mitigated"
    ssbs: bool = False
    ssbd: str | None = None

    @property
    def ssbd_state(self) -> str:
        if self.ssbd is not None:
            return self.ssbd
        return "unknown" if self.spectre_v4 == "vulnerable" else "kernel" if self.ssbs else "mitigated"


WALL_CLOCK_NS: Final = 1_516_492_800_000_000_000  # 2018-01-21 00:00:00 UTC: a run is the same on any day


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything an answer may depend on that no call changes.

    mpidrs         affinity fields of each vCPU's MPIDR_EL1
    version        the offered PSCI version
    psci_0_2       whether the vCPUs were initialised with KVM_ARM_VCPU_PSCI_0_2; without it the guest gets 0.1
    smccc          what SMCCC_VERSION answers, None where there is no such call
    conduits       which conduits the platform serves; hosts that serve both look only whether there is any
    capabilities   enabled KVM capabilities, by name
    bitmaps        value of each feature bitmap register, by name
    mitigations    one for all vCPUs, or one for each
    ssbd_off       vCPUs that begin with their Spectre v4 mitigation switched off, where a guest can do that
    el2_fast_path  whether KVM's answer to the workaround calls stands in front of the dispatcher
    ram            (base, size in bytes) of guest memory
    pv_time_base   guest physical address of the first vCPU's stolen-time structure, None where none is configured
    wall_clock_ns  the host's wall clock when virtual time was 0, in Unix time: PTP's, and the board's real-time clock's
    initialised    whether KVM_ARM_VCPU_INIT has been done
    faults         what is broken (firmware/overlay.py, `with_faults`)
    """

    host: Host
    mpidrs: tuple[int, ...]
    version: Version
    psci_0_2: bool = True
    smccc: Version | None = None
    conduits: frozenset[Conduit] = frozenset(Conduit)
    capabilities: frozenset[str] = frozenset()
    bitmaps: tuple[tuple[str, int], ...] = ()
    mitigations: tuple[Mitigations, ...] = (Mitigations(),)
    ssbd_off: frozenset[int] = frozenset()
    el2_fast_path: bool = True
    ram: tuple[int, int] = (0x4000_0000, 0x800_0000)
    pv_time_base: int | None = None
    wall_clock_ns: int = WALL_CLOCK_NS
    initialised: bool = True
    faults: tuple[AnyFault, ...] = ()

    @property
    def offered(self) -> Version:
        """The version in force: 0.1 whatever the store says when the feature bit is clear."""
        return self.version if self.psci_0_2 else PSCI_0_1

    def bitmap(self, register: str) -> int:
        return dict(self.bitmaps).get(register, 0)

    def mitigation(self, vcpu: int) -> Mitigations:
        return self.mitigations[vcpu % len(self.mitigations)]

    def switches_ssbd(self, vcpu: int) -> bool:
        """Say whether the guest can switch this vCPU's Spectre v4 mitigation."""
        return self.host.switches_ssbd and self.mitigation(vcpu).ssbd_state == "kernel"


class Result(NamedTuple):
    """What a function decided, before the host's columns say how it reaches the registers.

    values  result registers from x0 on, signed or unsigned; None where the call does not return
    padded  whether the host fills up the registers it always writes
    """

    values: tuple[int, ...] | None
    resume: Resume = Resume.NEXT
    effects: tuple[Effect, ...] = ()
    padded: bool = True


# What a rule decides for an ID: a result, or a handler that works it out.
Answered = Result | Callable[["Call"], Result]


_STATUSES: Final = {value: Result((value,)) for value in range(-15, 16)}


def returns(value: int, *effects: Effect) -> Result:
    """Return to the caller with one value in x0."""
    # A status is the same result each time.
    status = None if effects else _STATUSES.get(value)
    return Result((int(value),), Resume.NEXT, effects) if status is None else status


class Call(NamedTuple):
    """A call of the named function on its way to a handler: arguments are truncated already, and `args[0]` is x1."""

    name: str
    config: Config
    power: Power
    entropy: Entropy
    vcpu: int
    conduit: Conduit
    args: tuple[int, int, int]
    big_endian: bool
    time_ns: int

    @property
    def host(self) -> Host:
        return self.config.host
