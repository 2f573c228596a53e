"""Trusted Firmware-A's EL3 runtime on the fvp platform, in its default build.

Read: TF-A commit 6a164dda (after v2.15), lib/psci, services/std_svc, services/arm_arch_svc, plat/arm/board/fvp. Not modelled:
SMCCC_ARCH_WORKAROUND_4, and SMCCC_ARCH_SOC_ID's SMC64 form, which is answered although ARCH_FEATURES denies it.
"""

from __future__ import annotations

from typing import Final

from firmware import psci, psci_suspend, smccc
from firmware.abi import MASK32, MASK64, PSCI_1_1, SMCCC_1_5, PowerState, Psci, Smccc, Version
from firmware.host import Call, Mitigations, Result, StandardSecure, TrustedOs, returns
from firmware.hosts.spec import SPEC
from firmware.trap import Conduit

_TF_A: Final = "TF-A commit 6a164dda (after v2.15)"

# plat/arm/board/fvp/include/platform_def.h, PLAT_MAX_PWR_LVL; fvp_pm.c, fvp_node_hw_state.
_SYSTEM_LEVEL: Final = 2
_CLUSTER_LEVEL: Final = 1
_HW_ON: Final = 0
_HW_OFF: Final = 1

_STATE_ID: Final = 0x0000_FFFF
_POWERDOWN: Final = 0x0001_0000
_LEVEL_SHIFT: Final = 24


# ---- rules of this host


def even_entry_in_ram(call: Call, entry_point_address: int) -> Psci | None:
    """Refuse an entry point that is odd or outside RAM."""
    base, size_bytes = call.config.ram
    return Psci.INVALID_ADDRESS if entry_point_address & 1 or not base <= entry_point_address < base + size_bytes else None


def only_affinity_level_0_as_word(call: Call, target_affinity: int, lowest_affinity_level: int) -> Result:
    """Know single CPUs, and refuse every higher level; the level is 32 bits."""
    if lowest_affinity_level & MASK32:
        return returns(Psci.INVALID_PARAMETERS)
    return psci.every_affinity_level(call, target_affinity, 0)


def suspend_in_fvp_states(call: Call) -> Result:
    """Suspend as asked, StateID 0 alone: standby at level 0, powerdown up to level 2."""
    power_state = call.args[0] & MASK32
    level = power_state >> _LEVEL_SHIFT & 3
    if power_state & _STATE_ID or level > _SYSTEM_LEVEL or (level and not power_state & _POWERDOWN):
        return returns(Psci.INVALID_PARAMETERS)
    return psci_suspend.suspend_as_asked(call)


def on_or_off_up_to_the_cluster(call: Call, target_cpu: int, power_level: int) -> Result:
    """Tell on and off apart, for a CPU and for its cluster: the power controller knows no standby."""
    if call.power.find(target_cpu) is None or power_level > _CLUSTER_LEVEL:
        return returns(Psci.INVALID_PARAMETERS)
    vcpus = call.power.vcpus_of(target_cpu, power_level)
    asleep = (call.power.states[vcpu] is PowerState.OFF or call.power.has_lost_its_state(vcpu) for vcpu in vcpus)
    return returns(_HW_OFF if all(asleep) else _HW_ON)


def spectre_v4_dynamic(mitigations: Mitigations) -> int:
    """Workaround 2: 0 where it can be switched, 1 where this PE is unaffected or has SSBS, -1 where there is none."""
    if mitigations.ssbs:
        return 1
    return {"mitigated": 0, "unaffected": 1, "vulnerable": Smccc.NOT_SUPPORTED}[mitigations.spectre_v4]


def spectre_bhb_or_v2(mitigations: Mitigations) -> int:
    """Workaround 3: as workaround 1, whose answer it takes where it has none of its own."""
    answer = smccc.spectre_bhb_or_unaffected(mitigations)
    return smccc.spectre_v2_or_unaffected(mitigations) if answer == Smccc.NOT_SUPPORTED else answer


def fvp_node_compatible(_version: Version) -> tuple[str, ...]:
    """List the node's strings as fdts/fvp-base-psci-common.dtsi does."""
    return ("arm,psci-1.0", "arm,psci-0.2")


# ---- the hosts

_PSCI: Final = frozenset(
    {
        "PSCI_VERSION",
        "CPU_SUSPEND",
        "CPU_OFF",
        "CPU_ON",
        "AFFINITY_INFO",
        "SYSTEM_OFF",
        "SYSTEM_RESET",
        "PSCI_FEATURES",
        "NODE_HW_STATE",
        "SYSTEM_SUSPEND",
        "SET_SUSPEND_MODE",
        "STAT_RESIDENCY",
        "STAT_COUNT",
        "MEM_PROTECT",
        "MEM_PROTECT_CHECK_RANGE",
    }
)
_STANDARD: Final = frozenset({"STD_CALL_COUNT", "STD_CALL_UID", "STD_CALL_REVISION"})
_ARCHITECTURE: Final = frozenset(
    {
        "SMCCC_VERSION",
        "SMCCC_ARCH_FEATURES",
        "SMCCC_ARCH_SOC_ID",
        "SMCCC_ARCH_WORKAROUND_1",
        "SMCCC_ARCH_WORKAROUND_2",
        "SMCCC_ARCH_WORKAROUND_3",
    }
)

