"""Xen's virtual PSCI, as a domU sees it.

Read: Xen 4.22 (commit c447b7308b13) xen/arch/arm/vpsci.c, vsmc.c, arm64/entry.S, tools/libs/light/libxl_arm.c. Not modelled: the
general queries of Xen's hypervisor service (0x8500_FF00 to FF03), and HVC #0xEA1, Xen's own hypercalls.
"""

from __future__ import annotations

from typing import Final

from firmware import psci, psci_suspend, smccc
from firmware.abi import AFFINITY_MASK, HIGHEST_AFFINITY_LEVEL, MASK32, PSCI_1_1, SMCCC_1_2, PowerState, Psci, Smccc
from firmware.host import Call, Conduits, Deviation, FunctionIds, Mitigations, Result, StandardSecure, returns
from firmware.hosts.spec import SPEC
from firmware.trap import Conduit, Resume

_XEN: Final = "Xen 4.22"
_ARCH_FEATURES: Final = f"{_XEN} xen/arch/arm/vsmc.c, handle_arch: ARCH_FEATURES knows the workarounds alone"

_VIRTUAL_AFFINITY: Final = 0xFFFF  # Aff1 and Aff0


# ---- rules of this host


def target_by_aff1_and_aff0(call: Call, target_cpu: int) -> int | None:
    """Look at Aff1 and Aff0 alone; all other bits are ignored."""
    wanted = target_cpu & _VIRTUAL_AFFINITY
    return next((vcpu for vcpu, mpidr in enumerate(call.power.mpidrs) if mpidr & _VIRTUAL_AFFINITY == wanted), None)


def even_entry(_call: Call, entry_point_address: int) -> Psci | None:
    """Refuse an odd entry point, which would be Thumb code, and nothing else."""
    return Psci.INVALID_ADDRESS if entry_point_address & 1 else None


def every_affinity_level_or_off(call: Call, target_affinity: int, lowest_affinity_level: int) -> Result:
    """Answer ON if any vCPU of the affinity instance is on, else OFF, also for an instance that does not exist."""
    level = lowest_affinity_level & MASK32
    if level > HIGHEST_AFFINITY_LEVEL:
        return returns(Psci.INVALID_PARAMETERS)
    states = call.power.states_of(target_affinity & AFFINITY_MASK, level)
    return returns(PowerState.ON if any(state is not PowerState.OFF for state in states) else PowerState.OFF)


def cpu_on_without_context(call: Call) -> Result:
    """Start a CPU with 0 in x0, and answer in 0.1's codes: no ALREADY_ON, no INVALID_ADDRESS; target_cpu is 32 bits."""
    target_cpu, entry_point_address, _ = call.args
    result = psci.cpu_on(call._replace(args=(target_cpu & MASK32, entry_point_address, 0)))
    return returns(Psci.INVALID_PARAMETERS) if result.values in ((Psci.ALREADY_ON,), (Psci.INVALID_ADDRESS,)) else result


def needed_for_v2_or_bhb(mitigations: Mitigations) -> int:
    """Workaround 1: 0 where Xen uses it or workaround 3 itself, else -1."""
    return Smccc.SUCCESS if "mitigated" in (mitigations.spectre_v2, mitigations.spectre_bhb) else Smccc.NOT_SUPPORTED


def runtime_unless_unknown(mitigations: Mitigations) -> int:
    """Workaround 2: 0, Xen lets guests switch it, -1 where EL3's firmware knows of none; TF-A, which never says NOT_REQUIRED on fvp."""
    return Smccc.NOT_SUPPORTED if mitigations.spectre_v4 == "vulnerable" else Smccc.SUCCESS


def needed_for_bhb(mitigations: Mitigations) -> int:
    """Workaround 3: 0 where Xen uses it itself, else -1."""
    return Smccc.SUCCESS if mitigations.spectre_bhb == "mitigated" else Smccc.NOT_SUPPORTED


# ---- the host

_PSCI: Final = frozenset(
    {
        "PSCI_VERSION",
        "CPU_SUSPEND",
        "CPU_OFF",
        "CPU_ON",
        "AFFINITY_INFO",
        "MIGRATE_INFO_TYPE",
        "SYSTEM_OFF",
        "SYSTEM_RESET",
        "PSCI_FEATURES",
        "SYSTEM_SUSPEND",
    }
)
_ANSWERS: Final = {
    "SMCCC_ARCH_WORKAROUND_1": needed_for_v2_or_bhb,
    "SMCCC_ARCH_WORKAROUND_2": runtime_unless_unknown,
    "SMCCC_ARCH_WORKAROUND_3": needed_for_bhb,
}

