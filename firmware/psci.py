"""PSCI 0.2 to 1.3 (DEN 0022): rules in which hosts differ, handlers, and below them the rows.

Handlers refuse first, in the order of TF-A's lib/psci (the reference implementation): the target, the entry point, the
state. What a host does otherwise is a rule in one of its columns; the rules stand here, beside the handler that asks them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from firmware.abi import (
    AFFINITY_MASK,
    HIGHEST_AFFINITY_LEVEL,
    MASK32,
    PSCI_0_1,
    PSCI_0_2,
    PSCI_1_0,
    PSCI_1_1,
    PSCI_1_3,
    PowerState,
    Psci,
)
from firmware.host import Call, Config, Result, returns
from firmware.psci_suspend import cpu_suspend, cpu_suspend_features, entry_state
from firmware.table import Constant, Discovery, Function, Handler, Query, Service, discovered
from firmware.trap import (
    RESET_FLAG_PSCI_RESET2,
    SHUTDOWN_FLAG_PSCI_OFF2,
    Conduit,
    Resume,
    SystemEvent,
    SystemEventType,
)

# PSCI_FEATURES(SYSTEM_OFF2) bit 0: HIBERNATE_OFF.
_FEATURE_HIBERNATE_OFF: Final = 0x1

_SYSTEM_WARM_RESET: Final = 0
_VENDOR_RESET_TYPES: Final = 0x8000_0000
# 1 is HIBERNATE_OFF; 0 is its alias from the drafts of 1.3 (Linux arch/arm64/kvm/psci.c).
_HIBERNATE_OFF_TYPES: Final = (0, 1)

_MIGRATION_NOT_REQUIRED: Final = 2


# ---- rules that hosts choose from


def entry_unchecked(_call: Call, _entry_point_address: int) -> Psci | None:
    """Accept any entry point, as KVM does."""
    return None


def entry_in_ram(call: Call, entry_point_address: int) -> Psci | None:
    """Refuse an entry point that is misaligned or outside RAM (DEN 0022, INVALID_ADDRESS; TF-A psci_validate_entry_point)."""
    base, size_bytes = call.config.ram
    if entry_point_address % 4 or not base <= entry_point_address < base + size_bytes:
        # INVALID_ADDRESS is new in 1.0; before, the same condition is INVALID_PARAMETERS.
        return Psci.INVALID_ADDRESS if call.config.offered >= PSCI_1_0 else Psci.INVALID_PARAMETERS
    return None


def entry_aligned(_call: Call, entry_point_address: int) -> Psci | None:
    """Refuse a misaligned entry point (QEMU target/arm/arm-powerctl.c, arm_set_cpu_on)."""
    return Psci.INVALID_PARAMETERS if entry_point_address % 4 else None


def target_by_mpidr(call: Call, target_cpu: int) -> int | None:
    """Take exactly an MPIDR's affinity fields; any other bit names nobody (DEN 0022, CPU_ON)."""
    return call.power.find(target_cpu)


def target_by_affinity_fields(call: Call, target_cpu: int) -> int | None:
    """Look at the affinity fields alone, as KVM before Linux 5.15."""
    return call.power.find(target_cpu & AFFINITY_MASK)


def target_by_index(call: Call, target_cpu: int) -> int | None:
    """Take a vCPU's number, as KVM's first releases."""
    return target_cpu if target_cpu < len(call.config.mpidrs) else None


def every_affinity_level(call: Call, target_affinity: int, lowest_affinity_level: int) -> Result:
    """Judge all vCPUs of the affinity instance: ON if any is on, else ON_PENDING if any is pending, else OFF."""
    if lowest_affinity_level > HIGHEST_AFFINITY_LEVEL or target_affinity & ~AFFINITY_MASK:
        return returns(Psci.INVALID_PARAMETERS)
    states = call.power.states_of(target_affinity, lowest_affinity_level)
    if not states:
        return returns(Psci.INVALID_PARAMETERS)
    if PowerState.ON in states or PowerState.SUSPENDED in states:
        return returns(PowerState.ON)
    return returns(call.host.pending_seen_as if PowerState.ON_PENDING in states else PowerState.OFF)


def every_affinity_level_by_fields(call: Call, target_affinity: int, lowest_affinity_level: int) -> Result:
    """Judge as `every_affinity_level`; of the target, look at the affinity fields alone (KVM before Linux 5.15)."""
    return every_affinity_level(call, target_affinity & AFFINITY_MASK, lowest_affinity_level)