TF_A: Final = (
    SPEC.evolve(
        name="tf-a",
        summary="Trusted Firmware-A 2.15 on fvp, without a Trusted OS",
        cite=_TF_A,
    )
    .evolve(
        latest=PSCI_1_1,
        versions=(PSCI_1_1,),
        offers_0_1=False,
        ids_0_1=None,
        serves_0_1=frozenset(),
        registers=(),
        bitmap_resets={},
        cite=f"{_TF_A} include/lib/psci/psci.h, PSCI_MAJOR_VER and PSCI_MINOR_VER: fixed; no 0.1 IDs",
    )
    .evolve(
        smccc=SMCCC_1_5,
        smccc_versions=(SMCCC_1_5,),
        cite=f"{_TF_A} include/lib/smccc.h, SMCCC_MAJOR_VERSION and SMCCC_MINOR_VERSION",
    )
    .evolve(
        # psci_setup.c derives the functions from fvp's hooks: no system_reset2. CPU_FREEZE and CPU_DEFAULT_SUSPEND exist nowhere.
        serves=_PSCI | _STANDARD | _ARCHITECTURE,
        cite=f"{_TF_A} lib/psci/psci_setup.c, psci_setup; plat/arm/board/fvp/fvp_pm.c, plat_arm_psci_pm_ops; platform.mk and "
        "plat/arm/common/arm_common.mk: PSCI_OS_INIT_MODE=1, ENABLE_PSCI_STAT=1, TRNG_SUPPORT=0, ARCH_FEATURE_AVAILABILITY=0",
    )
    .evolve(
        query_mask=MASK64,
        truncates=_PSCI | _STANDARD,
        cite=f"{_TF_A} services/std_svc/std_svc_setup.c, std_svc_smc_handler, clears the top halves; arm_arch_svc_setup.c does not",
    )
    .evolve(
        default_conduit=Conduit.SMC,
        node_compatible=fvp_node_compatible,
        cite=f"{_TF_A} fdts/fvp-base-psci-common.dtsi",
    )
    .evolve(
        entry_rule=even_entry_in_ram,
        cite=f"{_TF_A} lib/psci/psci_common.c, psci_validate_entry_point; plat/arm/common/arm_pm.c, arm_validate_ns_entrypoint",
    )
    .evolve(
        affinity_rule=only_affinity_level_0_as_word,
        cite=f"{_TF_A} lib/psci/psci_main.c, psci_affinity_info",
    )
    .evolve(
        suspend_rule=suspend_in_fvp_states,
        cite=f"{_TF_A} plat/arm/common/arm_pm.c, arm_validate_power_state, with ARM_RECOM_STATE_ID_ENC=0",
    )
    .evolve(
        hw_state_rule=on_or_off_up_to_the_cluster,
        cite=f"{_TF_A} plat/arm/board/fvp/fvp_pm.c, fvp_node_hw_state",
    )
    .evolve(
        workaround_answers={
            "SMCCC_ARCH_WORKAROUND_1": smccc.spectre_v2_or_unaffected,
            "SMCCC_ARCH_WORKAROUND_2": spectre_v4_dynamic,
            "SMCCC_ARCH_WORKAROUND_3": spectre_bhb_or_v2,
        },
        workaround_rule=smccc.workaround_unasked,
        cite=f"{_TF_A} services/arm_arch_svc/arm_arch_svc_setup.c, smccc_arch_features and arm_arch_svc_smc_handler, with "
        "DYNAMIC_WORKAROUND_CVE_2018_3639=1 (fvp)",
    )
    .evolve(
        # The revision is a register of the board's, which this machine has not: 0 (choice).
        soc_id=(0x043B_0000, 0x0000_0000),
        cite=f"{_TF_A} plat/arm/board/fvp/fvp_common.c, plat_get_soc_version",
    )
    .evolve(
        standard_secure=StandardSecure((0x108D_905B, 0x47E8_F863, 0xFBC0_2DAE, 0xE2F6_4156), (0, 1), 30),
        cite=f"{_TF_A} services/std_svc/std_svc_setup.c, arm_svc_uid; include/lib/psci/psci.h, PSCI_NUM_CALLS",
    )
)

TF_A_TOS: Final = TF_A.evolve(
    name="tf-a-tos",
    summary="tf-a with a uniprocessor Trusted OS that cannot migrate (TLK)",
    # No svc_migrate, so no MIGRATE; no svc_off either, so CPU_OFF is not denied. The resident CPU is told with MPIDR_EL1's bit 31.
    trusted_os=TrustedOs(type=1, vcpu=0, refuses_off=False, mpidr_bits=0x8000_0000),
    serves=TF_A.serves | {"MIGRATE_INFO_TYPE", "MIGRATE_INFO_UP_CPU"},
    cite=f"{_TF_A} services/spd/tlkd/tlkd_pm.c, cpu_migrate_info and tlkd_pm_ops; lib/psci/psci_common.c, psci_register_spd_pm_hook",
)

HOSTS: Final = (TF_A, TF_A_TOS)
