"""Hafnium as a hypervisor in the normal world: its primary VM, over TF-A, and a secondary VM.

Read: Hafnium commit 21bfbdc1 (after v2.15), src/arch/aarch64/hypervisor/psci_handler.c, handler.c. Not modelled: FF-A and Hafnium's own
calls, and SMCs that a VM's manifest lets through to EL3 (smc_whitelist); none is by default.
"""

from __future__ import annotations

from typing import Final

from firmware import psci, psci_suspend
from firmware.abi import MASK32, MASK64, PSCI_1_1, SMC64, SVE_HINT, PowerState, Psci
from firmware.host import Call, Conduits, Deviation, Result, returns
from firmware.hosts.spec import SPEC
from firmware.hosts.tf_a import TF_A, fvp_node_compatible, suspend_in_fvp_states
from firmware.trap import Conduit

_HAFNIUM: Final = "Hafnium commit 21bfbdc1 (after v2.15)"
_HANDLER: Final = f"{_HAFNIUM} src/arch/aarch64/hypervisor/psci_handler.c"

# psci_primary_vm_handler's and psci_secondary_vm_handler's last cases: functions that are blocked by name.
_BLOCKED: Final = frozenset({0x8400_0005, 0x8400_0006, 0x8400_0007, *range(0x8400_000B, 0x8400_0015)})
_SYSTEM: Final = frozenset({0x8400_0008, 0x8400_0009})

_VCPU_INDEX: Final = 0xFFFF  # ffa_vcpu_index_t


# ---- rules of these hosts


def blocked_or_passed_on(conduit: Conduit, fid: int) -> Result:
    """Refuse PSCI's other functions with 32 bits, other SMCs with 64; an HVC that nobody handles leaves x0 as it is."""
    return _unhandled(conduit, fid, _BLOCKED)


def blocked_for_secondaries_or_passed_on(conduit: Conduit, fid: int) -> Result:
    """Refuse as for the primary VM, SYSTEM_OFF and SYSTEM_RESET as well."""
    return _unhandled(conduit, fid, _BLOCKED | _SYSTEM)


def _unhandled(conduit: Conduit, fid: int, blocked: frozenset[int]) -> Result:
    if fid in blocked:
        return returns(MASK32)
    return returns(MASK64) if conduit is Conduit.SMC else Result((), padded=False)


def only_affinity_level_0_else_not_supported(call: Call, target_affinity: int, lowest_affinity_level: int) -> Result:
    """Know single CPUs; NOT_SUPPORTED for every higher level of a CPU that exists."""
    if call.power.find(target_affinity) is None:
        return returns(Psci.INVALID_PARAMETERS)
    if lowest_affinity_level:
        return returns(Psci.NOT_SUPPORTED)
    return psci.every_affinity_level(call, target_affinity, 0)


def only_affinity_level_0_by_index(call: Call, target_affinity: int, lowest_affinity_level: int) -> Result:
    """Know single vCPUs, by their index; INVALID_PARAMETERS for every higher level."""
    vcpu = target_by_16_bit_index(call, target_affinity)
    if lowest_affinity_level & MASK32 or vcpu is None:
        return returns(Psci.INVALID_PARAMETERS)
    return returns(PowerState.OFF if call.power.states[vcpu] is PowerState.OFF else PowerState.ON)


def target_by_16_bit_index(call: Call, target_cpu: int) -> int | None:
    """Take the low 16 bits for the vCPU's index; all other bits are ignored."""
    index = target_cpu & _VCPU_INDEX
    return index if index < len(call.power.mpidrs) else None


def suspend_as_el3_does(call: Call) -> Result:
    """Hand on to EL3's firmware, TF-A's on fvp, whose refusal has 64 bits."""
    result = suspend_in_fvp_states(call)
    return returns(Psci.INVALID_PARAMETERS & MASK64) if result.values == (Psci.INVALID_PARAMETERS,) else result


# ---- the hosts

