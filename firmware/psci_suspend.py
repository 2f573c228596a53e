"""PSCI's suspension of single CPUs (DEN 0022): rules in which hosts differ, and the handlers of every call that suspends or asks about it.

`power_state` is 32 bits in both conventions. The power topology is that of the affinity levels, so that one number names a level
to CPU_SUSPEND, AFFINITY_INFO and NODE_HW_STATE alike (choice: the standard leaves the topology to the platform).
"""

from __future__ import annotations

from typing import Final, NamedTuple

from firmware.abi import ENTRY_PSTATE, HIGHEST_AFFINITY_LEVEL, MASK32, PSCI_1_0, Psci
from firmware.host import Call, Config, Result, returns
from firmware.power import Statistics, Suspension
from firmware.trap import EntryState, Resume


class _Format(NamedTuple):
    """A format of power_state (DEN 0022, CPU_SUSPEND): bits that should be zero, and the StateType bit."""

    sbz: int
    powerdown: int


_ORIGINAL: Final = _Format(0xFCFE_0000, 0x0001_0000)
ORIGINAL_POWERDOWN: Final = _ORIGINAL.powerdown
_EXTENDED: Final = _Format(0xB000_0000, 0x4000_0000)

_ORIGINAL_LEVEL_SHIFT: Final = 24
_EXTENDED_STATE_ID: Final = 0x0FFF_FFFF
_BITS_PER_LEVEL: Final = 4

# PSCI_FEATURES(CPU_SUSPEND): bit 0 OS-initiated mode, bit 1 extended StateID format.
_FEATURE_OS_INITIATED: Final = 0x1
_FEATURE_EXTENDED_STATE_ID: Final = 0x2

_PLATFORM_COORDINATED: Final = 0
_OS_INITIATED: Final = 1

_NANOSECONDS_PER_MICROSECOND: Final = 1000


# ---- rules that hosts choose from


def suspend_is_wfi(call: Call) -> Result:
    """Wait for an event and return; power_state, entry point and context are not looked at (KVM)."""
    call.power.suspend(call.vcpu, None)
    return Result((Psci.SUCCESS,), Resume.WAIT)


def suspend_is_wfi_without_levels(call: Call) -> Result:
    """Wait for an event; refuse any power_state but a StateID (QEMU target/arm/psci.c: no affinity levels, no powerdown)."""
    if call.args[0] & 0xFFFE_0000:
        return returns(Psci.INVALID_PARAMETERS)
    return suspend_is_wfi(call)


def suspend_as_asked(call: Call) -> Result:
    """Suspend as power_state asks: standby returns, powerdown comes back at the entry point."""
    power_state, entry_point_address, context_id = call.args
    return _suspend(call, power_state & MASK32, entry_point_address, context_id)


# ---- what handlers share


def entry_state(call: Call, entry_point_address: int, context_id: int) -> EntryState:
    """Return the state a vCPU that the caller starts, or the caller itself, takes on at an entry point."""
    x0 = context_id if call.host.passes_context_id else 0
    return EntryState(entry_point_address, x0, ENTRY_PSTATE, call.big_endian and call.host.inherits_endianness)


def _is_extended(config: Config) -> bool:
    # Below 1.0 a guest cannot ask which format there is.
    return config.host.extended_state_id and config.offered >= PSCI_1_0


def _format(config: Config) -> _Format:
    return _EXTENDED if _is_extended(config) else _ORIGINAL


def idle_power_states(config: Config) -> tuple[int, int]:
    """Return a power_state for standby and one for powerdown of a CPU alone, in the format in force: StateID 0 in both."""
    return 0, _format(config).powerdown