def every_affinity_level_nobody_off(call: Call, target_affinity: int, lowest_affinity_level: int) -> Result:
    """Judge as `every_affinity_level_by_fields`; an affinity instance without a vCPU is OFF (KVM before Linux 4.3)."""
    target_affinity &= AFFINITY_MASK
    if lowest_affinity_level <= HIGHEST_AFFINITY_LEVEL and not call.power.states_of(target_affinity, lowest_affinity_level):
        return returns(PowerState.OFF)
    return every_affinity_level(call, target_affinity, lowest_affinity_level)


def every_affinity_level_as_word(call: Call, target_affinity: int, lowest_affinity_level: int) -> Result:
    """Judge as `every_affinity_level`; the level is a 32-bit parameter in the SMC64 form too (TF-A psci_affinity_info)."""
    return every_affinity_level(call, target_affinity, lowest_affinity_level & MASK32)


def only_affinity_level_0(call: Call, target_affinity: int, lowest_affinity_level: int) -> Result:
    """Know single CPUs; everything above is always on (QEMU target/arm/psci.c)."""
    if lowest_affinity_level:
        return returns(PowerState.ON)
    return every_affinity_level(call, target_affinity, 0)


# ---- what handlers share


def _visible_state(call: Call, vcpu: int) -> PowerState:
    state = call.power.states[vcpu]
    return call.host.pending_seen_as if state is PowerState.ON_PENDING else state


def _leave(call: Call, event: SystemEventType, flags: int = 0, *, padded: bool = True) -> Result:
    if call.host.system_event_stops_vcpus:
        call.power.stop_all()
    # INTERNAL_FAILURE is what a guest finds in x0 if the VMM lets it run on all the same.
    return Result((Psci.INTERNAL_FAILURE,), Resume.EXIT, (SystemEvent(event, flags),), padded)


# ---- handlers


def psci_version(config: Config) -> Result:
    """Return the offered version (DEN 0022, PSCI_VERSION).

    Presence: mandatory from 0.2. Convention: SMC32.
    Returns major in bits 30:16, minor in bits 15:0.
    """
    return returns(config.version.word)


def cpu_off(call: Call) -> Result:
    """Power down the caller; it does not return (DEN 0022, CPU_OFF).

    Presence: mandatory from 0.2. Convention: SMC32.
    Returns DENIED, and only then returns, when the Trusted OS sits on this CPU.
    """
    trusted_os = call.host.trusted_os
    if trusted_os is not None and trusted_os.refuses_off and trusted_os.vcpu == call.vcpu:
        return returns(Psci.DENIED)
    call.power.stop(call.vcpu, skips=call.host.off_by_smc_skips and call.conduit is Conduit.SMC)
    return Result((Psci.SUCCESS,), Resume.NEVER)


def cpu_on(call: Call) -> Result:
    """Start another CPU (DEN 0022, CPU_ON).

    Presence: mandatory from 0.2; in 0.1 under a platform's ID. Convention: SMC32 and SMC64.
    x1  target_cpu           MPIDR affinity fields, all other bits zero
    x2  entry_point_address  where it starts, with the MMU off and the caller's endianness
    x3  context_id           what its x0 then holds
    Returns SUCCESS, INVALID_PARAMETERS for no such CPU, INVALID_ADDRESS for a bad entry, ALREADY_ON for a CPU that is on,
    ON_PENDING for one that is starting; INVALID_PARAMETERS for a bad entry below 1.0, and for the last two below 0.2.
    """
    target_cpu, entry_point_address, context_id = call.args
    vcpu = call.host.target_rule(call, target_cpu)
    if vcpu is None:
        return returns(call.host.no_such_cpu)
    refusal = call.host.entry_rule(call, entry_point_address)
    if refusal is not None:
        return returns(refusal)
    state = _visible_state(call, vcpu)
    if state is not PowerState.OFF:
        if call.config.offered == PSCI_0_1:
            return returns(Psci.INVALID_PARAMETERS)
        return returns(Psci.ON_PENDING if state is PowerState.ON_PENDING else Psci.ALREADY_ON)
    start = call.power.start_reset if call.host.resets_in_cpu_on else call.power.start
    return returns(Psci.SUCCESS, start(vcpu, entry_state(call, entry_point_address, context_id)))


