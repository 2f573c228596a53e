"""The functions: rows of IDs, refusals in order as predicates, and one small transition per success."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Literal

from tests.oracle.columns import CPU_ON_FINDS
from tests.oracle.words import AFFINITY_BITS, MASK32, Power, Psci, Resume, Standby, Vcpu
from tests.oracle.world import NO_TRUSTED_OS, UP_FIXED, Answer, Call

Range = Literal["psci 0.1", "psci", "arch", "trng", "pv time", "vendor hyp", "general"]
STD_BMAP, STD_HYP_BMAP, VENDOR_HYP_BMAP, VENDOR_HYP_BMAP_2 = (0x6030_0000_0016_0000 + index for index in range(4))


@dataclass(frozen=True, slots=True)
class Row:
    range: Range
    name: str
    fid32: int | None
    fid64: int | None
    since: int = 0  # PSCI only
    bitmap: tuple[int, int] | None = None  # the feature bitmap register and the bit that gate it
    flags: int = 0  # what PSCI_FEATURES answers


ROWS: Final = (
    Row("psci 0.1", "0.1 CPU_SUSPEND", 0x95C1_BA5E, None),
    Row("psci 0.1", "0.1 CPU_OFF", 0x95C1_BA5F, None),
    Row("psci 0.1", "0.1 CPU_ON", 0x95C1_BA60, None),
    Row("psci 0.1", "0.1 MIGRATE", 0x95C1_BA61, None),
    Row("psci", "PSCI_VERSION", 0x8400_0000, None, since=0x2),
    Row("psci", "CPU_SUSPEND", 0x8400_0001, 0xC400_0001, since=0x2),
    Row("psci", "CPU_OFF", 0x8400_0002, None, since=0x2),
    Row("psci", "CPU_ON", 0x8400_0003, 0xC400_0003, since=0x2),
    Row("psci", "AFFINITY_INFO", 0x8400_0004, 0xC400_0004, since=0x2),
    Row("psci", "MIGRATE", 0x8400_0005, 0xC400_0005, since=0x2),
    Row("psci", "MIGRATE_INFO_TYPE", 0x8400_0006, None, since=0x2),
    Row("psci", "MIGRATE_INFO_UP_CPU", 0x8400_0007, 0xC400_0007, since=0x2),
    Row("psci", "SYSTEM_OFF", 0x8400_0008, None, since=0x2),
    Row("psci", "SYSTEM_RESET", 0x8400_0009, None, since=0x2),
    Row("psci", "PSCI_FEATURES", 0x8400_000A, None, since=0x1_0000),
    Row("psci", "CPU_FREEZE", 0x8400_000B, None, since=0x1_0000),
    Row("psci", "CPU_DEFAULT_SUSPEND", 0x8400_000C, 0xC400_000C, since=0x1_0000),
    Row("psci", "NODE_HW_STATE", 0x8400_000D, 0xC400_000D, since=0x1_0000),
    Row("psci", "SYSTEM_SUSPEND", 0x8400_000E, 0xC400_000E, since=0x1_0000),
    Row("psci", "SET_SUSPEND_MODE", 0x8400_000F, None, since=0x1_0000),
    Row("psci", "STAT_RESIDENCY", 0x8400_0010, 0xC400_0010, since=0x1_0000),
    Row("psci", "STAT_COUNT", 0x8400_0011, 0xC400_0011, since=0x1_0000),
    Row("psci", "SYSTEM_RESET2", 0x8400_0012, 0xC400_0012, since=0x1_0001),
    Row("psci", "MEM_PROTECT", 0x8400_0013, None, since=0x1_0001),
    Row("psci", "MEM_PROTECT_CHECK_RANGE", 0x8400_0014, 0xC400_0014, since=0x1_0001),
    Row("psci", "SYSTEM_OFF2", 0x8400_0015, 0xC400_0015, since=0x1_0003, flags=1),
    Row("psci", "CLEAN_INV_MEMREGION", None, 0xC400_0016, since=0x1_0003),
    Row("psci", "CLEAN_INV_MEMREGION_ATTRIBUTES", 0x8400_0017, None, since=0x1_0003),
    Row("arch", "SMCCC_VERSION", 0x8000_0000, None),
    Row("arch", "ARCH_FEATURES", 0x8000_0001, None),
    Row("arch", "ARCH_SOC_ID", 0x8000_0002, None),
    Row("arch", "ARCH_WORKAROUND_1", 0x8000_8000, None),
    Row("arch", "ARCH_WORKAROUND_2", 0x8000_7FFF, None),
    Row("arch", "ARCH_WORKAROUND_3", 0x8000_3FFF, None),
    Row("trng", "TRNG_VERSION", 0x8400_0050, None, bitmap=(STD_BMAP, 0x1)),
    Row("trng", "TRNG_FEATURES", 0x8400_0051, None, bitmap=(STD_BMAP, 0x1)),
    Row("trng", "TRNG_GET_UUID", 0x8400_0052, None, bitmap=(STD_BMAP, 0x1)),
    Row("trng", "TRNG_RND", 0x8400_0053, 0xC400_0053, bitmap=(STD_BMAP, 0x1)),
    Row("pv time", "PV_TIME_FEATURES", None, 0xC500_0020, bitmap=(STD_HYP_BMAP, 0x1)),
    Row("pv time", "PV_TIME_ST", None, 0xC500_0021, bitmap=(STD_HYP_BMAP, 0x1)),
    Row("vendor hyp", "CALL_UID", 0x8600_FF01, None, bitmap=(VENDOR_HYP_BMAP, 0x1)),
    Row("vendor hyp", "VENDOR_HYP_FEATURES", 0x8600_0000, None, bitmap=(VENDOR_HYP_BMAP, 0x1)),
    Row("vendor hyp", "PTP", 0x8600_0001, None, bitmap=(VENDOR_HYP_BMAP, 0x2)),
    Row("general", "STD_CALL_COUNT", 0x8400_FF00, None),
    Row("general", "STD_CALL_UID", 0x8400_FF01, None),
    Row("general", "STD_CALL_REVISION", 0x8400_FF03, None),
)
BY_FID: Final = {fid: row for row in ROWS for fid in (row.fid32, row.fid64) if fid is not None}

STD_UID = (0x526A_0F8B, 0x374E_1D9C, 0x0A3F_648D, 0x15C9_E27B)
KVM_UID = (0xB66F_B428, 0xE911_C52E, 0x564B_CAA9, 0x743A_004D)
RESERVED_POWER_STATE = {False: 0xFCFE_0000, True: 0xB000_0000}  # by extended format
OS_INITIATED_FLAG, EXTENDED_STATE_ID_FLAG = 0b01, 0b10
SMCCC_INVALID_PARAMETER = -3

# Each function's refusals in the order they are looked for. `Columns.unchecked` names those a host does not make.
REFUSALS: Final[dict[str, tuple[tuple[str, Psci], ...]]] = {
    "CPU_SUSPEND": (
        ("reserved power_state", Psci.INVALID_PARAMETERS),
        ("bad power-down entry", Psci.INVALID_ADDRESS),
        ("not the last to idle", Psci.DENIED),
    ),
    "CPU_DEFAULT_SUSPEND": (("bad power-down entry", Psci.INVALID_ADDRESS),),
    "CPU_OFF": (("trusted os here", Psci.DENIED),),
    "CPU_FREEZE": (("trusted os here", Psci.DENIED),),
    "NODE_HW_STATE": (("unknown target", Psci.INVALID_PARAMETERS), ("level above 3", Psci.INVALID_PARAMETERS)),
    "SET_SUSPEND_MODE": (("no such mode", Psci.INVALID_PARAMETERS), ("mode needs others otherwise", Psci.DENIED)),
    "MEM_PROTECT_CHECK_RANGE": (("no range", Psci.DENIED), ("range outside ram", Psci.DENIED)),
    "CPU_ON": (
        ("unknown target", Psci.INVALID_PARAMETERS),
        ("bad entry", Psci.INVALID_ADDRESS),
        ("target on", Psci.ALREADY_ON),
        ("target pending", Psci.ON_PENDING),
    ),
    "AFFINITY_INFO": (("level above 3", Psci.INVALID_PARAMETERS), ("nobody there", Psci.INVALID_PARAMETERS)),
    "MIGRATE": (("unknown target", Psci.INVALID_PARAMETERS), ("trusted os fixed", Psci.DENIED), ("trusted os elsewhere", Psci.NOT_PRESENT)),
    "SYSTEM_SUSPEND": (("others not off", Psci.DENIED), ("bad entry", Psci.INVALID_ADDRESS)),
    "SYSTEM_RESET2": (("reserved reset_type", Psci.INVALID_PARAMETERS),),
    "SYSTEM_OFF2": (("reserved off_type", Psci.INVALID_PARAMETERS), ("nonzero cookie", Psci.INVALID_PARAMETERS)),
    "TRNG_RND": (("too many bits", Psci.INVALID_PARAMETERS), ("no bits", Psci.INVALID_PARAMETERS)),
    "PV_TIME_FEATURES": (("not a pv time call", Psci.NOT_SUPPORTED), ("no stolen time", Psci.NOT_SUPPORTED)),
    "PV_TIME_ST": (("no stolen time", Psci.NOT_SUPPORTED),),
    "PTP": (("no ptp clock", Psci.NOT_SUPPORTED),),
}


def bad_entry(call: Call) -> bool:
    address = call.entry.entry_point_address
    base, size = call.config.ram or (0, 1 << 64)
    return bool(address & 3) or not base <= address < base + size


def matching(call: Call) -> list[Vcpu]:
    """The vCPUs of the affinity instance that AFFINITY_INFO asks for."""
    target_affinity, level, _ = call.args
    if call.config.columns.reserved_affinity_bits_refused and target_affinity & ~AFFINITY_BITS:
        return []
    mask = AFFINITY_BITS & -1 << 8 * (level & call.config.columns.affinity_level_mask)
    pairs = zip(call.config.mpidrs, call.world.vcpus, strict=True)
    return [vcpu for mpidr, vcpu in pairs if mpidr & mask == target_affinity & mask]


def target_answers(call: Call, code: Psci) -> bool:
    target = call.config.find(call.args[0])
    assert target is not None  # "unknown target" comes first
    return CPU_ON_FINDS[call.world.vcpus[target].power] is code


def trng_bits(call: Call) -> tuple[int, int]:
    """How many bits TRNG_RND is asked for, and the most it gives in three registers."""
    return call.u32, 96 if call.smc32 else 192


def others(call: Call) -> list[Power]:
    return [vcpu.power for index, vcpu in enumerate(call.world.vcpus) if index != call.vcpu]


def not_the_last_to_idle(call: Call) -> bool:
    """OS-initiated mode's last-man rule: whoever takes a node down is the only one below it that still runs."""
    shift = 8 * call.suspend_level
    node = [mpidr & AFFINITY_BITS & -1 << shift for mpidr in call.config.mpidrs]
    near = [vcpu.power for index, vcpu in enumerate(call.world.vcpus) if index != call.vcpu and node[index] == node[call.vcpu]]
    return call.world.os_initiated and bool({Power.ON, Power.ON_PENDING} & set(near))


