"""Histories of a GICv3 against an oracle that keeps no answers and looks at one interrupt at a time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from emu.devices.gic_bank import (
    ICACTIVER,
    ICENABLER,
    ICFGR,
    ICPENDR,
    IGROUPR,
    IPRIORITYR,
    ISACTIVER,
    ISENABLER,
    ISPENDR,
)
from emu.devices.gicv3 import FRAME_BYTES, GICD_CTLR, GICD_IROUTER, Gicv3
from emu.devices.gicv3_interface import (
    ICC_AP0R0,
    ICC_AP1R0,
    ICC_BPR0,
    ICC_BPR1,
    ICC_CTLR,
    ICC_DIR,
    ICC_EOIR0,
    ICC_EOIR1,
    ICC_HPPIR0,
    ICC_HPPIR1,
    ICC_IAR0,
    ICC_IAR1,
    ICC_IGRPEN0,
    ICC_IGRPEN1,
    ICC_PMR,
    ICC_RPR,
    ICC_SGI0R,
    ICC_SGI1R,
)

MPIDRS = (0x0, 0x1, 0x100)
SPURIOUS = 1023
SPIS = (32, 33, 287)
INTIDS = (0, 1, 15, 16, 27, 31, *SPIS)
INTID = st.sampled_from(INTIDS)
BITS: Final = (("group", IGROUPR), ("enabled", ISENABLER), ("pending", ISPENDR), ("active", ISACTIVER))
VCPU = st.integers(0, len(MPIDRS) - 1)


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
    router: int = 0

    @property
    def pending(self) -> bool:
        return self.latched or (self.level and not self.edge)


@dataclass
class Cpu:
    """A CPU interface: the priorities of what it has acknowledged are a list, not bits of registers."""

    own: list[Interrupt] = field(default_factory=lambda: [Interrupt(intid, edge=intid < 16) for intid in range(32)])
    mask: int = 0
    enabled: list[bool] = field(default_factory=lambda: [False, False])
    binary_point: list[int] = field(default_factory=lambda: [2, 3])
    splits: bool = False
    running: list[set[int]] = field(default_factory=lambda: [set(), set()])

    def group_priority(self, priority: int, group: int) -> int:
        step = 2 << (self.binary_point[group] - group)
        return priority - priority % step

    @property
    def running_priority(self) -> int:
        return min(self.running[0] | self.running[1] | {0xFF})


class Oracle:
    def __init__(self) -> None:
        self.groups = [False, False]
        self.cpus = [Cpu() for _ in MPIDRS]
        self.spis: dict[int, Interrupt] = {}  # those that were ever touched

    def find(self, vcpu: int, intid: int) -> Interrupt:
        return self.cpus[vcpu].own[intid] if intid < 32 else self.spis.setdefault(intid, Interrupt(intid))

    def candidates(self, vcpu: int) -> list[Interrupt]:
        cpu = self.cpus[vcpu]
        mine = [*cpu.own, *(spi for spi in self.spis.values() if spi.router == MPIDRS[vcpu])]
        return [
            each
            for each in mine
            if each.pending and each.enabled and not each.active and self.groups[each.group] and cpu.enabled[each.group]
        ]

    def highest(self, vcpu: int) -> Interrupt | None:
        return min(self.candidates(vcpu), key=lambda each: (each.priority, each.intid), default=None)

    def taken(self, vcpu: int) -> Interrupt | None:
        cpu, best = self.cpus[vcpu], self.highest(vcpu)
        if best is None or best.priority >= cpu.mask:
            return None
        if not (cpu.running[0] or cpu.running[1]):
            return best
        running = cpu.group_priority(cpu.running_priority, best.group)
        return best if cpu.group_priority(best.priority, best.group) < running else None

    def acknowledge(self, vcpu: int, group: int) -> int:
        best = self.taken(vcpu)
        if best is None or best.group != group:
            return SPURIOUS
        best.active, best.latched = True, False
        self.cpus[vcpu].running[group].add(self.cpus[vcpu].group_priority(best.priority, group))
        return best.intid

    def end(self, vcpu: int, group: int, intid: int) -> None:
        cpu = self.cpus[vcpu]
        lowest = [min(priorities, default=0x100) for priorities in cpu.running]
        if lowest[group] == 0x100 or (lowest[0] <= lowest[1] if group else lowest[1] < lowest[0]):
            return
        cpu.running[group].remove(lowest[group])
        if not cpu.splits:
            self.find(vcpu, intid).active = False


class Histories(RuleBasedStateMachine):
    @initialize(as_linux=st.booleans())
    def begin(self, as_linux: bool) -> None:
        self.gic, self.oracle = Gicv3(MPIDRS), Oracle()
        if not as_linux:
            return
        self.enable_groups(3)
        for vcpu in range(len(MPIDRS)):
            self.write_mask(vcpu, 0xF0)
            for group in (0, 1):
                self.write_enable(vcpu, group, True)
            for intid in INTIDS if vcpu == 0 else INTIDS[: -len(SPIS)]:
                self.write_group(vcpu, intid, 1)
                self.write_bits(vcpu, intid, "enabled", True)
                self.write_priority(vcpu, intid, 0xA0)

    def _write(self, vcpu: int, intid: int, register: int, size: int, value: int, per: int) -> None:
        """Write to the frame that has an interrupt; `per` INTIDs share a register of `size` bytes."""
        offset = register + intid // per * size
        if intid < 32:
            self.gic.write_redistributor(vcpu * FRAME_BYTES + 0x1_0000 + offset, size, value)
        else:
            self.gic.write_distributor(offset, size, value)

    @rule(value=st.integers(0, 0xFFFF_FFFF))
    def enable_groups(self, value: int) -> None:
        self.gic.write_distributor(GICD_CTLR, 4, value)
        self.oracle.groups = [bool(value & 1), bool(value & 2)]

    @rule(vcpu=VCPU, intid=INTID.filter(lambda intid: intid >= 16), level=st.booleans())
    def set_level(self, vcpu: int, intid: int, level: bool) -> None:
        self.gic.set_level(intid, level, vcpu)
        interrupt = self.oracle.find(vcpu, intid)
        interrupt.latched |= level and not interrupt.level and interrupt.edge
        interrupt.level = level

    @rule(vcpu=VCPU, intid=INTID, what=st.sampled_from(("enabled", "latched", "active")), value=st.booleans())
    def write_bits(self, vcpu: int, intid: int, what: str, value: bool) -> None:
        setter, clearer = {"enabled": (ISENABLER, ICENABLER), "latched": (ISPENDR, ICPENDR), "active": (ISACTIVER, ICACTIVER)}[what]
        self._write(vcpu, intid, setter if value else clearer, 4, 1 << intid % 32, 32)
        setattr(self.oracle.find(vcpu, intid), what, value)

    @rule(vcpu=VCPU, intid=INTID, group=st.integers(0, 1))
    def write_group(self, vcpu: int, intid: int, group: int) -> None:
        first = intid - intid % 32
        groups = [self.oracle.find(vcpu, each).group for each in range(first, first + 32)]
        groups[intid - first] = group
        self._write(vcpu, intid, IGROUPR, 4, sum(each << position for position, each in enumerate(groups)), 32)
        self.oracle.find(vcpu, intid).group = group

    @rule(vcpu=VCPU, intid=INTID.filter(lambda intid: intid >= 16), edge=st.booleans())
    def write_trigger(self, vcpu: int, intid: int, edge: bool) -> None:
        first = intid - intid % 16
        edges = [self.oracle.find(vcpu, each).edge for each in range(first, first + 16)]
        edges[intid - first] = edge
        self._write(vcpu, intid, ICFGR, 4, sum(each << 2 * position + 1 for position, each in enumerate(edges)), 16)
        self.oracle.find(vcpu, intid).edge = edge

    @rule(vcpu=VCPU, intid=INTID, priority=st.sampled_from((0x00, 0x40, 0x48, 0x80, 0xA0, 0xAF, 0xF8)))
    def write_priority(self, vcpu: int, intid: int, priority: int) -> None:
        self._write(vcpu, intid, IPRIORITYR, 1, priority, 1)
        self.oracle.find(vcpu, intid).priority = priority & 0xF8

    @rule(intid=st.sampled_from(SPIS), router=st.sampled_from((*MPIDRS, 0x200)))
    def write_router(self, intid: int, router: int) -> None:
        self.gic.write_distributor(GICD_IROUTER + 8 * intid, 4, router)
        self.oracle.find(0, intid).router = router

    @rule(vcpu=VCPU, value=st.sampled_from((0, 0x40, 0x80, 0xA0, 0xF0, 0xFF)))
    def write_mask(self, vcpu: int, value: int) -> None:
        assert self.gic.write_register(vcpu, ICC_PMR, value)
        self.oracle.cpus[vcpu].mask = value & 0xF8

    @rule(vcpu=VCPU, group=st.integers(0, 1), value=st.booleans())
    def write_enable(self, vcpu: int, group: int, value: bool) -> None:
        assert self.gic.write_register(vcpu, ICC_IGRPEN1 if group else ICC_IGRPEN0, int(value))
        self.oracle.cpus[vcpu].enabled[group] = value

    @rule(vcpu=VCPU, group=st.integers(0, 1), value=st.integers(0, 7))
    def write_binary_point(self, vcpu: int, group: int, value: int) -> None:
        assert self.gic.write_register(vcpu, ICC_BPR1 if group else ICC_BPR0, value)
        self.oracle.cpus[vcpu].binary_point[group] = max(value, 2 + group)

    @rule(vcpu=VCPU, splits=st.booleans())
    def write_control(self, vcpu: int, splits: bool) -> None:
        assert self.gic.write_register(vcpu, ICC_CTLR, 2 * splits)
        self.oracle.cpus[vcpu].splits = splits

    @rule(vcpu=VCPU, group=st.integers(0, 1), sgi=st.sampled_from((0, 1, 15)), listed=st.integers(0, 3), aff1=st.integers(0, 1))
    def send(self, vcpu: int, group: int, sgi: int, listed: int, aff1: int) -> None:
        assert self.gic.write_register(vcpu, ICC_SGI1R if group else ICC_SGI0R, sgi << 24 | aff1 << 16 | listed)
        for target, mpidr in enumerate(MPIDRS):
            interrupt = self.oracle.find(target, sgi)
            interrupt.latched |= mpidr >> 8 == aff1 and bool(listed >> (mpidr & 0xFF) & 1) and interrupt.group == group

    @rule(vcpu=VCPU, group=st.sampled_from((1, 1, 1, 0)))
    def acknowledge(self, vcpu: int, group: int) -> None:
        intid = self.gic.read_register(vcpu, ICC_IAR1 if group else ICC_IAR0)
        assert intid == self.oracle.acknowledge(vcpu, group)

    @rule(vcpu=VCPU, group=st.integers(0, 1), intid=INTID)
    def end(self, vcpu: int, group: int, intid: int) -> None:
        assert self.gic.write_register(vcpu, ICC_EOIR1 if group else ICC_EOIR0, intid)
        self.oracle.end(vcpu, group, intid)

    @rule(vcpu=VCPU, intid=INTID)
    def deactivate(self, vcpu: int, intid: int) -> None:
        assert self.gic.write_register(vcpu, ICC_DIR, intid)
        if self.oracle.cpus[vcpu].splits:
            self.oracle.find(vcpu, intid).active = False

    @invariant()
    def all_that_can_be_seen_is_the_same(self) -> None:
        for vcpu, cpu in enumerate(self.oracle.cpus):
            taken, highest = self.oracle.taken(vcpu), self.oracle.highest(vcpu)
            assert self.gic.signals(vcpu) == (taken is not None and taken.group == 1)
            for group, icc in enumerate((ICC_HPPIR0, ICC_HPPIR1)):
                expected = SPURIOUS if highest is None or highest.group != group else highest.intid
                assert self.gic.read_register(vcpu, icc) == expected
            assert self.gic.read_register(vcpu, ICC_RPR) == cpu.running_priority
            for group, icc in enumerate((ICC_AP0R0, ICC_AP1R0)):
                assert self.gic.read_register(vcpu, icc) == sum(1 << (priority >> 3) for priority in cpu.running[group])
            frame = vcpu * FRAME_BYTES + 0x1_0000
            for what, register in BITS:
                word = sum(int(getattr(each, what)) << each.intid for each in cpu.own)
                assert self.gic.read_redistributor(frame + register, 4) == word
        for intid in SPIS:
            spi = self.oracle.find(0, intid)
            for what, register in BITS:
                assert self.gic.read_distributor(register + intid // 32 * 4, 4) >> intid % 32 & 1 == getattr(spi, what)


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=100, stateful_step_count=60, deadline=None)
