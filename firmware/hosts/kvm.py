"""KVM/arm64, by kernel release.

Read: Linux 6.12 arch/arm64/kvm/psci.c, hypercalls.c, handle_exit.c, trng.c, pvtime.c, guest.c; checked, step by step, against
recorded answers of that code (tests/vectors).
"""

from __future__ import annotations

from typing import Final

from firmware import psci, psci_0_1, psci_suspend
from firmware.abi import PSCI_0_2, PSCI_1_0, PSCI_1_1, SMCCC_1_1, PowerState
from firmware.host import Conduits, Deviation
from firmware.hosts.spec import SPEC
from firmware.trap import Conduit

_ALLOW_LIST: Final = (
    'Linux commit 05714cab7d63 ("KVM: arm64: Setup a framework for hypercall bitmap firmware registers") (in v5.19), '
    "arch/arm64/kvm/hypercalls.c, kvm_smccc_call_handler"
)

# Named one by one: what the standards gain, KVM does not.
_SERVES: Final = frozenset(
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
        "SYSTEM_RESET2",
        "SMCCC_VERSION",
        "SMCCC_ARCH_FEATURES",
        "SMCCC_ARCH_WORKAROUND_1",
        "SMCCC_ARCH_WORKAROUND_2",
        "SMCCC_ARCH_WORKAROUND_3",
        "TRNG_VERSION",
        "TRNG_FEATURES",
        "TRNG_GET_UUID",
        "TRNG_RND32",
        "TRNG_RND64",
        "PV_TIME_FEATURES",
        "PV_TIME_ST",
        "VENDOR_HYP_FEATURES",
        "VENDOR_HYP_PTP",
        "VENDOR_HYP_CALL_UID",
    }
)

KVM_6_12: Final = (
    SPEC.evolve(
        name="kvm-6.12",
        summary="KVM/arm64 of Linux 6.12",
        cite="Linux v6.12 arch/arm64/kvm",
    )
    .evolve(
        latest=PSCI_1_1,
        versions=(PSCI_0_2, PSCI_1_0, PSCI_1_1),
        cite='Linux commit 512865d83fd9 ("KVM: arm64: Bump guest PSCI version to 1.1") (in v5.18)',
    )
    .evolve(smccc=SMCCC_1_1, smccc_versions=(SMCCC_1_1,), cite="arch/arm64/kvm/hypercalls.c, ARM_SMCCC_VERSION_1_1")
    .evolve(
        registers=SPEC.registers[:-1],
        bitmap_resets={"STD_BMAP": 0x1, "STD_HYP_BMAP": 0x1, "VENDOR_HYP_BMAP": 0x3},
        cite='Linux commit 05714cab7d63 ("KVM: arm64: Setup a framework for hypercall bitmap firmware registers") (in v5.19)',
    )
    .evolve(
        serves=_SERVES,
        serves_0_1=frozenset({"CPU_OFF", "CPU_ON"}),
        cite="arch/arm64/kvm/psci.c, kvm_psci_0_2_call and kvm_psci_0_1_call; hypercalls.c",
    )
    .evolve(
        conduits=Conduits.BOTH,
        immediates={Conduit.SMC: -1},
        cite="Linux v6.12 arch/arm64/kvm/handle_exit.c, handle_smc (dispatched since v6.4)",
    )
    .evolve(
        result_registers=4,
        writes_unreturned=True,
        cite='Linux commit 09e6be12effd ("arm/arm64: KVM: Advertise SMCCC v1.1") (in v4.16), smccc_set_retval',
    )
    .evolve(
        truncates=frozenset({"CPU_ON", "AFFINITY_INFO", "SYSTEM_SUSPEND", "SYSTEM_RESET2"}),
        truncation_written_back=True,
        cite="arch/arm64/kvm/psci.c, kvm_psci_narrow_to_32bit (in v5.7)",
    )
    .evolve(
        pending_seen_as=PowerState.ON,
        entry_rule=psci.entry_unchecked,
        affinity_rule=psci.every_affinity_level,
        suspend_rule=psci_suspend.suspend_is_wfi,
        system_suspend_needs_capability=True,
        system_suspend_needs_others_off=False,
        cite="arch/arm64/kvm/psci.c, kvm_psci_vcpu_on, kvm_psci_vcpu_suspend, kvm_psci_system_suspend",
    )
    .evolve(
        workarounds_at_el2=True,
        # x0 and x1 become 0 on a hit, all else stays; the low 32 bits of x0 are compared, the immediate is not looked at.
        cite="Linux arch/arm64/kvm/hyp/hyp-entry.S, el1_sync and wa_epilogue: workaround 2 always since commit 29e8910a566a "
        '("KVM: arm64: Simplify handling of ARCH_WORKAROUND_2") (in v5.10), workaround 3 since commit 558c303c9734 '
        '("arm64: Mitigate spectre style branch history side channels") (in v5.17)',
    )
    .evolve(
        workaround_answers=SPEC.workaround_answers,
        cite='Linux commit a5905d6af492 ("KVM: arm64: Allow SMCCC_ARCH_WORKAROUND_3 to be discovered and migrated") (in v5.17), '
        "arch/arm64/kvm/hypercalls.c",
    )
    .evolve(
        trng_uuid=(0x00E0_210D, 0xEB11_8443, 0x4452_7080, 0x4C5A_4E55),
        trng_zero_bits=True,
        soc_id=None,
        cite="arch/arm64/kvm/trng.c",
    )
    .evolve(
        deviations=(
            Deviation("SMCCC_ARCH_FEATURES", "SMCCC_VERSION", -1, _ALLOW_LIST),
            Deviation("SMCCC_ARCH_FEATURES", "SMCCC_ARCH_FEATURES", -1, _ALLOW_LIST),
        ),
        cite=_ALLOW_LIST,
    )
)

# Fewer names under 0.1 than the standard's four: kvm_psci_0_1_call answers CPU_SUSPEND and MIGRATE with NOT_SUPPORTED.
assert KVM_6_12.serves_0_1 < frozenset(psci_0_1.NAMES)