def mode_needs_others_otherwise(call: Call) -> bool:
    off = [power is Power.OFF for power in others(call)]
    changes = bool(call.u32) is not call.world.os_initiated
    return changes and not all(off) and (call.u32 == 0 or any(off))


def range_outside_ram(call: Call) -> bool:
    base, size = call.config.ram or (0, 1 << 64)
    return call.args[0] < base or call.args[0] + call.args[1] > base + size


PREDICATES: Final[dict[str, Callable[[Call], bool]]] = {
    "reserved power_state": lambda call: bool(call.u32 & RESERVED_POWER_STATE[call.extended]),
    "bad power-down entry": lambda call: call.powerdown and bad_entry(call),
    "bad entry": bad_entry,
    "unknown target": lambda call: call.config.find(call.args[0]) is None,
    "target on": lambda call: target_answers(call, Psci.ALREADY_ON),
    "target pending": lambda call: target_answers(call, Psci.ON_PENDING),
    "level above 3": lambda call: call.args[1] & call.config.columns.affinity_level_mask > 3,
    "nobody there": lambda call: not matching(call),
    "trusted os here": lambda call: call.config.trusted_os_type != NO_TRUSTED_OS and call.config.trusted_os_cpu == call.vcpu,
    "trusted os fixed": lambda call: call.config.trusted_os_type == UP_FIXED,
    "trusted os elsewhere": lambda call: call.config.trusted_os_cpu != call.vcpu,
    "others not off": lambda call: any(v.power is not Power.OFF for i, v in enumerate(call.world.vcpus) if i != call.vcpu),
    "reserved reset_type": lambda call: 0 < call.u32 < 0x8000_0000,
    "reserved off_type": lambda call: call.u32 > 1,
    "nonzero cookie": lambda call: call.args[1] != 0,
    "too many bits": lambda call: trng_bits(call)[0] > trng_bits(call)[1],
    "no bits": lambda call: trng_bits(call)[0] == 0,
    "not a pv time call": lambda call: call.u32 not in (0xC500_0020, 0xC500_0021),
    "no stolen time": lambda call: call.vcpu not in call.config.stolen_time_ipas,
    "not the last to idle": not_the_last_to_idle,
    "no such mode": lambda call: call.u32 > 1,
    "mode needs others otherwise": mode_needs_others_otherwise,
    "no range": lambda call: call.args[1] == 0 or call.args[0] + call.args[1] > 1 << 64,
    "range outside ram": range_outside_ram,
    "no ptp clock": lambda call: not call.config.ptp or call.u32 > 1,
}


