"""KVM/arm64, by kernel release: each is its predecessor with what changed.

Sources: the commits cited, and the code of the releases named in them. Linux 4.19 and 6.12 are checked, step by step, against recorded
answers of KVM's own code (tests/vectors). "(not re-read)" marks a fact that is known from a change log alone.
"""

from __future__ import annotations

import errno
from typing import Final

from firmware import psci, psci_suspend, smccc
from firmware.abi import MASK64, PSCI_0_1, PSCI_0_2, PSCI_1_0, PSCI_1_1, PSCI_1_2, PSCI_1_3, SMCCC_1_1, PowerState, Psci
from firmware.host import Conduits, Deviation, Host
from firmware.hosts.kvm_interface import interface_at
from firmware.hosts.spec import SPEC
from firmware.trap import Conduit, Reply, Resume

_ARCH_FEATURES: Final = (
    "Linux v4.19 virt/kvm/arm/psci.c, kvm_hvc_call_handler, the switch over the queried function; arch/arm64/kvm/hypercalls.c since v5.5"
)
_SMC_FAILS: Final = Reply(((0, MASK64),))

_PSCI_0_2: Final = frozenset(
    {
        "PSCI_VERSION",
        "CPU_SUSPEND",
        "CPU_OFF",
        "CPU_ON",
        "AFFINITY_INFO",
        "MIGRATE_INFO_TYPE",
        "SYSTEM_OFF",
        "SYSTEM_RESET",
    }
)
_SMCCC_1_1: Final = frozenset({"PSCI_FEATURES", "SMCCC_VERSION", "SMCCC_ARCH_FEATURES", "SMCCC_ARCH_WORKAROUND_1"})
_PV_TIME: Final = frozenset({"PV_TIME_FEATURES", "PV_TIME_ST"})
_TRNG: Final = frozenset({"TRNG_VERSION", "TRNG_FEATURES", "TRNG_GET_UUID", "TRNG_RND32", "TRNG_RND64"})
_VENDOR_HYP: Final = frozenset({"VENDOR_HYP_FEATURES", "VENDOR_HYP_PTP", "VENDOR_HYP_CALL_UID"})


def _release(host: Host, release: str, what: str) -> Host:
    return host.evolve(
        user_interface=interface_at(tuple(map(int, release.split(".")))),
        name=f"kvm-{release}",
        summary=f"KVM/arm64 of Linux {release}: {what}",
        cite=f"Linux v{release} arch/arm64/kvm (virt/kvm/arm, arch/arm/kvm)",
    )


KVM_3_11: Final = (
    _release(SPEC, "3.11", "the first on arm64; PSCI 0.1")
    .evolve(
        latest=PSCI_0_1,
        versions=(PSCI_0_1,),
        smccc=None,
        smccc_versions=(),
        registers=(),
        bitmap_resets={},
        serves=frozenset(),
        serves_0_1=frozenset({"CPU_OFF", "CPU_ON"}),
        refuses_0_1=frozenset({"CPU_SUSPEND", "MIGRATE"}),
        unknown=None,
        cite="Linux commit aa024c2f35a0 (in v3.9), arch/arm/kvm/psci.c",
    )
    .evolve(
        conduits=Conduits.BOTH,
        truncates=frozenset(),
        writes_unreturned=True,
        cite="Linux v3.10 arch/arm/kvm/psci.c and handle_exit.c: HVC and SMC alike, whole registers, one result in x0",
    )
    .evolve(
        pending_seen_as=PowerState.ON,
        resets_in_cpu_on=True,
        access_applies_reset=False,
        passes_context_id=False,
        inherits_endianness=False,
        target_rule=psci.target_by_index,
        entry_rule=psci.entry_unchecked,
        affinity_rule=psci.every_affinity_level_nobody_off,
        suspend_rule=psci_suspend.suspend_is_wfi,
        system_suspend_needs_capability=True,
        system_suspend_needs_others_off=False,
        cite="Linux v3.10 arch/arm/kvm/psci.c, kvm_psci_vcpu_on",
    )
    .evolve(
        workaround_answers={},
        soc_id=None,
        trng_uuid=(0x00E0_210D, 0xEB11_8443, 0x4452_7080, 0x4C5A_4E55),
        trng_zero_bits=True,
        cite="Linux arch/arm64/kvm/trng.c (in v5.12), and its absence before",
    )
)