_VCPU_CALLS: Final = frozenset({"PSCI_VERSION", "CPU_SUSPEND", "CPU_OFF", "CPU_ON", "AFFINITY_INFO", "PSCI_FEATURES"})

HAFNIUM_PRIMARY: Final = (
    SPEC.evolve(name="hafnium-primary", summary="Hafnium 2.15, its primary VM, over tf-a", cite=_HAFNIUM)
    .evolve(
        latest=PSCI_1_1,
        versions=(PSCI_1_1,),
        offers_0_1=False,
        ids_0_1=None,
        serves_0_1=frozenset(),
        registers=(),
        bitmap_resets={},
        smccc=None,
        smccc_versions=(),
        soc_id=None,
        serves=_VCPU_CALLS | {"SYSTEM_OFF", "SYSTEM_RESET"},
        cite=f"{_HANDLER}, psci_primary_vm_handler",
    )
    .evolve(
        # Bit 30 is taken away before a function is looked up, so every one has an SMC64 form; so is the SVE hint.
        function_id_mask=MASK32 & ~SMC64 & ~SVE_HINT,
        query_mask=MASK32 & ~SMC64,
        truncates=frozenset(),
        cite=f"{_HANDLER}, SMCCC_CONVENTION_MASK; handler.c, hvc_handler and smc_handler, SMCCC_SVE_HINT_MASK",
    )
    .evolve(
        status_mask=MASK32,
        cite='Hafnium commit 0dba87e2 ("refactor: add explicit underlying types to enums"): psci_return_code is a uint32_t',
    )
    .evolve(
        unknown_rule=blocked_or_passed_on,
        conduits=Conduits.BOTH,
        cite=f"{_HAFNIUM} src/arch/aarch64/hypervisor/handler.c, hvc_handler, smc_handler, smc_is_blocked",
    )
    .evolve(
        pending_seen_as=PowerState.ON,
        inherits_endianness=False,
        entry_rule=psci.entry_unchecked,
        affinity_rule=only_affinity_level_0_else_not_supported,
        suspend_rule=suspend_as_el3_does,
        cite=f"{_HANDLER}, psci_primary_vm_handler; cpu.c, arch_regs_reset",
    )
    .evolve(
        default_conduit=TF_A.default_conduit,
        node_compatible=fvp_node_compatible,
        cite="the primary VM has its board's device tree: TF-A commit 6a164dda fdts/fvp-base-psci-common.dtsi",
    )
    .evolve(
        deviations=(
            Deviation("PSCI_FEATURES", "SMCCC_VERSION", 0x1_0002, f"{_HANDLER}, PSCI_FEATURES: the version in place of 0"),
            Deviation("PSCI_FEATURES", "CPU_SUSPEND", 1, f"{_HANDLER}, PSCI_FEATURES: EL3's bits, and fvp's has OS-initiated mode"),
        ),
        cite=f"{_HANDLER}, psci_primary_vm_handler, PSCI_FEATURES",
    )
)

HAFNIUM_SECONDARY: Final = (
    HAFNIUM_PRIMARY.evolve(name="hafnium-secondary", summary="Hafnium 2.15, a secondary VM", cite=_HAFNIUM)
    .evolve(
        serves=_VCPU_CALLS,
        unknown_rule=blocked_for_secondaries_or_passed_on,
        target_rule=target_by_16_bit_index,
        affinity_rule=only_affinity_level_0_by_index,
        suspend_rule=psci_suspend.suspend_is_wfi,
        extended_state_id=True,
        deviations=(),
        cite=f"{_HANDLER}, psci_secondary_vm_handler; inc/hf/vm.h, vcpu_id_to_index",
    )
    # Hafnium writes a secondary VM no psci node: its device tree is whatever its image brings along.
    .leave_unknown("default_conduit", "node_compatible")
)

HOSTS: Final = (HAFNIUM_PRIMARY, HAFNIUM_SECONDARY)