def value(*x: int) -> Callable[[Call], Answer]:
    return lambda call: Answer(call.world, x)


def cpu_suspend(call: Call) -> Answer:
    standby = call.config.columns.always_standby or not call.powerdown
    me = call.world.vcpus[call.vcpu]
    # A powerdown state is a reset that the wake-up, or whoever comes first, applies.
    counted = None if call.config.columns.always_standby else call.power_state
    asleep = replace(me, power=Power.SUSPENDED, wake=Standby(counted), pending=me.pending if standby else call.entry)
    return Answer(call.world.put(call.vcpu, asleep), (Psci.SUCCESS,) if standby else (), Resume.WAIT)


def cpu_off(call: Call) -> Answer:
    me = call.world.vcpus[call.vcpu]
    skips = me.skips or (call.config.columns.off_by_smc_skips and call.trap.conduit == "smc")
    world = call.world.put(call.vcpu, replace(me, power=Power.OFF, wake=None, skips=skips))
    written = (int(Psci.SUCCESS),) if call.config.columns.unreturned_preset else ()
    return Answer(world, written, Resume.NEVER, frozenset({("stopped", call.vcpu)}))


def cpu_on(call: Call) -> Answer:
    target = call.config.find(call.args[0])
    assert target is not None
    columns = call.config.columns
    power = Power.ON_PENDING if columns.on_pending else Power.ON
    effects = frozenset({("runnable", target)})
    if columns.reset_in_cpu_on:
        world = call.world.put(target, Vcpu(power))
        return Answer(world, (Psci.SUCCESS,), effects=effects, remote={target: call.entry.regs()})
    started = Vcpu(power, pending=call.entry, skips=call.world.vcpus[target].skips)
    return Answer(call.world.put(target, started), (Psci.SUCCESS,), effects=effects)