KVM_3_13: Final = _release(KVM_3_11, "3.13", "CPU_ON takes an MPIDR, and the caller's endianness").evolve(
    target_rule=psci.target_by_affinity_fields,
    inherits_endianness=True,
    cite="Linux v3.13 arch/arm/kvm/psci.c, kvm_psci_vcpu_on; in v3.12 it takes an index",
)

# Up to 3.13 CPU_ON also refuses a target whose thread is not in KVM_RUN yet; here each vCPU's is.
KVM_3_14: Final = _release(KVM_3_13, "3.14", "SMC is undefined").evolve(
    undispatched={Conduit.SMC: Reply(resume=Resume.UNDEF)},
    cite="Linux commit e5cf9dcdbfd2 (in v3.14)",
)

KVM_3_16: Final = (
    _release(KVM_3_14, "3.16", "PSCI 0.2")
    .evolve(
        latest=PSCI_0_2,
        versions=(PSCI_0_2,),
        serves=_PSCI_0_2,
        refuses=frozenset({"MIGRATE", "MIGRATE_INFO_UP_CPU"}),
        cite="Linux v3.16 arch/arm/kvm/psci.c, kvm_psci_0_2_call",
    )
    .evolve(passes_context_id=True, cite="Linux commit aa8aeefe5e56 (in v3.16)")
    .evolve(system_event_stops_vcpus=False, cite="Linux v3.16 arch/arm/kvm/psci.c, kvm_prepare_system_event")
)

KVM_3_19: Final = _release(KVM_3_16, "3.19", "SYSTEM_OFF and SYSTEM_RESET stop every vCPU").evolve(
    system_event_stops_vcpus=True,
    cite="Linux commit cf5d318865e2 (in v3.19), arch/arm/kvm/psci.c, kvm_prepare_system_event",
)

KVM_4_2: Final = _release(KVM_3_19, "4.2", "an unknown function is answered -1").evolve(
    unknown=Psci.NOT_SUPPORTED,
    cite="Linux commit e2d997366dc5 (in v4.2), arch/arm/kvm/psci.c, kvm_psci_0_2_call and kvm_psci_0_1_call",
)

KVM_4_3: Final = _release(KVM_4_2, "4.3", "AFFINITY_INFO refuses a CPU that does not exist").evolve(
    affinity_rule=psci.every_affinity_level_by_fields,
    cite="Linux commit 0c0672922dcc (in about v4.3) (not re-read), arch/arm/kvm/psci.c, kvm_psci_vcpu_affinity_info",
)

# What changed is a race between threads (Linux commit 6c7a5dce22b3): CPU_ON has one winner, as it always had here.
KVM_4_12: Final = _release(KVM_4_3, "4.12", "CPU_ON has one winner")

KVM_4_15: Final = _release(KVM_4_12, "4.15", "SMC gets -1 and never advances").evolve(
    undispatched={Conduit.SMC: Reply(((0, MASK64),), Resume.SAME)},
    cite="Linux commit acfb3b883f6d (in v4.15 or v4.16)",
)

_SPECTRE_V2: Final = "Linux commit 6167ec5c9145 (in v4.16)"
_DISCOVERY_GAPS: Final = (
    Deviation("SMCCC_ARCH_FEATURES", "SMCCC_VERSION", -1, _ARCH_FEATURES),
    Deviation("SMCCC_ARCH_FEATURES", "SMCCC_ARCH_FEATURES", -1, _ARCH_FEATURES),
)