def _power_level(config: Config, power_state: int) -> int:
    if not _is_extended(config):
        return power_state >> _ORIGINAL_LEVEL_SHIFT & HIGHEST_AFFINITY_LEVEL
    # choice: the encoding that DEN 0022 recommends for StateID, four bits for each level from bit 0.
    highest_bit = max((power_state & _EXTENDED_STATE_ID).bit_length() - 1, 0)
    return min(highest_bit // _BITS_PER_LEVEL, HIGHEST_AFFINITY_LEVEL)


def _suspend(call: Call, power_state: int, entry_point_address: int, context_id: int) -> Result:
    sbz, powerdown = _format(call.config)
    if power_state & sbz:
        return returns(Psci.INVALID_PARAMETERS)
    if power_state & powerdown:
        refusal = call.host.entry_rule(call, entry_point_address)
        if refusal is not None:
            return returns(refusal)
    # The last-man rule (TF-A psci_validate_state_coordination). That what is below has gone deep enough, is not judged (choice).
    if call.power.os_initiated and not call.power.is_last_running(call.vcpu, _power_level(call.config, power_state)):
        return returns(Psci.DENIED)
    counted = Suspension(power_state, call.time_ns)
    if not power_state & powerdown:
        call.power.suspend(call.vcpu, None, counted)
        return Result((Psci.SUCCESS,), Resume.WAIT)
    call.power.suspend(call.vcpu, entry_state(call, entry_point_address, context_id), counted)
    return Result(None, Resume.WAIT)


def _statistics(call: Call) -> Statistics:
    target_cpu, power_state, _ = call.args
    vcpu = call.power.find(target_cpu)
    return Statistics() if vcpu is None else call.power.statistics(vcpu, power_state & MASK32)


# ---- handlers


def cpu_suspend(call: Call) -> Result:
    """Suspend the caller (DEN 0022, CPU_SUSPEND).

    Presence: mandatory from 0.2; in 0.1 under a platform's ID. Convention: SMC32 and SMC64.
    x1  power_state          32 bits, original or extended StateID format
    x2  entry_point_address  where a powerdown state resumes; ignored for standby
    x3  context_id           what x0 then holds
    Returns SUCCESS after standby; INVALID_PARAMETERS for a power_state the host refuses, INVALID_ADDRESS for a bad entry,
    DENIED in OS-initiated mode for a power level above 0 at which another CPU runs.
    """
    return call.host.suspend_rule(call)


def cpu_suspend_features(config: Config, _vcpu: int) -> int:
    os_initiated = _FEATURE_OS_INITIATED if "SET_SUSPEND_MODE" in config.host.serves else 0
    return os_initiated | (_FEATURE_EXTENDED_STATE_ID if config.host.extended_state_id else 0)


def cpu_default_suspend(call: Call) -> Result:
    """Suspend the caller in a state of the implementation's choice (DEN 0022, CPU_DEFAULT_SUSPEND).

    Presence: optional from 1.0. Convention: SMC32 and SMC64.
    x1  entry_point_address  where the caller resumes
    x2  context_id           what its x0 then holds
    Returns INVALID_ADDRESS for a bad entry. Our choice of state is powerdown of the CPU alone, StateID 0: it is counted as
    CPU_SUSPEND's 0x0001_0000 (0x4000_0000 in the extended format), and does not return.
    """
    entry_point_address, context_id, _ = call.args
    return _suspend(call, _format(call.config).powerdown, entry_point_address, context_id)


def set_suspend_mode(call: Call) -> Result:
    """Choose who coordinates power states (DEN 0022, PSCI_SET_SUSPEND_MODE).

    Presence: optional from 1.0. Convention: SMC32.
    x1  mode  32 bits: 0 platform-coordinated, which is the mode at power-on and after a reset, 1 OS-initiated
    Returns SUCCESS, also for the mode that is in force; INVALID_PARAMETERS for another mode; DENIED while another CPU is not
    OFF, except for OS-initiated while none is OFF (TF-A psci_set_suspend_mode; a suspended CPU counts as on). The standard's
    further condition, that no CPU has called CPU_SUSPEND since the last change (DEN 0022, 5.20, after TF-A's proposal for
    OS-initiated mode), is not asked, as in TF-A.
    """
    mode = call.args[0] & MASK32
    if mode not in (_PLATFORM_COORDINATED, _OS_INITIATED):
        return returns(Psci.INVALID_PARAMETERS)
    os_initiated = mode == _OS_INITIATED
    if os_initiated is call.power.os_initiated:
        return returns(Psci.SUCCESS)
    if not call.power.others_off(call.vcpu) and not (os_initiated and call.power.others_started(call.vcpu)):
        return returns(Psci.DENIED)
    call.power.set_suspend_mode(os_initiated)
    return returns(Psci.SUCCESS)


def stat_residency(call: Call) -> Result:
    """Say how long a CPU has been in a power state (DEN 0022, PSCI_STAT_RESIDENCY).

    Presence: optional from 1.0. Convention: SMC32 and SMC64.
    x1  target_cpu   MPIDR affinity fields, all other bits zero
    x2  power_state  32 bits, as given to CPU_SUSPEND
    Returns microseconds since the last reset, 0 for no such CPU or a power_state it has never asked for. A sleep counts when
    it ends (TF-A psci_stats_update_pwr_up), each CPU's by the power_state it asked for (choice), SYSTEM_SUSPEND not at all
    (choice).
    """
    return returns(_statistics(call).residency_ns // _NANOSECONDS_PER_MICROSECOND)


def stat_count(call: Call) -> Result:
    """Say how often a CPU has been in a power state (DEN 0022, PSCI_STAT_COUNT).

    Presence: optional from 1.0. Convention: SMC32 and SMC64.
    x1  target_cpu   MPIDR affinity fields, all other bits zero
    x2  power_state  32 bits, as given to CPU_SUSPEND
    Returns the count since the last reset, with PSCI_STAT_RESIDENCY's rules.
    """
    return returns(_statistics(call).times)