def affinity_info(call: Call) -> Answer:
    powers = {vcpu.power for vcpu in matching(call)}
    if powers & {Power.ON, Power.SUSPENDED}:
        return Answer(call.world, (0,))
    return Answer(call.world, (2 if Power.ON_PENDING in powers else 1,))


def migrate_info_up_cpu(call: Call) -> Answer:
    # TF-A returns the whole MPIDR in the SMC32 form too.
    return Answer(call.world, (call.config.mpidrs[call.config.trusted_os_cpu] & AFFINITY_BITS,))


def stopping(kind: str, flags: int = 0, exact: bool = False) -> Callable[[Call], Answer]:
    """SYSTEM_OFF and its kin: every vCPU stops. KVM presets INTERNAL_FAILURE for a VMM that resumes all the same."""

    def stop(call: Call) -> Answer:
        world = replace(call.world, vcpus=tuple(replace(vcpu, power=Power.OFF, wake=None) for vcpu in call.world.vcpus))
        effects = frozenset({(kind, flags)})
        preset = (int(Psci.INTERNAL_FAILURE),) if call.config.columns.unreturned_preset else ()
        return Answer(world, preset, Resume.EXIT, effects, exact)

    return stop


def system_suspend(call: Call) -> Answer:
    """Leave to the VMM, which puts the machine to sleep and resumes the caller at the entry point."""
    return Answer(call.world, (), Resume.EXIT, frozenset({("suspend", 0)}))


def soc_id(call: Call) -> Answer:
    answers = dict(enumerate(call.config.columns.soc_id))
    return Answer(call.world, (answers.get(call.u32, SMCCC_INVALID_PARAMETER),))


def pv_time_st(call: Call) -> Answer:
    address = call.config.stolen_time_ipas[call.vcpu]
    return Answer(call.world, (address,), effects=frozenset({("zeroed", address)}))