def _with_spectre_v2(host: Host) -> Host:
    """Return a release with what came with the Spectre-v2 workaround: PSCI 1.0 for everybody, SMCCC 1.1."""
    return (
        host.evolve(
            latest=PSCI_1_0,
            versions=(PSCI_1_0,),
            serves=host.serves | _SMCCC_1_1,
            cite="Linux commit 58e0b2239a4d (in v4.16): with no way to ask for 0.2",
        )
        .evolve(
            smccc=SMCCC_1_1,
            smccc_versions=(SMCCC_1_1,),
            result_registers=4,
            words=frozenset({"SMCCC_ARCH_FEATURES"}),
            cite='Linux commit 09e6be12effd ("arm/arm64: KVM: Advertise SMCCC v1.1") (in v4.16), smccc_set_retval; u32 feature',
        )
        .evolve(
            workaround_answers={"SMCCC_ARCH_WORKAROUND_1": smccc.spectre_v2_hardened},
            at_el2={"SMCCC_ARCH_WORKAROUND_1": 2},
            cite=f"{_SPECTRE_V2}; arch/arm64/kvm/hyp/hyp-entry.S, el1_hvc_guest: x0 and x1 become 0, the immediate is not looked at",
        )
        .evolve(deviations=_DISCOVERY_GAPS, cite=_ARCH_FEATURES)
    )


def _with_version_register(host: Host) -> Host:
    """Return a release with the version register of 2018."""
    return host.evolve(
        versions=(PSCI_0_2, PSCI_1_0),
        registers=("PSCI_VERSION",),
        unknown_register=errno.EINVAL,
        cite='Linux commit 85bd0ba1ff98 ("arm/arm64: KVM: Add PSCI version selection API") (in v4.17, v4.16.7, v4.14.39, v4.9.99)',
    )


KVM_4_16: Final = _with_spectre_v2(_release(KVM_4_15, "4.16", "PSCI 1.0 silently, SMCCC 1.1, ARCH_WORKAROUND_1")).evolve(
    undispatched={Conduit.SMC: _SMC_FAILS},
    cite="Linux commit f5115e8869e1 (in v4.16)",
)

KVM_4_17: Final = _with_version_register(_release(KVM_4_16, "4.17", "the version register"))

# What the stable trees do with SMC was not read.
KVM_4_9_99: Final = (
    _with_version_register(_with_spectre_v2(_release(KVM_4_3, "4.9.99", "4.9 with Spectre v2 and the version register")))
).leave_unknown("undispatched")
KVM_4_14_39: Final = (
    _with_version_register(_with_spectre_v2(_release(KVM_4_12, "4.14.39", "4.14 with Spectre v2 and the version register")))
).leave_unknown("undispatched")
KVM_4_16_7: Final = _with_version_register(_release(KVM_4_16, "4.16.7", "4.16 with the version register"))

KVM_4_18: Final = _release(KVM_4_17, "4.18", "ARCH_WORKAROUND_2, switched by the guest").evolve(
    serves=KVM_4_17.serves | {"SMCCC_ARCH_WORKAROUND_2"},
    workaround_answers={**KVM_4_17.workaround_answers, "SMCCC_ARCH_WORKAROUND_2": smccc.spectre_v4_by_ssbd},
    at_el2={**KVM_4_17.at_el2, "SMCCC_ARCH_WORKAROUND_2": 3},
    switches_ssbd=True,
    cite="Linux v4.19 virt/kvm/arm/psci.c, kvm_hvc_call_handler, and arch/arm64/kvm/hyp/hyp-entry.S (in v4.18)",
)

KVM_5_0: Final = _release(KVM_4_18, "5.0", "a started vCPU is reset when it is entered").evolve(
    resets_in_cpu_on=False,
    cite='Linux commit 358b28f09f0a ("arm/arm64: KVM: Allow a VCPU to fully reset itself") (in v5.0, by kvm-arm-fixes-for-5.0)',
)

