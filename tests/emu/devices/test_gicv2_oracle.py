"""Histories of a GICv2 against an oracle that keeps no answers and looks at one interrupt at a time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from emu.devices.gic_bank import ICACTIVER, ICENABLER, ICFGR, ICPENDR, IGROUPR, IPRIORITYR, ISACTIVER, ISENABLER, ISPENDR
from emu.devices.gicv2 import (
    GICC_ABPR,
    GICC_AEOIR,
    GICC_AHPPIR,
    GICC_AIAR,
    GICC_APR0,
    GICC_BPR,
    GICC_CTLR,
    GICC_DIR,
    GICC_EOIR,
    GICC_HPPIR,
    GICC_IAR,
    GICC_NSAPR0,
    GICC_PMR,
    GICC_RPR,
    GICD_CPENDSGIR,
    GICD_CTLR,
    GICD_ITARGETSR,
    GICD_SGIR,
    GICD_SPENDSGIR,
    CpuInterface,
    Gicv2,
)

VCPUS = 3
SPURIOUS, OTHER_GROUP = 1023, 1022
SPIS = (32, 33, 287)
INTIDS = (0, 1, 15, 16, 27, 31, *SPIS)
INTID = st.sampled_from(INTIDS)
VCPU = st.integers(0, VCPUS - 1)
BITS: Final = (("group", IGROUPR), ("enabled", ISENABLER), ("pending", ISPENDR), ("active", ISACTIVER))
ENABLE_0, ENABLE_1, ACKCTL, FIQEN, CBPR, EOIMODE = 1, 2, 4, 8, 16, 512


@dataclass
class Interrupt:
    intid: int
    group: int = 0
    enabled: bool = False
    latched: bool = False
    active: bool = False
    level: bool = False
    edge: bool = False
    priority: int = 0
    senders: set[int] = field(default_factory=set)
    targets: set[int] = field(default_factory=set)

    @property
    def pending(self) -> bool:
        return bool(self.senders) or self.latched or (self.level and not self.edge)


@dataclass
class Cpu:
    """A CPU interface: the priorities of what it has acknowledged are a list, not bits of registers."""

    own: list[Interrupt] = field(default_factory=lambda: [Interrupt(intid, enabled=intid < 16, edge=intid < 16) for intid in range(32)])
    mask: int = 0
    control: int = 0
    binary_point: list[int] = field(default_factory=lambda: [2, 3])
    running: list[set[int]] = field(default_factory=lambda: [set(), set()])

    def group_priority(self, priority: int, group: int) -> int:
        step = 1 << self.binary_point[1] if group and not self.control & CBPR else 2 << self.binary_point[0]
        return priority - priority % step

    @property
    def running_priority(self) -> int:
        return min(self.running[0] | self.running[1] | {0xFF})


class Oracle:
    def __init__(self) -> None:
        self.control = 0
        self.cpus = [Cpu() for _ in range(VCPUS)]
        self.spis: dict[int, Interrupt] = {}  # those that were ever touched

    def find(self, vcpu: int, intid: int) -> Interrupt:
        return self.cpus[vcpu].own[intid] if intid < 32 else self.spis.setdefault(intid, Interrupt(intid))

    def highest(self, vcpu: int) -> Interrupt | None:
        cpu = self.cpus[vcpu]
        mine = [*cpu.own, *(spi for spi in self.spis.values() if vcpu in spi.targets)]
        groups = self.control & cpu.control
        ready = [each for each in mine if each.pending and each.enabled and not each.active and groups >> each.group & 1]
        return min(ready, key=lambda each: (each.priority, each.intid), default=None)

    def taken(self, vcpu: int) -> Interrupt | None:
        cpu, best = self.cpus[vcpu], self.highest(vcpu)
        if best is None or best.priority >= cpu.mask:
            return None
        if not (cpu.running[0] or cpu.running[1]):
            return best
        running = cpu.group_priority(cpu.running_priority, best.group)
        return best if cpu.group_priority(best.priority, best.group) < running else None

    def seen(self, vcpu: int, best: Interrupt | None, *, alias: bool) -> int:
        if best is None or (alias and best.group == 0):
            return SPURIOUS
        if best.group and not alias and not self.cpus[vcpu].control & ACKCTL:
            return OTHER_GROUP
        return best.intid + min(best.senders, default=0) * 1024

    def acknowledge(self, vcpu: int, *, alias: bool) -> int:
        best = self.taken(vcpu)
        seen = self.seen(vcpu, best, alias=alias)
        if best is not None and seen not in (SPURIOUS, OTHER_GROUP):
            best.active, best.latched = True, False
            best.senders -= {min(best.senders, default=0)}
            self.cpus[vcpu].running[best.group].add(self.cpus[vcpu].group_priority(best.priority, best.group))
        return seen

    def end(self, vcpu: int, intid: int) -> None:
        cpu, interrupt = self.cpus[vcpu], self.find(vcpu, intid)
        group = interrupt.group
        lowest = [min(priorities, default=0x100) for priorities in cpu.running]
        if lowest[group] == 0x100 or (lowest[0] <= lowest[1] if group else lowest[1] < lowest[0]):
            return
        cpu.running[group].remove(lowest[group])
        if not cpu.control & EOIMODE:
            interrupt.active = False


class Histories(RuleBasedStateMachine):
    @initialize(as_linux=st.booleans(), group=st.integers(0, 1))
    def begin(self, as_linux: bool, group: int) -> None:
        self.gic, self.oracle = Gicv2([CpuInterface() for _ in range(VCPUS)]), Oracle()
        if not as_linux:
            return
        self.enable_groups(3)
        for vcpu in range(VCPUS):
            self.write_mask(vcpu, 0xF0)
            self.write_control(vcpu, ENABLE_0 | ENABLE_1 | ACKCTL)
            for intid in INTIDS if vcpu == 0 else INTIDS[: -len(SPIS)]:
                self.write_group(vcpu, intid, group)
                self.write_bits(vcpu, intid, "enabled", True)
                self.write_priority(vcpu, intid, 0xA0)
        for intid in SPIS:
            self.write_targets(0, intid, 1)

    @rule(value=st.integers(0, 3))
    def enable_groups(self, value: int) -> None:
        self.gic.write_distributor(GICD_CTLR, 4, value, 0)
        self.oracle.control = value

    @rule(vcpu=VCPU, intid=INTID.filter(lambda intid: intid >= 16), level=st.booleans())
    def set_level(self, vcpu: int, intid: int, level: bool) -> None:
        self.gic.set_level(intid, level, vcpu)
        interrupt = self.oracle.find(vcpu, intid)
        interrupt.latched |= level and not interrupt.level and interrupt.edge
        interrupt.level = level

    @rule(vcpu=VCPU, intid=INTID, what=st.sampled_from(("enabled", "latched", "active")), value=st.booleans())
    def write_bits(self, vcpu: int, intid: int, what: str, value: bool) -> None:
        setter, clearer = {"enabled": (ISENABLER, ICENABLER), "latched": (ISPENDR, ICPENDR), "active": (ISACTIVER, ICACTIVER)}[what]
        self.gic.write_distributor((setter if value else clearer) + intid // 32 * 4, 4, 1 << intid % 32, vcpu)
        if intid >= 16 or what == "active":
            setattr(self.oracle.find(vcpu, intid), what, value)

    @rule(vcpu=VCPU, intid=INTID, group=st.integers(0, 1))
    def write_group(self, vcpu: int, intid: int, group: int) -> None:
        first = intid - intid % 32
        groups = [self.oracle.find(vcpu, each).group for each in range(first, first + 32)]
        groups[intid - first] = group
        word = sum(each << position for position, each in enumerate(groups))
        self.gic.write_distributor(IGROUPR + first // 8, 4, word, vcpu)
        self.oracle.find(vcpu, intid).group = group

    @rule(vcpu=VCPU, intid=INTID, edge=st.booleans())
    def write_trigger(self, vcpu: int, intid: int, edge: bool) -> None:
        first = intid - intid % 16
        edges = [self.oracle.find(vcpu, each).edge for each in range(first, first + 16)]
        edges[intid - first] = edge
        word = sum(each << 2 * position + 1 for position, each in enumerate(edges))
        self.gic.write_distributor(ICFGR + first // 4, 4, word, vcpu)
        if intid >= 16:
            self.oracle.find(vcpu, intid).edge = edge

    @rule(vcpu=VCPU, intid=INTID, priority=st.sampled_from((0x00, 0x40, 0x48, 0x80, 0xA0, 0xAF, 0xF8)))
    def write_priority(self, vcpu: int, intid: int, priority: int) -> None:
        self.gic.write_distributor(IPRIORITYR + intid, 1, priority, vcpu)
        self.oracle.find(vcpu, intid).priority = priority & 0xF8

    @rule(vcpu=VCPU, intid=INTID, value=st.integers(0, 0xFF))
    def write_targets(self, vcpu: int, intid: int, value: int) -> None:
        self.gic.write_distributor(GICD_ITARGETSR + intid, 1, value, vcpu)
        self.oracle.find(vcpu, intid).targets = {each for each in range(VCPUS) if value >> each & 1}

    @rule(vcpu=VCPU, value=st.sampled_from((0, 0x40, 0x80, 0xA0, 0xF0, 0xFF)))
    def write_mask(self, vcpu: int, value: int) -> None:
        self.gic.write_cpu_interface(GICC_PMR, 4, value, vcpu)
        self.oracle.cpus[vcpu].mask = value & 0xF8

    @rule(vcpu=VCPU, value=st.integers(0, 31).map(lambda value: value if value < 16 else value + EOIMODE - 16) | st.integers(0, 0x3FF))
    def write_control(self, vcpu: int, value: int) -> None:
        self.gic.write_cpu_interface(GICC_CTLR, 4, value, vcpu)
        self.oracle.cpus[vcpu].control = value & (ENABLE_0 | ENABLE_1 | ACKCTL | FIQEN | CBPR | EOIMODE)

    @rule(vcpu=VCPU, group=st.integers(0, 1), value=st.integers(0, 7))
    def write_binary_point(self, vcpu: int, group: int, value: int) -> None:
        self.gic.write_cpu_interface(GICC_ABPR if group else GICC_BPR, 4, value, vcpu)
        self.oracle.cpus[vcpu].binary_point[group] = max(value, 2 + group)

    @rule(vcpu=VCPU, group=st.integers(0, 1), priorities=st.sets(st.sampled_from((0x0, 0x40, 0x80, 0xA0, 0xF8))))
    def restore_active_priorities(self, vcpu: int, group: int, priorities: set[int]) -> None:
        word = sum(1 << priority // 8 for priority in priorities)
        self.gic.write_cpu_interface(GICC_NSAPR0 if group else GICC_APR0, 4, word, vcpu)
        self.oracle.cpus[vcpu].running[group] = set(priorities)

    @rule(vcpu=VCPU, sgi=st.sampled_from((0, 1, 15)), listed=st.integers(0, 0xFF), where=st.sampled_from((0, 0, 1, 2)))
    def send(self, vcpu: int, sgi: int, listed: int, where: int) -> None:
        self.gic.write_distributor(GICD_SGIR, 4, where << 24 | listed << 16 | sgi, vcpu)
        for target in range(VCPUS):
            if (listed >> target & 1, target != vcpu, target == vcpu)[where]:
                self.oracle.find(target, sgi).senders.add(vcpu)

    @rule(vcpu=VCPU, sgi=st.sampled_from((0, 1, 15)), senders=st.integers(0, 0xFF), sets=st.booleans())
    def write_senders(self, vcpu: int, sgi: int, senders: int, sets: bool) -> None:
        self.gic.write_distributor((GICD_SPENDSGIR if sets else GICD_CPENDSGIR) + sgi, 1, senders, vcpu)
        named = {each for each in range(VCPUS) if senders >> each & 1}
        interrupt = self.oracle.find(vcpu, sgi)
        interrupt.senders = interrupt.senders | named if sets else interrupt.senders - named

    @rule(vcpu=VCPU, alias=st.sampled_from((False, False, True)))
    def acknowledge(self, vcpu: int, alias: bool) -> None:
        seen = self.gic.read_cpu_interface(GICC_AIAR if alias else GICC_IAR, 4, vcpu)
        assert seen == self.oracle.acknowledge(vcpu, alias=alias)

    @rule(vcpu=VCPU, alias=st.booleans(), intid=INTID, sender=st.integers(0, 7))
    def end(self, vcpu: int, alias: bool, intid: int, sender: int) -> None:
        self.gic.write_cpu_interface(GICC_AEOIR if alias else GICC_EOIR, 4, sender << 10 | intid, vcpu)
        self.oracle.end(vcpu, intid)

    @rule(vcpu=VCPU, intid=INTID)
    def deactivate(self, vcpu: int, intid: int) -> None:
        self.gic.write_cpu_interface(GICC_DIR, 4, intid, vcpu)
        if self.oracle.cpus[vcpu].control & EOIMODE:
            self.oracle.find(vcpu, intid).active = False

    @invariant()
    def all_that_can_be_seen_is_the_same(self) -> None:
        for vcpu, cpu in enumerate(self.oracle.cpus):
            taken, highest = self.oracle.taken(vcpu), self.oracle.highest(vcpu)
            is_irq = taken is not None and (taken.group == 1 or not cpu.control & FIQEN)
            assert self.gic.signals(vcpu) == is_irq
            for alias, register in enumerate((GICC_HPPIR, GICC_AHPPIR)):
                assert self.gic.read_cpu_interface(register, 4, vcpu) == self.oracle.seen(vcpu, highest, alias=bool(alias))
            assert self.gic.read_cpu_interface(GICC_RPR, 4, vcpu) == cpu.running_priority
            for group, register in enumerate((GICC_APR0, GICC_NSAPR0)):
                word = sum(1 << (priority >> 3) for priority in cpu.running[group])
                assert self.gic.read_cpu_interface(register, 4, vcpu) == word
            for what, register in BITS:
                word = sum(int(getattr(each, what)) << each.intid for each in cpu.own)
                assert self.gic.read_distributor(register, 4, vcpu) == word
            for sgi in range(16):
                word = sum(1 << sender for sender in cpu.own[sgi].senders)
                assert self.gic.read_distributor(GICD_SPENDSGIR + sgi, 1, vcpu) == word
        for intid in SPIS:
            spi = self.oracle.find(0, intid)
            for what, register in BITS:
                assert self.gic.read_distributor(register + intid // 32 * 4, 4, 1) >> intid % 32 & 1 == getattr(spi, what)
            assert self.gic.read_distributor(GICD_ITARGETSR + intid, 1, 1) == sum(1 << target for target in spi.targets)
        assert self.gic == self.gic.copy()


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=100, stateful_step_count=60, deadline=None)
