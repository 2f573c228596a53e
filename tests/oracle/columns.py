"""One column per host: every point where the modelled hosts differ, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tests.oracle.words import MASK32, MASK64, Power, Psci

UNAFFECTED, MITIGATED, VULNERABLE = 0, 1, 2

PSCI_0_2 = frozenset(
    ("PSCI_VERSION", "CPU_SUSPEND", "CPU_OFF", "CPU_ON", "AFFINITY_INFO", "MIGRATE_INFO_TYPE", "SYSTEM_OFF", "SYSTEM_RESET")
)
STATISTICS = frozenset(("STAT_RESIDENCY", "STAT_COUNT"))
MEMORY = frozenset(("MEM_PROTECT", "MEM_PROTECT_CHECK_RANGE"))
PSCI_OPTIONAL = STATISTICS | MEMORY | {"CPU_FREEZE", "CPU_DEFAULT_SUSPEND", "NODE_HW_STATE", "SET_SUSPEND_MODE"}
PSCI_0_1 = frozenset(("0.1 CPU_OFF", "0.1 CPU_ON"))
SMCCC = frozenset(("SMCCC_VERSION", "ARCH_FEATURES"))
TRNG = frozenset(("TRNG_VERSION", "TRNG_FEATURES", "TRNG_GET_UUID", "TRNG_RND"))
PV_TIME = frozenset(("PV_TIME_FEATURES", "PV_TIME_ST"))
VENDOR_HYP = frozenset(("CALL_UID", "VENDOR_HYP_FEATURES", "PTP"))
WORKAROUNDS = frozenset(("ARCH_WORKAROUND_1", "ARCH_WORKAROUND_2", "ARCH_WORKAROUND_3"))

# What CPU_ON finds, by the target's state. ON_PENDING exists only on hosts whose started vCPUs wait for Enter.
CPU_ON_FINDS = {
    Power.OFF: Psci.SUCCESS,
    Power.ON_PENDING: Psci.ON_PENDING,
    Power.ON: Psci.ALREADY_ON,
    Power.SUSPENDED: Psci.ALREADY_ON,
}

# Codes that did not exist yet: (first version that has them, code). Before it the code is INVALID_PARAMETERS.
CODE_SINCE = ((0x2, Psci.ALREADY_ON), (0x2, Psci.ON_PENDING), (0x1_0000, Psci.INVALID_ADDRESS))

# ARCH_WORKAROUND_n's answer by (host state, SSBS present)
WA_1_3 = {(UNAFFECTED, 0): 1, (UNAFFECTED, 1): 1, (MITIGATED, 0): 0, (MITIGATED, 1): 0, (VULNERABLE, 0): -1, (VULNERABLE, 1): -1}
WA_2 = {(UNAFFECTED, 0): -2, (UNAFFECTED, 1): -2, (MITIGATED, 0): -2, (MITIGATED, 1): -1, (VULNERABLE, 0): -1, (VULNERABLE, 1): -1}
# 4.19: WORKAROUND_1 is a boolean ("the branch predictor is hardened"), WORKAROUND_2 follows the SSBD state.
WA_1_BOOLEAN = {(state, ssbs): 0 if state == MITIGATED else -1 for state in (0, 1, 2) for ssbs in (0, 1)}
WA_2_SSBD = {(0, 0): -2, (1, 0): -2, (0, 1): 0, (1, 1): 0, (2, 0): -1, (2, 1): -1}


@dataclass(frozen=True, slots=True)
class Columns:
    name: str
    implements: frozenset[str]
    versions: tuple[int, ...]  # what PSCI_VERSION can be set to with the feature bit; the last is the default
    registers: tuple[int, ...]  # KVM_GET_REG_LIST, in order
    smccc: int
    workarounds: Mapping[str, Mapping[tuple[int, int], int]]
    unchecked: frozenset[str]  # refusals of functions.REFUSALS that this host does not make
    narrowed: frozenset[str] | None = None  # rows whose SMC32 form truncates x1..x3; None: every row of an SMCCC range
    narrowing_writes_back: bool = False
    results: int = 1  # a reply writes x0 up to x<results - 1>, unused ones 0
    arch_features_mask: int = MASK64
    arch_features_lists: frozenset[str] = frozenset(("PV_TIME_FEATURES",))  # beside the workarounds
    affinity_level_mask: int = MASK32  # how much of x2 AFFINITY_INFO looks at (a 32-bit parameter by DEN 0022)
    reserved_affinity_bits_refused: bool = True
    smc: str = "as hvc"  # or "refused": x0 = -1, stepped over, nothing dispatched
    nonzero_imm_refused: frozenset[str] = frozenset()  # conduits on which a nonzero immediate gets x0 = -1 and no dispatch
    sve_hint_masked: bool = False
    on_pending: bool = False  # a started vCPU is ON_PENDING until Enter
    reset_in_cpu_on: bool = False
    access_applies_reset: bool = True
    off_by_smc_skips: bool = False  # after a CPU_OFF by SMC the next reset is followed by a step over one instruction
    always_standby: bool = True
    suspend_needs_cap: bool = True
    unreturned_preset: bool = False  # a call that does not return leaves its code in x0 all the same
    bitmap_resets: tuple[int, ...] = (0x1, 0x1, 0x3, 0x0)  # STD, STD_HYP, VENDOR_HYP, VENDOR_HYP_2
    trng_uuid: tuple[int, int, int, int] = (0x00E0_210D, 0xEB11_8443, 0x4452_7080, 0x4C5A_4E55)
    soc_id: tuple[int, ...] = ()  # the answers to SoC_ID_type 0, 1, ...
    trng_features_mask: int = MASK64
    size_errno_is_enoent: bool = True
    unknown_fw_index_is_enoent: bool = True


KVM_6_12 = Columns(
    name="kvm-6.12",
    implements=PSCI_0_2 | PSCI_0_1 | SMCCC | TRNG | PV_TIME | VENDOR_HYP | {"PSCI_FEATURES", "SYSTEM_SUSPEND", "SYSTEM_RESET2"},
    versions=(0x2, 0x1_0000, 0x1_0001),
    registers=(
        0x6030_0000_0014_0000,
        0x6030_0000_0014_0001,
        0x6030_0000_0014_0002,
        0x6030_0000_0014_0003,
        0x6030_0000_0016_0000,
        0x6030_0000_0016_0001,
        0x6030_0000_0016_0002,
    ),
    smccc=0x1_0001,
    workarounds={"ARCH_WORKAROUND_1": WA_1_3, "ARCH_WORKAROUND_2": WA_2, "ARCH_WORKAROUND_3": WA_1_3},
    unchecked=frozenset(("bad entry", "bad power-down entry", "reserved power_state", "others not off", "no bits")),
    narrowed=frozenset(("CPU_ON", "AFFINITY_INFO", "SYSTEM_SUSPEND", "SYSTEM_RESET2")),
    narrowing_writes_back=True,
    results=4,
    affinity_level_mask=MASK64,
    unreturned_preset=True,
    nonzero_imm_refused=frozenset(("smc",)),
    off_by_smc_skips=True,
)

KVM_4_19 = replace(
    KVM_6_12,
    name="kvm-4.19",
    implements=PSCI_0_2 | PSCI_0_1 | SMCCC | {"PSCI_FEATURES"},
    versions=(0x2, 0x1_0000),
    registers=(0x6030_0000_0014_0000,),
    workarounds={"ARCH_WORKAROUND_1": WA_1_BOOLEAN, "ARCH_WORKAROUND_2": WA_2_SSBD},
    narrowed=frozenset(),
    narrowing_writes_back=False,
    arch_features_mask=MASK32,
    reserved_affinity_bits_refused=False,
    smc="refused",
    reset_in_cpu_on=True,
    off_by_smc_skips=False,
    access_applies_reset=False,
    size_errno_is_enoent=False,
    unknown_fw_index_is_enoent=False,
)

SPEC = Columns(
    name="spec",
    implements=(
        KVM_6_12.implements
        | WORKAROUNDS
        | PSCI_OPTIONAL
        | {"ARCH_SOC_ID", "0.1 CPU_SUSPEND", "0.1 MIGRATE", "MIGRATE", "MIGRATE_INFO_UP_CPU", "SYSTEM_OFF2"}
        | {"STD_CALL_COUNT", "STD_CALL_UID", "STD_CALL_REVISION"}
    ),
    versions=(0x2, 0x1_0000, 0x1_0001, 0x1_0002, 0x1_0003),
    registers=(*KVM_6_12.registers, 0x6030_0000_0016_0003),
    smccc=0x1_0003,
    workarounds=KVM_6_12.workarounds,
    unchecked=frozenset(),
    nonzero_imm_refused=frozenset(),
    results=1,
    narrowed=None,
    narrowing_writes_back=False,
    affinity_level_mask=MASK32,
    arch_features_lists=SMCCC | {"ARCH_SOC_ID", "PV_TIME_FEATURES"},
    sve_hint_masked=True,
    on_pending=True,
    always_standby=False,
    suspend_needs_cap=False,
    unreturned_preset=False,
    trng_features_mask=MASK32,
    bitmap_resets=(0x1, 0x1, 0x0, 0x0),
    trng_uuid=(0x7073_6369, 0x2D65_4D75, 0x8000_7370, 0x6563_0001),
    soc_id=(0x043B_0000, 0x0),
)

HOSTS = {columns.name: columns for columns in (SPEC, KVM_6_12, KVM_4_19)}