KVM_5_3: Final = _release(KVM_5_0, "5.3", "registers for the workarounds").evolve(
    registers=("PSCI_VERSION", "SMCCC_ARCH_WORKAROUND_1", "SMCCC_ARCH_WORKAROUND_2"),
    unknown_register=errno.ENOENT,
    workaround_answers={**KVM_5_0.workaround_answers, "SMCCC_ARCH_WORKAROUND_1": smccc.spectre_v2_or_not_required},
    cite="Linux commit 99adb567632b (in v5.3)",
)

KVM_5_5: Final = (
    _release(KVM_5_3, "5.5", "stolen time; results as wide as registers")
    .evolve(
        serves=KVM_5_3.serves | _PV_TIME,
        bitmap_resets={"STD_HYP_BMAP": 0x1},
        pv_time_needs_address=False,
        cite="Linux v5.5 virt/kvm/arm/hypercalls.c and pvtime.c",
    )
    .evolve(words=frozenset(), cite="Linux v5.5 virt/kvm/arm/hypercalls.c: long val")
)

KVM_5_7: Final = _release(KVM_5_5, "5.7", "an SMC32 call's arguments are 32 bits wide").evolve(
    truncates=frozenset({"CPU_ON", "AFFINITY_INFO", "SYSTEM_SUSPEND", "SYSTEM_RESET2"}),
    truncation_written_back=True,
    cite="Linux v5.7 virt/kvm/arm/psci.c, kvm_psci_narrow_to_32bit",
)

KVM_5_9: Final = _release(KVM_5_7, "5.9", "PV_TIME_FEATURES waits for an address").evolve(
    pv_time_needs_address=True,
    cite="Linux commit 38480df564cc (in v5.9) (not re-read), arch/arm64/kvm/pvtime.c",
)

KVM_5_10: Final = _release(KVM_5_9, "5.10", "Spectre rewritten: nothing to switch, 1 for unaffected").evolve(
    workaround_answers={
        "SMCCC_ARCH_WORKAROUND_1": smccc.spectre_v2_or_unaffected,
        "SMCCC_ARCH_WORKAROUND_2": smccc.spectre_v4_not_required,
    },
    at_el2={"SMCCC_ARCH_WORKAROUND_1": 2, "SMCCC_ARCH_WORKAROUND_2": 2},
    switches_ssbd=False,
    cite='Linux commit 29e8910a566a ("KVM: arm64: Simplify handling of ARCH_WORKAROUND_2") (in v5.10); '
    "1de111b51b82 (in v5.10) (not re-read) for workaround 1",
)

KVM_5_12: Final = _release(KVM_5_10, "5.12", "TRNG").evolve(
    serves=KVM_5_10.serves | _TRNG,
    bitmap_resets={**KVM_5_10.bitmap_resets, "STD_BMAP": 0x1},
    cite="Linux v5.12 arch/arm64/kvm/trng.c",
)

KVM_5_13: Final = _release(KVM_5_12, "5.13", "KVM's own service, PTP").evolve(
    serves=KVM_5_12.serves | _VENDOR_HYP,
    bitmap_resets={**KVM_5_12.bitmap_resets, "VENDOR_HYP_BMAP": 0x3},
    cite="Linux v5.13 arch/arm64/kvm/hypercalls.c; Documentation/virt/kvm/arm/ptp_kvm.rst",
)

KVM_5_15: Final = (
    _release(KVM_5_13, "5.15", "reserved affinity bits are refused")
    .evolve(
        target_rule=psci.target_by_mpidr,
        affinity_rule=psci.every_affinity_level,
        cite="Linux commit e10ecb4d6c07 (in v5.15) (not re-read), arch/arm64/kvm/psci.c, kvm_psci_valid_affinity",
    )
    .evolve(
        access_applies_reset=True,
        cite="Linux commit 6826c6849b46 (in v5.15)",
    )
)

