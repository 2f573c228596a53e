"""`spec`: what the standards ask, where they leave a choice the one that hides least from a guest.

DEN 0022 and DEN 0028 could not be read here; what they ask is taken from TF-A's lib/psci, the reference implementation, and
from the kernels that were written to them. Columns marked "choice" are ours.
"""

from __future__ import annotations

from typing import Final

from firmware import general, psci, psci_0_1, psci_optional, psci_suspend, pv_time, smccc, trng, vendor_hyp
from firmware.abi import (
    MASK32,
    PSCI_0_2,
    PSCI_1_0,
    PSCI_1_1,
    PSCI_1_2,
    PSCI_1_3,
    SMCCC_1_3,
    SMCCC_VERSIONS,
    PowerState,
    Psci,
    Version,
)
from firmware.host import Conduits, FunctionIds, Host, StandardSecure
from firmware.trap import Conduit

# The IDs that KVM, QEMU, U-Boot and Jailhouse all use for 0.1 (Linux arch/arm64/include/uapi/asm/kvm.h, KVM_PSCI_FN_BASE).
COMMON_0_1_IDS: Final = FunctionIds(cpu_suspend=0x95C1_BA5E, cpu_off=0x95C1_BA5F, cpu_on=0x95C1_BA60, migrate=0x95C1_BA61)


def qemu_node_compatible(version: Version) -> tuple[str, ...]:
    """List the psci node's strings as QEMU's virt does (hw/arm/virt.c, fdt_add_psci_node), newest first."""
    if version < PSCI_0_2:
        return ("arm,psci",)
    if version < PSCI_1_0:
        return ("arm,psci-0.2", "arm,psci")
    return ("arm,psci-1.0", "arm,psci-0.2", "arm,psci")


_EVERY_ROW: Final = frozenset(
    function.name
    for rows in (psci.ROWS, psci_optional.ROWS, smccc.ROWS, trng.ROWS, pv_time.ROWS, vendor_hyp.ROWS, general.ROWS)
    for function in rows
)

SPEC: Final = Host(
    name="spec",
    summary="the standards themselves: PSCI 0.1 to 1.3, SMCCC 1.0 to 1.6",
    latest=PSCI_1_3,
    versions=(PSCI_0_2, PSCI_1_0, PSCI_1_1, PSCI_1_2, PSCI_1_3),
    offers_0_1=True,
    smccc=SMCCC_1_3,
    smccc_versions=SMCCC_VERSIONS,
    # choice: the register list of the newest KVM, so that every version can be asked for in KVM's way.
    registers=(
        "PSCI_VERSION",
        "SMCCC_ARCH_WORKAROUND_1",
        "SMCCC_ARCH_WORKAROUND_2",
        "SMCCC_ARCH_WORKAROUND_3",
        "STD_BMAP",
        "STD_HYP_BMAP",
        "VENDOR_HYP_BMAP",
        "VENDOR_HYP_BMAP_2",
    ),
    # choice: a vendor's service is not the standards' and is off until its bitmap says otherwise.
    bitmap_resets={"STD_BMAP": 0x1, "STD_HYP_BMAP": 0x1, "VENDOR_HYP_BMAP": 0x0, "VENDOR_HYP_BMAP_2": 0x0},
    serves=_EVERY_ROW,
    serves_0_1=frozenset(psci_0_1.NAMES),
    ids_0_1=COMMON_0_1_IDS,
    ids_0_1_always=False,
    function_id_mask=MASK32,  # a function identifier is W0 (DEN 0028)
    query_mask=MASK32,
    unknown=Psci.NOT_SUPPORTED,
    conduits=Conduits.PLATFORM,
    default_conduit=Conduit.HVC,
    result_registers=1,  # SMCCC 1.1 lets x1 to x3 be anything; TF-A leaves them
    writes_unreturned=False,
    truncates=_EVERY_ROW,  # an SMC32 call's arguments are W registers (DEN 0028)
    truncation_written_back=False,
    pending_seen_as=PowerState.ON_PENDING,
    target_rule=psci.target_by_mpidr,
    inherits_endianness=True,  # TF-A psci_get_ns_ep_info
    cpu_on_0_1=psci.cpu_on,
    entry_rule=psci.entry_in_ram,
    affinity_rule=psci.every_affinity_level_as_word,
    suspend_rule=psci_suspend.suspend_as_asked,
    extended_state_id=False,  # choice: the original format, TF-A's default
    hw_state_rule=psci_optional.hw_state_of_every_level,
    trusted_os=None,
    system_suspend_needs_capability=False,
    system_suspend_needs_others_off=True,
    at_el2={},
    workaround_answers={
        "SMCCC_ARCH_WORKAROUND_1": smccc.spectre_v2_or_unaffected,
        "SMCCC_ARCH_WORKAROUND_2": smccc.spectre_v4_not_required,
        "SMCCC_ARCH_WORKAROUND_3": smccc.spectre_bhb_or_unaffected,
    },
    workaround_rule=smccc.workaround_as_discovered,
    # choice: 8b0f6a52-9c1d-4e37-8d64-3f0a7be2c915, revision 1.0. W0 of a UID must not be all ones: that is NOT_SUPPORTED.
    standard_secure=StandardSecure((0x526A_0F8B, 0x374E_1D9C, 0x0A3F_648D, 0x15C9_E27B), (1, 0)),
    soc_id=(0x043B_0000, 0x0000_0000),  # choice: Arm's JEP-106 code (bank 4, 0x3B), part 0, revision 0
    soc_name="psci-emu spec",  # choice
    trng_uuid=(0x7073_6369, 0x2D65_4D75, 0x8000_7370, 0x6563_0001),  # choice
    trng_zero_bits=False,  # DEN 0098: N is 1 to 96 or 192 (TF-A services/std_svc/trng)
    node_compatible=qemu_node_compatible,
)

HOSTS: Final = (SPEC,)