XEN: Final = (
    SPEC.evolve(name="xen", summary="Xen 4.22, a domU", cite=f"{_XEN} (commit c447b7308b13)")
    .evolve(
        latest=PSCI_1_1,
        versions=(PSCI_1_1,),
        offers_0_1=False,
        registers=(),
        bitmap_resets={},
        cite=f"{_XEN} xen/arch/arm/vpsci.c, do_psci_0_2_version: fixed",
    )
    .evolve(
        ids_0_1=FunctionIds(cpu_suspend=0, cpu_off=1, cpu_on=2, migrate=3),
        ids_0_1_always=True,
        serves_0_1=frozenset({"CPU_OFF", "CPU_ON"}),
        cpu_on_0_1=cpu_on_without_context,
        discovers_0_1_ids=False,
        cite=f"{_XEN} xen/include/public/arch-arm.h, PSCI_cpu_off and PSCI_cpu_on; xen/arch/arm/vpsci.c, do_vpsci_0_1_call, do_psci_cpu_on",
    )
    .evolve(
        smccc=SMCCC_1_2,
        smccc_versions=(SMCCC_1_2,),
        soc_id=None,
        serves=_PSCI | _ANSWERS.keys() | {"SMCCC_VERSION", "SMCCC_ARCH_FEATURES", "STD_CALL_COUNT", "STD_CALL_UID", "STD_CALL_REVISION"},
        cite=f"{_XEN} xen/arch/arm/vsmc.c, handle_arch and handle_sssc; vpsci.c, do_vpsci_0_2_call",
    )
    .evolve(
        truncates=_PSCI,
        cite='Xen commit f4af571dd7 ("xen/arm: vpsci: ignore upper 32 bits for SMC32 PSCI arguments") (in 4.22), PSCI_ARG_CONV',
    )
    .evolve(
        conduits=Conduits.BOTH,
        immediates={Conduit.HVC: Resume.UNDEF, Conduit.SMC: Resume.UNDEF},
        cite=f"{_XEN} xen/arch/arm/vsmc.c, vsmccc_handle_call, do_trap_smc; traps.c, do_trap_hypercall",
    )
    .evolve(
        writes_unreturned=True,
        cite=f"{_XEN} xen/arch/arm/vpsci.c, do_vpsci_0_2_call, PSCI_SET_RESULT after SYSTEM_OFF, SYSTEM_RESET and CPU_OFF",
    )
    .evolve(
        pending_seen_as=PowerState.ON,
        inherits_endianness=False,
        target_rule=target_by_aff1_and_aff0,
        entry_rule=even_entry,
        cite=f"{_XEN} xen/arch/arm/vpsci.c, do_common_cpu_on; asm/domain.h, vaffinity_to_vcpuid",
    )
    .evolve(
        affinity_rule=every_affinity_level_or_off,
        suspend_rule=psci_suspend.suspend_is_wfi,
        system_suspend_entry_first=True,
        cite=f"{_XEN} xen/arch/arm/vpsci.c, do_psci_0_2_affinity_info, do_psci_0_2_cpu_suspend, do_psci_1_0_system_suspend",
    )
    .evolve(
        workaround_answers=_ANSWERS,
        workaround_rule=smccc.workaround_unasked,
        cite=f"{_XEN} xen/arch/arm/vsmc.c, handle_arch; cpuerrata.c, has_ssbd_mitigation",
    )
    .evolve(
        at_el2={"SMCCC_ARCH_WORKAROUND_1": 2, "SMCCC_ARCH_WORKAROUND_2": 4, "SMCCC_ARCH_WORKAROUND_3": 2},
        at_el2_alone=False,
        cite=f"{_XEN} xen/arch/arm/arm64/entry.S, guest_sync and wa2_ssbd",
    )
    .evolve(
        standard_secure=StandardSecure((0x6F38_63F8, 0xBD4C_394B, 0x16CE_2092, 0x6F9F_E541), (0, 1), 17),
        cite=f"{_XEN} xen/include/public/arch-arm/smccc.h, SSSC_SMCCC_UID; vsmc.c, SSSC_SMCCC_FUNCTION_COUNT without CONFIG_FFA",
    )
    .evolve(
        # The strings are SPEC's; the IDs are the 0.1 ones.
        node_tells_0_1_ids=True,
        cite=f"{_XEN} tools/libs/light/libxl_arm.c, make_psci_node",
    )
    .evolve(
        deviations=(
            Deviation("SMCCC_ARCH_FEATURES", "SMCCC_VERSION", -1, _ARCH_FEATURES),
            Deviation("SMCCC_ARCH_FEATURES", "SMCCC_ARCH_FEATURES", -1, _ARCH_FEATURES),
        ),
        cite=_ARCH_FEATURES,
    )
)

HOSTS: Final = (XEN,)