def affinity_info(call: Call) -> Result:
    """Report whether an affinity instance is on (DEN 0022, AFFINITY_INFO).

    Presence: mandatory from 0.2. Convention: SMC32 and SMC64.
    x1  target_affinity        MPIDR affinity fields, all other bits zero
    x2  lowest_affinity_level  0 to 3; fields below it are ignored
    Returns 0 (ON), 1 (OFF), 2 (ON_PENDING), or INVALID_PARAMETERS when no vCPU matches.
    """
    target_affinity, lowest_affinity_level, _ = call.args
    return call.host.affinity_rule(call, target_affinity, lowest_affinity_level)


def migrate(call: Call) -> Result:
    """Move the Trusted OS to another CPU (DEN 0022, MIGRATE).

    Presence: optional from 0.2; only with a uniprocessor Trusted OS. Convention: SMC32 and SMC64.
    x1  target_cpu  MPIDR affinity fields
    Returns INVALID_PARAMETERS for no such CPU, DENIED if the Trusted OS cannot migrate, NOT_PRESENT if it is not on the calling
    CPU (the order is TF-A's psci_migrate). The move itself is the Trusted OS's: ours declines with INTERNAL_FAILURE.
    """
    trusted_os = call.host.trusted_os
    assert trusted_os is not None
    if call.power.find(call.args[0]) is None:
        return returns(Psci.INVALID_PARAMETERS)
    if trusted_os.type:
        return returns(Psci.DENIED)
    if trusted_os.vcpu != call.vcpu:
        return returns(Psci.NOT_PRESENT)
    return returns(Psci.INTERNAL_FAILURE)


def has_trusted_os(config: Config) -> bool:
    return config.host.trusted_os is not None


def migrate_info_type(config: Config) -> Result:
    """Say what Trusted OS there is (DEN 0022, MIGRATE_INFO_TYPE).

    Presence: optional from 0.2. Convention: SMC32.
    Returns 0 (uniprocessor, migratable), 1 (uniprocessor, not migratable), 2 (none, or one that needs no migration).
    """
    trusted_os = config.host.trusted_os
    return returns(_MIGRATION_NOT_REQUIRED if trusted_os is None else trusted_os.type)


def migrate_info_up_cpu(config: Config) -> Result:
    """Say on which CPU the Trusted OS sits (DEN 0022, MIGRATE_INFO_UP_CPU).

    Presence: optional from 0.2; only with a uniprocessor Trusted OS. Convention: SMC32 and SMC64.
    Returns its MPIDR affinity fields.
    """
    trusted_os = config.host.trusted_os
    assert trusted_os is not None
    return returns(config.mpidrs[trusted_os.vcpu] | trusted_os.mpidr_bits)


def system_off(call: Call) -> Result:
    """Switch the system off; does not return (DEN 0022, SYSTEM_OFF).

    Presence: mandatory from 0.2. Convention: SMC32.
    """
    return _leave(call, SystemEventType.SHUTDOWN)


def system_reset(call: Call) -> Result:
    """Reset the system; does not return (DEN 0022, SYSTEM_RESET).

    Presence: mandatory from 0.2. Convention: SMC32.
    """
    return _leave(call, SystemEventType.RESET)


def system_suspend(call: Call) -> Result:
    """Suspend the system to RAM (DEN 0022, SYSTEM_SUSPEND).

    Presence: optional from 1.0. Convention: SMC32 and SMC64.
    x1  entry_point_address  where the caller resumes
    x2  context_id           what its x0 then holds
    Returns DENIED unless all other CPUs are OFF, INVALID_ADDRESS for a bad entry; both only where the host checks. Otherwise
    it leaves to the VMM, registers as they are: x1 and x2 tell it where the caller resumes.
    """
    refused = call.host.entry_rule(call, call.args[0])
    denied = call.host.system_suspend_needs_others_off and not call.power.others_off(call.vcpu)
    if denied and (refused is None or not call.host.system_suspend_entry_first):
        return returns(Psci.DENIED)
    if refused is not None:
        return returns(refused)
    return Result(None, Resume.EXIT, (SystemEvent(SystemEventType.SUSPEND),))


def system_suspend_present(config: Config) -> bool:
    return not config.host.system_suspend_needs_capability or "system-suspend" in config.capabilities