_SPECTRE_BHB: Final = 'Linux commit a5905d6af492 ("KVM: arm64: Allow SMCCC_ARCH_WORKAROUND_3 to be discovered and migrated") (in v5.17)'
KVM_5_17: Final = (
    _release(KVM_5_15, "5.17", "ARCH_WORKAROUND_3")
    .evolve(
        serves=KVM_5_15.serves | {"SMCCC_ARCH_WORKAROUND_3"},
        registers=(*KVM_5_15.registers, "SMCCC_ARCH_WORKAROUND_3"),
        workaround_answers={**KVM_5_15.workaround_answers, "SMCCC_ARCH_WORKAROUND_3": smccc.spectre_bhb_or_unaffected},
        cite=_SPECTRE_BHB,
    )
    .evolve(
        at_el2={**KVM_5_15.at_el2, "SMCCC_ARCH_WORKAROUND_3": 2},
        cite='Linux commit 558c303c9734 ("arm64: Mitigate spectre style branch history side channels") (in v5.17), hyp-entry.S',
    )
)

KVM_5_18: Final = _release(KVM_5_17, "5.18", "PSCI 1.1, SYSTEM_RESET2").evolve(
    latest=PSCI_1_1,
    versions=(PSCI_0_2, PSCI_1_0, PSCI_1_1),
    serves=KVM_5_17.serves | {"SYSTEM_RESET2"},
    cite='Linux commit 512865d83fd9 ("KVM: arm64: Bump guest PSCI version to 1.1") (in v5.18)',
)

KVM_5_19: Final = (
    _release(KVM_5_18, "5.19", "feature bitmaps, SYSTEM_SUSPEND on request")
    .evolve(
        registers=(*KVM_5_18.registers, "STD_BMAP", "STD_HYP_BMAP", "VENDOR_HYP_BMAP"),
        cite='Linux commit 05714cab7d63 ("KVM: arm64: Setup a framework for hypercall bitmap firmware registers") (in v5.19)',
    )
    .evolve(
        serves=KVM_5_18.serves | {"SYSTEM_SUSPEND"},
        cite="Linux commit bfbab4456877 (in v5.19)",
    )
)

KVM_6_4: Final = (
    _release(KVM_5_19, "6.4", "SMC is served as HVC")
    .evolve(
        undispatched={},
        immediates={Conduit.SMC: -1},
        cite="Linux v6.4 arch/arm64/kvm/handle_exit.c, handle_smc",
    )
    .evolve(
        off_by_smc_skips=True,
        cite='Linux commit c2d2e9b3d8ce ("KVM: arm64: Start handling SMCs from EL1") (in v6.4): the PC is advanced at the next entry, '
        "after the reset, until 1744a6ef48b9 (in v7.0)",
    )
)

KVM_6_5: Final = _release(KVM_6_4, "6.5", "features are the VM's, POWER_OFF is forgotten")

KVM_6_12: Final = _release(KVM_6_5, "6.12", "as 6.5, its answers checked against recordings")

KVM_6_13: Final = (
    _release(KVM_6_12, "6.13", "PSCI 1.3, SYSTEM_OFF2")
    .evolve(
        latest=PSCI_1_3,
        versions=(PSCI_0_2, PSCI_1_0, PSCI_1_1, PSCI_1_2, PSCI_1_3),
        cite="Linux commit 8be82d536a9f (in v6.13)",
    )
    .evolve(
        serves=KVM_6_12.serves | {"SYSTEM_OFF2"},
        truncates=KVM_6_12.truncates | {"SYSTEM_OFF2"},
        cite="Linux commit 97413cea1c48 (in v6.13)",
    )
)

KVM_6_15: Final = _release(KVM_6_13, "6.15", "a second vendor bitmap").evolve(
    registers=(*KVM_6_13.registers, "VENDOR_HYP_BMAP_2"),
    bitmap_resets={**KVM_6_13.bitmap_resets, "VENDOR_HYP_BMAP_2": 0x0},
    cite="Linux commit c0000e58c74e (in v6.15)",
)

KVM_7_0: Final = _release(KVM_6_15, "7.0", "a reset from PSCI forgets a pending step").evolve(
    off_by_smc_skips=False,
    cite='Linux commit 1744a6ef48b9 ("KVM: arm64: Discard PC update state on vcpu reset") (in v7.0)',
)
