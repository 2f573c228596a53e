"""Bao, a guest of an Armv8-A platform.

Read: Bao v2.0-rc7-41 (commit 738e3dc5) src/arch/armv8/psci.c, aborts.c, vm.c, armv8-a/psci.c, src/core/hypercall.c. Not modelled: Bao's
own calls (0x8600_0001 and 0x8600_0002), and platforms that have no standby or no powerdown.
"""

from __future__ import annotations

from typing import Final

from firmware import psci, psci_suspend
from firmware.abi import MASK32, OWNER_SHIFT, PSCI_1_1, SMC64, PowerState, Psci
from firmware.host import Call, Conduits, Deviation, Result, returns
from firmware.hosts.spec import SPEC
from firmware.trap import Conduit

_BAO: Final = "Bao commit 738e3dc5"
_PSCI_C: Final = f"{_BAO} src/arch/armv8/psci.c"

_VENDOR_HYP: Final = 6
_NO_SUCH_HYPERCALL: Final = -2  # HC_E_INVAL_ID
_FUNCTION_NUMBER: Final = 0xFFFF

_AFFINITY: Final = 0xFF_FFFF  # MPIDR_AFF_MSK: no Aff3


# ---- rules of this host


def refused_or_no_such_hypercall(_conduit: Conduit, fid: int) -> Result:
    """Refuse: -2 for a hypercall that Bao does not know, else NOT_SUPPORTED."""
    service = fid & ~SMC64 & ~_FUNCTION_NUMBER & MASK32
    return returns(_NO_SUCH_HYPERCALL if service == 1 << 31 | _VENDOR_HYP << OWNER_SHIFT else Psci.NOT_SUPPORTED)


def target_by_aff2_to_aff0(call: Call, target_cpu: int) -> int | None:
    """Look at Aff2, Aff1 and Aff0 alone; all other bits are ignored."""
    wanted = target_cpu & _AFFINITY
    return next((vcpu for vcpu, mpidr in enumerate(call.power.mpidrs) if mpidr & _AFFINITY == wanted), None)


def always_on(_call: Call, _target_affinity: int, _lowest_affinity_level: int) -> Result:
    """Answer ON, whatever is asked."""
    return returns(PowerState.ON)


def suspend_by_state_type(call: Call) -> Result:
    """Look at power_state's StateType alone (bit 16): standby, or powerdown of the CPU."""
    _, entry_point_address, context_id = call.args
    power_state = call.args[0] & psci_suspend.ORIGINAL_POWERDOWN
    return psci_suspend.suspend_as_asked(call._replace(args=(power_state, entry_point_address, context_id)))


# ---- the host

BAO: Final = (
    SPEC.evolve(name="bao", summary="Bao 2.0, a guest", cite=_BAO)
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
        # PLAT_PSCI_SUPPORT_SMCCC_VERSION, which s32g3 alone sets, lets PSCI_FEATURES promise an SMCCC_VERSION that is not there.
        serves=frozenset({"PSCI_VERSION", "CPU_SUSPEND", "CPU_OFF", "CPU_ON", "AFFINITY_INFO", "MIGRATE_INFO_TYPE", "PSCI_FEATURES"}),
        cite=f"{_PSCI_C}, psci_smc_handler; aborts.c, syscall_handler: PSCI and hypercalls, nothing else",
    )
    .evolve(
        truncates=frozenset(),
        unknown_rule=refused_or_no_such_hypercall,
        conduits=Conduits.BOTH,
        cite=f"{_BAO} src/arch/armv8/aborts.c, syscall_handler, hvc_handler, smc_handler; src/core/hypercall.c, hypercall",
    )
    .evolve(
        pending_seen_as=PowerState.ON,
        inherits_endianness=False,
        target_rule=target_by_aff2_to_aff0,
        entry_rule=psci.entry_unchecked,
        cite=f"{_PSCI_C}, psci_cpu_on_handler: ON_PENDING answers ALREADY_ON; vm.c, vm_get_vcpu_by_mpidr, vcpu_arch_reset",
    )
    .evolve(
        affinity_rule=always_on,
        suspend_rule=suspend_by_state_type,
        cite=f"{_PSCI_C}, psci_affinity_info_handler, psci_cpu_suspend_handler; src/platform/hikey960/inc/plat/psci.h",
    )
    # Bao writes no device tree: a guest's is its user's.
    .leave_unknown("default_conduit", "node_compatible")
    .evolve(
        deviations=(Deviation("PSCI_FEATURES", "MIGRATE_INFO_TYPE", -1, f"{_PSCI_C}, psci_features_handler: served, and denied"),),
        cite=f"{_PSCI_C}, psci_features_handler",
    )
)

HOSTS: Final = (BAO,)