def system_reset2(call: Call) -> Result:
    """Reset the system in a given way; does not return (DEN 0022, SYSTEM_RESET2).

    Presence: optional from 1.1. Convention: SMC32 and SMC64.
    x1  reset_type  32 bits: 0 SYSTEM_WARM_RESET, bit 31 set vendor-defined, all else reserved
    x2  cookie      passed on with a vendor-defined reset_type
    Returns INVALID_PARAMETERS for a reserved reset_type.
    """
    reset_type = call.args[0] & MASK32
    if reset_type != _SYSTEM_WARM_RESET and reset_type < _VENDOR_RESET_TYPES and not call.host.any_reset_type:
        return returns(Psci.INVALID_PARAMETERS)
    # x1 to x3 stay as they are, for the VMM to read (Linux arch/arm64/kvm/psci.c, kvm_psci_system_reset2).
    return _leave(call, SystemEventType.RESET, RESET_FLAG_PSCI_RESET2, padded=False)


def system_off2(call: Call) -> Result:
    """Switch the system off in a given way; does not return (DEN 0022, SYSTEM_OFF2).

    Presence: optional from 1.3. Convention: SMC32 and SMC64.
    x1  off_type  32 bits: 1 HIBERNATE_OFF, 0 its alias
    x2  cookie    must be 0
    Returns INVALID_PARAMETERS for anything else.
    """
    off_type, cookie, _ = call.args
    if off_type & MASK32 not in _HIBERNATE_OFF_TYPES or cookie:
        return returns(Psci.INVALID_PARAMETERS)
    return _leave(call, SystemEventType.SHUTDOWN, SHUTDOWN_FLAG_PSCI_OFF2)


def system_off2_features(_config: Config, _vcpu: int) -> int:
    return _FEATURE_HIBERNATE_OFF


def psci_features(config: Config, discovery: Discovery) -> Mapping[int, Result | Handler]:
    """Say whether a function is implemented, and its features (DEN 0022, PSCI_FEATURES).

    Presence: mandatory from 1.0. Convention: SMC32.
    x1  psci_func_id  32 bits: a PSCI function ID, or SMCCC_VERSION's
    Returns the function's feature flags, 0 where it has none, or NOT_SUPPORTED.
    """
    return discovered("PSCI_FEATURES")(config, discovery)


# ---- the rows

# fmt: off
ROWS: Final = (
    #        name                   fid32        fid64        since     answer
    Function("PSCI_VERSION",        0x8400_0000, None,        PSCI_0_2, Constant(psci_version), result="version"),
    Function("CPU_SUSPEND",         0x8400_0001, 0xC400_0001, PSCI_0_2, cpu_suspend,
             ("power_state", "entry_point_address", "context_id"), features=cpu_suspend_features),
    Function("CPU_OFF",             0x8400_0002, None,        PSCI_0_2, cpu_off),
    Function("CPU_ON",              0x8400_0003, 0xC400_0003, PSCI_0_2, cpu_on,
             ("target_cpu", "entry_point_address", "context_id")),
    Function("AFFINITY_INFO",       0x8400_0004, 0xC400_0004, PSCI_0_2, affinity_info,
             ("target_affinity", "lowest_affinity_level"), result="affinity"),
    Function("MIGRATE",             0x8400_0005, 0xC400_0005, PSCI_0_2, migrate, ("target_cpu",),
             present=has_trusted_os),
    Function("MIGRATE_INFO_TYPE",   0x8400_0006, None,        PSCI_0_2, Constant(migrate_info_type), result="migrate"),
    Function("MIGRATE_INFO_UP_CPU", 0x8400_0007, 0xC400_0007, PSCI_0_2, Constant(migrate_info_up_cpu),
             present=has_trusted_os, result="word"),
    Function("SYSTEM_OFF",          0x8400_0008, None,        PSCI_0_2, system_off),
    Function("SYSTEM_RESET",        0x8400_0009, None,        PSCI_0_2, system_reset),
    Function("PSCI_FEATURES",       0x8400_000A, None,        PSCI_1_0, Query(psci_features),
             ("psci_func_id",), result="features"),
    Function("SYSTEM_SUSPEND",      0x8400_000E, 0xC400_000E, PSCI_1_0, system_suspend,
             ("entry_point_address", "context_id"), present=system_suspend_present),
    Function("SYSTEM_RESET2",       0x8400_0012, 0xC400_0012, PSCI_1_1, system_reset2, ("reset_type", "cookie")),
    Function("SYSTEM_OFF2",         0x8400_0015, 0xC400_0015, PSCI_1_3, system_off2, ("off_type", "cookie"),
             features=system_off2_features),
)
# fmt: on

PSCI: Final = Service("PSCI", ("PSCI_FEATURES",), lambda config: config.offered, lambda _config: ROWS)
