"""Jailhouse, a cell of an arm64 machine.

Read: Jailhouse v0.12-324 (commit e57d1eff) hypervisor/arch/arm-common/psci.c, smccc.c, control.c, arch/arm64/traps.c, entry.S. PSCI
is reached by SMC alone there, and not by its 0.1 IDs: both are 32-bit Arm's (arch/arm/traps.c). Not modelled: HVC #0x4A48,
Jailhouse's own calls; context_id, which a started CPU finds in x1; what WORKAROUND_1 leaves in x0 to x3.
"""

from __future__ import annotations

from typing import Final

from firmware import psci, psci_suspend, smccc
from firmware.abi import MASK64, OWNER_MASK, OWNER_SHIFT, PSCI_1_1, SMCCC_1_1, PowerState, Psci, Smccc, Version
from firmware.host import Answered, Call, Conduits, Deviation, Result, returns
from firmware.hosts.spec import SPEC
from firmware.hosts.tf_a import spectre_v4_dynamic
from firmware.trap import Conduit, Resume

_JAILHOUSE: Final = "Jailhouse commit e57d1eff"
_COMMON: Final = f"{_JAILHOUSE} hypervisor/arch/arm-common"

_SIP: Final = 2
_STANDARD_SECURE: Final = 4


# ---- rules of this host


def park(call: Call) -> Result:
    """Stop the CPU, as CPU_OFF does: "unhandled trap" and "forbidden access" both end there (panic_park)."""
    call.power.stop(call.vcpu)
    return Result(None, Resume.NEVER)


def refused_by_two_owners(_conduit: Conduit, fid: int) -> Answered:
    """Refuse what the Standard Secure and the SiP service lack; a call to any other owner parks the CPU."""
    return returns(Psci.NOT_SUPPORTED) if fid >> OWNER_SHIFT & OWNER_MASK in (_STANDARD_SECURE, _SIP) else park


def affinity_without_level(call: Call, target_affinity: int, _lowest_affinity_level: int) -> Result:
    """Know single CPUs, whatever the level; DENIED for one that the cell has not."""
    vcpu = call.power.find(target_affinity)
    if vcpu is None:
        return returns(Psci.DENIED)
    return returns(PowerState.ON if call.power.states[vcpu] in (PowerState.ON, PowerState.SUSPENDED) else PowerState.OFF)


def workaround_or_parked(call: Call) -> Result:
    """Hand the workaround on to EL3's firmware; where that has none, the CPU is parked."""
    answer = call.host.workaround_answers[call.name](call.config.mitigation(call.vcpu))
    return park(call) if answer == Smccc.NOT_SUPPORTED else smccc.workaround_unasked(call)


def inmate_node_compatible(_version: Version) -> tuple[str, ...]:
    """List the node's strings as configs/arm64/dts/inmate-qemu-arm64.dts does."""
    return ("arm,psci-0.2",)


# ---- the host

JAILHOUSE: Final = (
    SPEC.evolve(name="jailhouse", summary="Jailhouse 0.12 and later, a cell on arm64", cite=_JAILHOUSE)
    .evolve(
        latest=PSCI_1_1,
        versions=(PSCI_1_1,),
        offers_0_1=False,
        ids_0_1=None,
        serves_0_1=frozenset(),
        registers=(),
        bitmap_resets={},
        cite=f"{_COMMON}/psci.c, psci_dispatch: fixed; smccc.c, handle_smc: 0.1 IDs belong to no owner it knows",
    )
    .evolve(
        smccc=SMCCC_1_1,
        smccc_versions=(SMCCC_1_1,),
        soc_id=None,
        serves=frozenset(
            {
                "PSCI_VERSION",
                "CPU_SUSPEND",
                "CPU_OFF",
                "CPU_ON",
                "AFFINITY_INFO",
                "PSCI_FEATURES",
                "SMCCC_VERSION",
                "SMCCC_ARCH_FEATURES",
                "SMCCC_ARCH_WORKAROUND_1",
                "SMCCC_ARCH_WORKAROUND_2",
            }
        ),
        cite=f"{_COMMON}/psci.c, psci_dispatch; smccc.c, handle_arch; arch/arm64/entry.S, handle_abort_fastpath",
    )
    .evolve(
        # The Arm Architecture service looks at W0; that an ID with more bits is not found there is not modelled.
        function_id_mask=MASK64,
        query_mask=MASK64,
        truncates=frozenset({"CPU_ON", "SMCCC_ARCH_FEATURES"}),
        cite=f"{_COMMON}/psci.c, psci_dispatch, psci_emulate_cpu_on, psci_emulate_features_info; smccc.c, handle_arch_features",
    )
    .evolve(
        unknown_rule=refused_by_two_owners,
        cite=f"{_COMMON}/smccc.c, handle_smc; hypervisor/control.c, panic_park; arch/arm64/traps.c, arch_handle_trap",
    )
    .evolve(
        default_conduit=Conduit.SMC,
        conduits=Conduits.BOTH,
        undispatched={Conduit.HVC: park},  # forbidden, unless it is one of Jailhouse's own
        cite=f"{_JAILHOUSE} hypervisor/arch/arm64/traps.c, handle_hvc",
    )
    .evolve(
        # Until the target has taken its interrupt it waits for power-on, and a second CPU_ON succeeds as well.
        pending_seen_as=PowerState.OFF,
        inherits_endianness=False,
        passes_context_id=False,
        no_such_cpu=Psci.DENIED,
        entry_rule=psci.entry_unchecked,
        cite=f"{_COMMON}/psci.c, psci_emulate_cpu_on; control.c, check_events; arch/arm64/control.c, arm_cpu_reset",
    )
    .evolve(
        affinity_rule=affinity_without_level,
        suspend_rule=psci_suspend.suspend_is_wfi,
        cite=f"{_COMMON}/psci.c, psci_emulate_affinity_info, psci_dispatch",
    )
    .evolve(
        workaround_answers={
            "SMCCC_ARCH_WORKAROUND_1": smccc.spectre_v2_or_unaffected,
            "SMCCC_ARCH_WORKAROUND_2": spectre_v4_dynamic,
        },
        workaround_rule=workaround_or_parked,
        cite=f"{_COMMON}/smccc.c, smccc_discover: what EL3's firmware says, here TF-A's; handle_arch; arch/arm64/entry.S",
    )
    .evolve(
        node_compatible=inmate_node_compatible,
        cite=f"{_JAILHOUSE} configs/arm64/dts/inmate-qemu-arm64.dts",
    )
    .evolve(
        deviations=(Deviation("SMCCC_ARCH_FEATURES", "SMCCC_VERSION", -1, f"{_COMMON}/smccc.c, handle_arch_features"),),
        cite=f"{_COMMON}/smccc.c, handle_arch_features",
    )
)

HOSTS: Final = (JAILHOUSE,)
