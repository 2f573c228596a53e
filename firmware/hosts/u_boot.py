"""U-Boot's own PSCI at EL3 (CONFIG_ARMV8_PSCI).

Read: U-Boot v2026.10-rc2-71 (commit 6073c36b) arch/arm/cpu/armv8/psci.S, whose every function is a stub that a board may replace;
arch/arm/mach-imx/imx8m/psci.c, the board that replaces most. Not modelled: x9 to x15 are clobbered.
"""

from __future__ import annotations

from typing import Final

from firmware import psci
from firmware.abi import MASK32, MASK64, PSCI_1_0, SMC64, PowerState, Psci, Version
from firmware.host import Call, Result, returns
from firmware.hosts.spec import SPEC
from firmware.trap import Conduit

_U_BOOT: Final = "U-Boot commit 6073c36b"
_PSCI_S: Final = f"{_U_BOOT} arch/arm/cpu/armv8/psci.S"
_IMX8M: Final = f"{_U_BOOT} arch/arm/mach-imx/imx8m/psci.c"

_PSCI_RANGE: Final = range(0x8400_0000, 0x8400_0020)
# _psci_32_table and _psci_64_table.
_IN_TABLE: Final = frozenset(range(0x8400_0000, 0x8400_0012)) | {
    SMC64 | 0x8400_0000 | number for number in (0x1, 0x3, 0x4, 0x5, 0x7, 0xC, 0xD, 0xE, 0x10, 0x11, 0x12)
}

_AFF0: Final = 0xFF


# ---- rules of these hosts


def refused_by_table(_conduit: Conduit, fid: int) -> Result:
    """Refuse with 64 bits what is of PSCI's range and in neither table, with 32 bits all else."""
    return returns(MASK64 if fid & ~SMC64 in _PSCI_RANGE and fid not in _IN_TABLE else MASK32)


def target_by_aff0(call: Call, target_cpu: int) -> int | None:
    """Know CPUs that differ in Aff0; any other bit names none."""
    return None if target_cpu & ~_AFF0 else call.power.find(target_cpu)


def only_affinity_level_0_by_aff0(call: Call, target_affinity: int, lowest_affinity_level: int) -> Result:
    """Know single CPUs, by Aff0; INVALID_PARAMETERS for every higher level."""
    vcpu = target_by_aff0(call, target_affinity)
    if lowest_affinity_level & MASK32 or vcpu is None:
        return returns(Psci.INVALID_PARAMETERS)
    return returns(PowerState.OFF if call.power.states[vcpu] is PowerState.OFF else PowerState.ON)


def fixed_up_node_compatible(_version: Version) -> tuple[str, ...]:
    """List the node's strings as arch/arm/lib/psci-dt.c does."""
    return ("arm,psci-1.0", "arm,psci-0.2")


# ---- the hosts

U_BOOT_BARE: Final = (
    SPEC.evolve(
        name="u-boot-bare",
        summary="U-Boot 2026.10's own PSCI on a board that adds nothing: every call is refused",
        cite=_U_BOOT,
    )
    .evolve(
        latest=PSCI_1_0,
        versions=(PSCI_1_0,),
        offers_0_1=False,
        ids_0_1=None,  # in the table, but out of the range that is looked at
        serves_0_1=frozenset(),
        registers=(),
        bitmap_resets={},
        smccc=None,
        smccc_versions=(),
        soc_id=None,
        serves=frozenset(),
        cite=f"{_PSCI_S}, PSCI_DEFAULT, handle_smc32, handle_svc",
    )
    .evolve(
        function_id_mask=MASK64,
        unknown_rule=refused_by_table,
        status_mask=MASK32,
        truncates=frozenset(),
        cite=f"{_PSCI_S}, handle_psci compares all of x0; a function's result is w0",
    )
    .evolve(
        default_conduit=Conduit.SMC,
        node_compatible=fixed_up_node_compatible,
        cite=f"{_U_BOOT} arch/arm/lib/psci-dt.c, fdt_psci",
    )
)

U_BOOT: Final = (
    U_BOOT_BARE.evolve(name="u-boot", summary="U-Boot 2026.10's own PSCI on i.MX8M", cite=_IMX8M)
    .evolve(
        serves=frozenset(
            {
                "PSCI_VERSION",
                "CPU_OFF",
                "CPU_ON",
                "AFFINITY_INFO",
                "MIGRATE_INFO_TYPE",
                "SYSTEM_OFF",
                "SYSTEM_RESET",
                "PSCI_FEATURES",
                "SYSTEM_RESET2",
            }
        ),
        early=frozenset({"SYSTEM_RESET2"}),  # at PSCI 1.0
        lacks=frozenset({0x8400_0012}),
        any_reset_type=True,
        cite=f"{_IMX8M}, psci_features, psci_system_reset2_64",
    )
    .evolve(
        truncates=frozenset({"CPU_ON", "AFFINITY_INFO"}),
        pending_seen_as=PowerState.ON,
        inherits_endianness=False,
        passes_context_id=False,
        target_rule=target_by_aff0,
        entry_rule=psci.entry_unchecked,
        affinity_rule=only_affinity_level_0_by_aff0,
        cite=f"{_IMX8M}, psci_cpu_on_64, which drops context_id; psci_affinity_info_64",
    )
)

HOSTS: Final = (U_BOOT, U_BOOT_BARE)
