"""PSCI's optional functions that few firmwares have (DEN 0022): handlers, and below them the rows.

CLEAN_INV_MEMREGION and CLEAN_INV_MEMREGION_ATTRIBUTES are not here: they came with the first draft of 1.3 and were dropped before
it was final (review of "firmware/psci: Add definitions for PSCI v1.3 specification", linux-arm-kernel, September 2024).
"""

from __future__ import annotations

from typing import Final

from firmware.abi import HIGHEST_AFFINITY_LEVEL, MASK32, MASK64, PSCI_1_0, PSCI_1_1, PowerState, Psci
from firmware.host import Call, Result, returns
from firmware.psci import cpu_off
from firmware.psci_suspend import cpu_default_suspend, set_suspend_mode, stat_count, stat_residency
from firmware.table import Function, Service

# DEN 0022, NODE_HW_STATE.
_HW_ON: Final = 0
_HW_OFF: Final = 1
_HW_STANDBY: Final = 2


def cpu_freeze(call: Call) -> Result:
    """Take the caller out of use without moving its interrupts away; it does not return (DEN 0022, CPU_FREEZE).

    Presence: optional from 1.0. Convention: SMC32.
    Returns DENIED, and only then returns, where CPU_OFF would. No firmware that could be read implements it; our choice is that
    a frozen CPU is OFF: no interrupt wakes it, AFFINITY_INFO says OFF, and CPU_ON starts it again.
    """
    return cpu_off(call)


def node_hw_state(call: Call) -> Result:
    """Report the power controller's view of a CPU or of what is above it (DEN 0022, NODE_HW_STATE).

    Presence: optional from 1.0. Convention: SMC32 and SMC64.
    x1  target_cpu   MPIDR affinity fields, all other bits zero
    x2  power_level  32 bits: 0 the CPU, 1 to 3 its ancestors
    Returns 0 (HW_ON), 1 (HW_OFF), 2 (HW_STANDBY), or INVALID_PARAMETERS for no such CPU or level. Our choices: a CPU is HW_ON from
    CPU_ON on, HW_STANDBY in a standby state, HW_OFF in a powerdown state; what is above has its most awake CPU's state.
    """
    return call.host.hw_state_rule(call, call.args[0], call.args[1] & MASK32)


def hw_state_of_every_level(call: Call, target_cpu: int, power_level: int) -> Result:
    """Answer for a CPU and for what is above it, up to level 3."""
    if call.power.find(target_cpu) is None or power_level > HIGHEST_AFFINITY_LEVEL:
        return returns(Psci.INVALID_PARAMETERS)
    states = {_hw_state(call, vcpu) for vcpu in call.power.vcpus_of(target_cpu, power_level)}
    return returns(next(state for state in (_HW_ON, _HW_STANDBY, _HW_OFF) if state in states))


def _hw_state(call: Call, vcpu: int) -> int:
    state = call.power.states[vcpu]
    if state is PowerState.OFF or call.power.has_lost_its_state(vcpu):
        return _HW_OFF
    return _HW_STANDBY if state is PowerState.SUSPENDED else _HW_ON


def mem_protect(call: Call) -> Result:
    """Ask that memory be overwritten before anything else runs after a reset (DEN 0022, MEM_PROTECT).

    Presence: optional from 1.1. Convention: SMC32.
    x1  enable  32 bits: 0 off, all else on (TF-A arm_nor_psci_write_mem_protect)
    Returns the previous state, 0 or 1, which a reset keeps. Nothing is overwritten: the machine's reset loads memory afresh.
    """
    return returns(int(call.power.protect_memory(bool(call.args[0] & MASK32))))


def mem_protect_check_range(call: Call) -> Result:
    """Say whether MEM_PROTECT covers a range of memory (DEN 0022, MEM_PROTECT_CHECK_RANGE).

    Presence: optional from 1.1. Convention: SMC32 and SMC64.
    x1  base    guest physical address
    x2  length  bytes
    Returns SUCCESS for a range inside RAM, else DENIED: also for no bytes, and for a range that wraps (TF-A psci_mem_chk_range).
    """
    base, length, _ = call.args
    ram_base, ram_size_bytes = call.config.ram
    if not length or base + length - 1 > MASK64:
        return returns(Psci.DENIED)
    inside = ram_base <= base and base + length <= ram_base + ram_size_bytes
    return returns(Psci.SUCCESS if inside else Psci.DENIED)


# ---- the rows

# fmt: off
ROWS: Final = (
    #        name                       fid32        fid64        since     answer
    Function("CPU_FREEZE",              0x8400_000B, None,        PSCI_1_0, cpu_freeze),
    Function("CPU_DEFAULT_SUSPEND",     0x8400_000C, 0xC400_000C, PSCI_1_0, cpu_default_suspend, ("entry_point_address", "context_id")),
    Function("NODE_HW_STATE",           0x8400_000D, 0xC400_000D, PSCI_1_0, node_hw_state, ("target_cpu", "power_level"), result="word"),
    Function("SET_SUSPEND_MODE",        0x8400_000F, None,        PSCI_1_0, set_suspend_mode, ("mode",)),
    Function("STAT_RESIDENCY",          0x8400_0010, 0xC400_0010, PSCI_1_0, stat_residency, ("target_cpu", "power_state"), result="word"),
    Function("STAT_COUNT",              0x8400_0011, 0xC400_0011, PSCI_1_0, stat_count, ("target_cpu", "power_state"), result="word"),
    Function("MEM_PROTECT",             0x8400_0013, None,        PSCI_1_1, mem_protect, ("enable",), result="word"),
    Function("MEM_PROTECT_CHECK_RANGE", 0x8400_0014, 0xC400_0014, PSCI_1_1, mem_protect_check_range, ("base", "length")),
)
# fmt: on

PSCI_OPTIONAL: Final = Service("PSCI", ("PSCI_FEATURES",), lambda config: config.offered, lambda _config: ROWS)