def trng_features(call: Call) -> Answer:
    row = BY_FID.get(call.args[0] & call.config.columns.trng_features_mask)
    return Answer(call.world, (Psci.SUCCESS if row is not None and row.range == "trng" else Psci.NOT_SUPPORTED,))


def trng_rnd(call: Call) -> Answer:
    bits, most = trng_bits(call)
    width = most // 3
    asked = (1 << bits) - 1
    free = {f"x{n}": asked >> (3 - n) * width & (1 << width) - 1 for n in (1, 2, 3)}
    return Answer(call.world, (Psci.SUCCESS, 0, 0, 0), free=free)


def node_hw_state(call: Call) -> Answer:
    mask = AFFINITY_BITS & -1 << 8 * (call.args[1] & MASK32)
    pairs = zip(call.config.mpidrs, call.world.vcpus, strict=True)
    below = [vcpu for mpidr, vcpu in pairs if mpidr & mask == call.args[0] & mask]
    if any(vcpu.power in (Power.ON, Power.ON_PENDING) for vcpu in below):
        return Answer(call.world, (0,))
    return Answer(call.world, (2 if any(vcpu.power is Power.SUSPENDED and vcpu.pending is None for vcpu in below) else 1,))


def stat_count(call: Call) -> Answer:
    target = call.config.find(call.args[0])
    return Answer(call.world, (0 if target is None else call.world.slept.get((target, call.args[1] & MASK32), 0),))


def mem_protect(call: Call) -> Answer:
    return Answer(replace(call.world, memory_protected=call.u32 != 0), (int(call.world.memory_protected),))


def vendor_hyp_features(call: Call) -> Answer:
    return Answer(call.world, (call.world.bitmaps[VENDOR_HYP_BMAP], 0, call.world.bitmaps.get(VENDOR_HYP_BMAP_2, 0), 0))


SUCCESSES: Final[dict[str, Callable[[Call], Answer]]] = {
    "PSCI_VERSION": lambda call: Answer(call.world, (call.version,)),
    "CPU_SUSPEND": cpu_suspend,
    "CPU_DEFAULT_SUSPEND": cpu_suspend,
    "CPU_OFF": cpu_off,
    "CPU_FREEZE": cpu_off,
    "NODE_HW_STATE": node_hw_state,
    "SET_SUSPEND_MODE": lambda call: Answer(replace(call.world, os_initiated=call.u32 == 1), (Psci.SUCCESS,)),
    "STAT_RESIDENCY": value(0),  # events carry no time here: every sleep is as long as no time
    "STAT_COUNT": stat_count,
    "MEM_PROTECT": mem_protect,
    "MEM_PROTECT_CHECK_RANGE": value(Psci.SUCCESS),
    "CPU_ON": cpu_on,
    "AFFINITY_INFO": affinity_info,
    "MIGRATE": value(Psci.INTERNAL_FAILURE),  # the Trusted OS is not modelled: it declines
    "MIGRATE_INFO_TYPE": lambda call: Answer(call.world, (call.config.trusted_os_type,)),
    "MIGRATE_INFO_UP_CPU": migrate_info_up_cpu,
    "SYSTEM_OFF": stopping("off"),
    "SYSTEM_RESET": stopping("reset"),
    "SYSTEM_SUSPEND": system_suspend,
    "SYSTEM_RESET2": stopping("reset", flags=1, exact=True),
    "SYSTEM_OFF2": stopping("off", flags=1),
    "SMCCC_VERSION": lambda call: Answer(call.world, (call.config.columns.smccc,)),
    "ARCH_SOC_ID": soc_id,
    "ARCH_WORKAROUND_1": value(),
    "ARCH_WORKAROUND_2": value(),
    "ARCH_WORKAROUND_3": value(),
    "TRNG_VERSION": value(0x1_0000),
    "TRNG_FEATURES": trng_features,
    "TRNG_GET_UUID": lambda call: Answer(call.world, call.config.columns.trng_uuid),
    "TRNG_RND": trng_rnd,
    "PV_TIME_FEATURES": value(Psci.SUCCESS),
    "PV_TIME_ST": pv_time_st,
    "CALL_UID": value(*KVM_UID),
    "STD_CALL_UID": value(*STD_UID),
    "STD_CALL_REVISION": value(1, 0),
    "VENDOR_HYP_FEATURES": vendor_hyp_features,
    "PTP": lambda call: Answer(call.world, (0, 0, 0, 0), free=dict.fromkeys(("x0", "x1", "x2", "x3"), MASK32)),
}
