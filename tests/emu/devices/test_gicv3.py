"""The rules of a GICv3, by name (Arm IHI 0069); tests/emu/devices/test_gicv3_oracle.py compares whole histories."""

from __future__ import annotations

import copy
import dataclasses

import pytest

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
from emu.devices.gicv3 import (
    FRAME_BYTES,
    GICD_CTLR,
    GICD_IIDR,
    GICD_IROUTER,
    GICD_TYPER,
    GICR_IIDR,
    GICR_TYPER,
    GICR_WAKER,
    INTIDS,
    MOST_VCPUS,
    Gicv3,
)
from emu.devices.gicv3_interface import (
    ACKNOWLEDGE,
    END,
    GENERATE,
    HIGHEST_PENDING,
    ICC_AP0R0,
    ICC_AP1R0,
    ICC_ASGI1R,
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
    ICC_SRE,
    SPURIOUS,
    SystemRegister,
)

SGI_BASE = 0x1_0000
SPI, TIMER = 33, 27
HIGH, MIDDLE, LOW = 0x40, 0x80, 0xA0
EOIMODE = 2
MANY = tuple((vcpu >> 4) << 8 | vcpu & 15 for vcpu in range(MOST_VCPUS))


def sgi_frame(vcpu: int, register: int) -> int:
    return vcpu * FRAME_BYTES + SGI_BASE + register


def controller(*mpidrs: int) -> Gicv3:
    """Return a controller set up as Linux does: everything enabled, group 1 at priority 0xA0, SPIs to the first vCPU."""
    gic = Gicv3(mpidrs or (0, 1))
    gic.write_distributor(GICD_CTLR, 4, 3)
    for word in range(1, INTIDS // 32):
        gic.write_distributor(IGROUPR + 4 * word, 4, 0xFFFF_FFFF)
        gic.write_distributor(ISENABLER + 4 * word, 4, 0xFFFF_FFFF)
    for byte in range(32, INTIDS, 4):
        gic.write_distributor(IPRIORITYR + byte, 4, 0xA0A0_A0A0)
    for vcpu in range(len(gic.mpidrs)):
        gic.write_redistributor(vcpu * FRAME_BYTES + GICR_WAKER, 4, 0)
        gic.write_redistributor(sgi_frame(vcpu, IGROUPR), 4, 0xFFFF_FFFF)
        gic.write_redistributor(sgi_frame(vcpu, ISENABLER), 4, 0xFFFF_FFFF)
        for byte in range(0, 32, 4):
            gic.write_redistributor(sgi_frame(vcpu, IPRIORITYR + byte), 4, 0xA0A0_A0A0)
        for register, value in ((ICC_PMR, 0xF0), (ICC_BPR1, 0), (ICC_CTLR, 0), (ICC_IGRPEN1, 1)):
            assert gic.write_register(vcpu, register, value)
    return gic


def signalled(gic: Gicv3) -> list[int]:
    return [vcpu for vcpu in range(len(gic.mpidrs)) if gic.signals(vcpu)]


def acknowledge(gic: Gicv3, vcpu: int = 0) -> int:
    intid = gic.read_register(vcpu, ICC_IAR1)
    assert intid is not None
    return intid


def send(gic: Gicv3, sender: int, value: int, register: SystemRegister = ICC_SGI1R) -> None:
    assert gic.write_register(sender, register, value)


# ---- identification


def test_reset_values_of_the_distributor() -> None:
    gic = Gicv3((0, 1))

    assert gic.read_distributor(GICD_CTLR, 4) == 0x50  # DS, ARE
    assert gic.read_distributor(GICD_TYPER, 4) == 0x0378_0008  # 288 INTIDs, 16 bits of them, A3V, No1N
    assert gic.read_distributor(GICD_IIDR, 4) == 0x43B
    assert gic.read_distributor(0xFFE8, 4) == 0x3B
    assert [gic.read_distributor(0xFFD0 + 4 * n, 4) for n in range(12)] == [0x44, 0, 0, 0, 0x92, 0xB4, 0x3B, 0, 0x0D, 0xF0, 0x05, 0xB1]


def test_reset_values_of_a_cpu_interface_are_those_of_five_priority_bits() -> None:
    gic = Gicv3((0,))
    registers = (ICC_PMR, ICC_CTLR, ICC_SRE, ICC_BPR0, ICC_BPR1, ICC_IGRPEN0, ICC_IGRPEN1, ICC_AP0R0, ICC_AP1R0, ICC_RPR)

    assert [gic.read_register(0, register) for register in registers] == [0, 0x8C00, 7, 2, 3, 0, 0, 0, 0, 0xFF]


def test_a_redistributor_tells_its_affinity_its_number_and_whether_it_is_the_last() -> None:
    gic = Gicv3((0x0, 0x12_0034_0506))

    halves = [gic.read_redistributor(vcpu * FRAME_BYTES + GICR_TYPER + half, 4) for vcpu in (0, 1) for half in (0, 4)]

    assert halves == [0x000, 0x0, 0x110, 0x1234_0506]
    assert gic.read_redistributor(FRAME_BYTES + GICR_IIDR, 4) == 0x43B
    assert gic.read_redistributor(FRAME_BYTES + 0xFFE8, 4) == 0x3B


def test_waking_a_redistributor_is_instantaneous() -> None:
    gic = Gicv3((0, 1))
    waker = FRAME_BYTES + GICR_WAKER
    assert gic.read_redistributor(waker, 4) == 6

    gic.write_redistributor(waker, 4, 4)
    assert gic.read_redistributor(waker, 4) == 0
    gic.write_redistributor(waker, 4, 2)
    assert gic.read_redistributor(waker, 4) == 6


def test_what_is_not_there_reads_zero_and_ignores_writes() -> None:
    gic = controller()
    before = copy.deepcopy(gic)

    for offset in (0xC, 0x10, 0x40, 0x7C, 0x804, 0xD00, 0xE00, 0xF00, 0x5FFC, 0x6000, 0x60FC, 0x8000, 0xFFCC, 0xFFFC + 4):
        gic.write_distributor(offset, 4, 0xFFFF_FFFF)
        assert gic.read_distributor(offset, 4) == 0
    for offset in (0x0, 0x10, 0x70, SGI_BASE, sgi_frame(0, 0x84), sgi_frame(0, 0xD00), 2 * FRAME_BYTES, 2 * FRAME_BYTES + GICR_TYPER):
        gic.write_redistributor(offset, 4, 0xFFFF_FFFF)
        assert gic.read_redistributor(offset, 4) == 0
    assert gic == before


def test_registers_are_words_and_priorities_also_bytes() -> None:
    gic = controller()
    before = copy.deepcopy(gic)

    for size in (1, 2):
        for offset in (GICD_CTLR, GICD_TYPER, 0xFFE8, ISENABLER + 4, GICD_IROUTER + 8 * SPI):
            gic.write_distributor(offset, size, 0)
        assert gic.read_distributor(GICD_TYPER, size) == gic.read_distributor(ISENABLER + 4, size) == 0
        assert gic.read_redistributor(GICR_IIDR, size) == gic.read_redistributor(sgi_frame(0, ISENABLER), size) == 0
    gic.write_distributor(IPRIORITYR + SPI - 1, 2, 0)
    assert gic == before

    gic.write_distributor(IPRIORITYR + SPI, 1, 0x47)
    assert gic.read_distributor(IPRIORITYR + SPI, 1) == 0x40
    assert gic.read_distributor(IPRIORITYR + 32, 4) == 0xA0A0_40A0


def test_sgis_and_ppis_are_reserved_in_the_distributor_and_spis_in_a_redistributor() -> None:
    gic = Gicv3((0,))
    for register in (IGROUPR, ISENABLER, ISPENDR, ISACTIVER):
        gic.write_distributor(register, 4, 0xFFFF_FFFF)
        gic.write_redistributor(sgi_frame(0, register + 4), 4, 0xFFFF_FFFF)
    for register in (IPRIORITYR, ICFGR + 4):
        gic.write_distributor(register, 4, 0xFFFF_FFFF)
    gic.write_redistributor(sgi_frame(0, IPRIORITYR + 32), 4, 0xFFFF_FFFF)

    assert gic == Gicv3((0,))


# ---- bits of interrupts


@pytest.mark.parametrize(("setter", "clearer"), [(ISENABLER, ICENABLER), (ISPENDR, ICPENDR), (ISACTIVER, ICACTIVER)])
def test_bits_are_set_and_cleared_by_ones(setter: int, clearer: int) -> None:
    gic = Gicv3((0, 1))
    gic.write_distributor(setter + 4, 4, 0b1011)
    gic.write_distributor(clearer + 4, 4, 0b0010)
    gic.write_redistributor(sgi_frame(1, setter), 4, 0xF000_000F)
    gic.write_redistributor(sgi_frame(1, clearer), 4, 0x8000_0001)

    assert [gic.read_distributor(register + 4, 4) for register in (setter, clearer)] == [0b1001] * 2
    assert [gic.read_redistributor(sgi_frame(1, register), 4) for register in (setter, clearer)] == [0x7000_000E] * 2
    assert gic.read_redistributor(sgi_frame(0, setter), 4) == 0


def test_sgis_are_edge_triggered_always_and_ppis_and_spis_as_configured() -> None:
    gic = Gicv3((0,))
    assert [gic.read_redistributor(sgi_frame(0, ICFGR + half), 4) for half in (0, 4)] == [0xAAAA_AAAA, 0]

    for half in (0, 4):
        gic.write_redistributor(sgi_frame(0, ICFGR + half), 4, 0x5555_5558)
    gic.write_distributor(ICFGR + 8, 4, 0xFFFF_FFF7)

    assert [gic.read_redistributor(sgi_frame(0, ICFGR + half), 4) for half in (0, 4)] == [0xAAAA_AAAA, 0x8]
    assert gic.read_distributor(ICFGR + 8, 4) == 0xAAAA_AAA2
    assert gic.read_distributor(ICFGR + 12, 4) == 0


def test_a_level_triggered_interrupt_is_pending_while_its_line_is_asserted() -> None:
    gic = controller()
    gic.set_level(TIMER, True, 1)
    assert signalled(gic) == [1]
    gic.write_redistributor(sgi_frame(1, ICPENDR), 4, 0xFFFF_FFFF)
    assert gic.read_redistributor(sgi_frame(1, ISPENDR), 4) == 1 << TIMER

    gic.set_level(TIMER, False, 1)

    assert signalled(gic) == []
    assert gic.read_redistributor(sgi_frame(1, ISPENDR), 4) == 0


def test_an_edge_triggered_interrupt_stays_pending_until_it_is_taken() -> None:
    gic = controller()
    gic.write_distributor(ICFGR + 8, 4, 0b10 << 2 * (SPI - 32))
    gic.set_level(SPI, True)
    gic.set_level(SPI, False)
    assert signalled(gic) == [0]
    assert acknowledge(gic) == SPI
    gic.write_register(0, ICC_EOIR1, SPI)
    assert signalled(gic) == []

    gic.set_level(SPI, True)
    assert acknowledge(gic) == SPI
    gic.set_level(SPI, False)
    gic.write_register(0, ICC_EOIR1, SPI)
    assert signalled(gic) == []


def test_a_line_that_stays_asserted_is_taken_once_and_again_after_its_end() -> None:
    gic = controller()
    gic.set_level(TIMER, True, 0)

    assert acknowledge(gic) == TIMER
    assert acknowledge(gic) == SPURIOUS
    assert gic.write_register(0, ICC_EOIR1, TIMER)
    assert acknowledge(gic) == TIMER


def test_an_interrupt_is_signalled_only_if_distributor_interrupt_group_and_interface_are_enabled() -> None:
    gic = controller()
    gic.set_level(TIMER, True, 0)

    def off_and_on(off: tuple[bool, int, int], on: tuple[bool, int, int]) -> tuple[list[int], list[int]]:
        seen = []
        for is_register, where, value in (off, on):
            if is_register:
                gic.write_register(0, (3, 0, 12, 12, where), value)
            elif where == GICD_CTLR:
                gic.write_distributor(where, 4, value)
            else:
                gic.write_redistributor(where, 4, value)
            seen.append(signalled(gic))
        return seen[0], seen[1]

    assert off_and_on((False, GICD_CTLR, 1), (False, GICD_CTLR, 2)) == ([], [0])
    assert off_and_on((False, sgi_frame(0, ICENABLER), 1 << TIMER), (False, sgi_frame(0, ISENABLER), 1 << TIMER)) == ([], [0])
    assert off_and_on((False, sgi_frame(0, ISACTIVER), 1 << TIMER), (False, sgi_frame(0, ICACTIVER), 1 << TIMER)) == ([], [0])
    assert off_and_on((True, 7, 0), (True, 7, 1)) == ([], [0])


def test_a_sleeping_redistributor_forwards_all_the_same_and_wakes_its_vcpu_though_the_interface_is_disabled() -> None:
    gic = controller()
    gic.write_redistributor(GICR_WAKER, 4, 2)
    gic.set_level(TIMER, True, 0)
    assert (gic.signals(0), gic.wakes(0)) == (True, True)

    gic.write_register(0, ICC_IGRPEN1, 0)
    assert (gic.signals(0), gic.wakes(0)) == (False, True)

    gic.write_redistributor(GICR_WAKER, 4, 0)
    assert (gic.signals(0), gic.wakes(0)) == (False, False)


# ---- routing


def test_an_spi_goes_where_its_router_says_and_nowhere_if_nobody_has_that_affinity() -> None:
    gic = controller(0, 1, 0x1_0000_0100)
    gic.set_level(SPI, True)
    seen = [signalled(gic)]

    for low, high in ((1, 0), (0x100, 1), (0x100, 0)):
        gic.write_distributor(GICD_IROUTER + 8 * SPI, 4, low)
        gic.write_distributor(GICD_IROUTER + 8 * SPI + 4, 4, high)
        seen.append(signalled(gic))

    assert seen == [[0], [1], [2], []]
    assert gic.read_distributor(ISPENDR + 4, 4) == 1 << SPI - 32


def test_a_router_has_no_bits_but_the_affinity() -> None:
    gic = controller()

    for half in (0, 4):
        gic.write_distributor(GICD_IROUTER + 8 * SPI + half, 4, 0xFFFF_FFFF)

    assert [gic.read_distributor(GICD_IROUTER + 8 * SPI + half, 4) for half in (0, 4)] == [0x00FF_FFFF, 0xFF]


def sgi(number: int, targets: int, *, aff1: int = 0, aff2: int = 0, aff3: int = 0, rs: int = 0) -> int:
    return aff3 << 48 | rs << 44 | aff2 << 32 | number << 24 | aff1 << 16 | targets


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (sgi(3, 0b1), [0]),
        (sgi(3, 0b10), [1]),
        (sgi(3, 0xFFFF), [0, 1]),
        (sgi(3, 0xFFFF, aff1=1), [2, 3]),
        (sgi(3, 0xFFFF, aff1=1, aff2=1), [4]),
        (sgi(3, 0xFFFF, aff1=1, aff2=1, aff3=1), [5]),
        (sgi(3, 0xFFFF, aff1=2), []),
        (sgi(3, 0, aff1=1), []),
        (sgi(3, 0x8000, rs=15), []),
        (1 << 40 | sgi(3, 0), [0, 2, 3, 4, 5]),
    ],
)
def test_an_sgi_goes_to_a_target_list_in_one_cluster_or_to_all_others(value: int, expected: list[int]) -> None:
    gic = controller(0, 1, 0x100, 0x10F, 0x1_0100, 0x1_0001_0100)

    send(gic, 1, value)

    assert signalled(gic) == expected
    assert [acknowledge(gic, vcpu) for vcpu in expected] == [3] * len(expected)


def test_the_range_selector_exists_where_aff0_goes_beyond_fifteen() -> None:
    gic = controller(0, 0x10, 0xFF)

    assert gic.read_distributor(GICD_TYPER, 4) == 0x0778_0008
    assert gic.read_register(0, ICC_CTLR) == 0x4_8C00
    send(gic, 0, sgi(1, 0b1, rs=1))
    assert signalled(gic) == [1]
    send(gic, 0, sgi(1, 0x8000, rs=15))
    assert signalled(gic) == [1, 2]


def test_an_sgi_is_sent_by_the_register_of_the_group_it_has_at_its_target() -> None:
    gic = controller()
    gic.write_redistributor(sgi_frame(1, IGROUPR), 4, 0xFFFF_FFFF & ~(1 << 5))
    pending = []

    for register in (ICC_SGI1R, ICC_SGI0R, ICC_ASGI1R):
        send(gic, 0, sgi(5, 0b11), register)
        pending.append([gic.read_redistributor(sgi_frame(vcpu, ISPENDR), 4) for vcpu in (0, 1)])
        for vcpu in (0, 1):
            gic.write_redistributor(sgi_frame(vcpu, ICPENDR), 4, 0xFFFF_FFFF)

    assert pending == [[1 << 5, 0], [0, 1 << 5], [0, 1 << 5]]


def test_every_vcpu_of_the_largest_machine_is_reached() -> None:
    gic = controller(*MANY)

    for aff1 in range(8):
        send(gic, 0, sgi(0, 0xFFFF, aff1=aff1))

    assert signalled(gic) == list(range(MOST_VCPUS))
    assert gic.read_redistributor((MOST_VCPUS - 1) * FRAME_BYTES + GICR_TYPER, 4) == 122 << 8 | 1 << 4


# ---- priorities


def set_priority(gic: Gicv3, intid: int, priority: int) -> None:
    if intid < 32:
        gic.write_redistributor(sgi_frame(0, IPRIORITYR + intid), 1, priority)
    else:
        gic.write_distributor(IPRIORITYR + intid, 1, priority)


def test_the_highest_priority_is_taken_first_and_of_equal_ones_the_lowest_intid() -> None:
    gic = controller(0)
    for intid, priority in ((TIMER, LOW), (30, LOW), (SPI, HIGH), (SPI + 1, HIGH), (40, MIDDLE), (41, LOW)):
        set_priority(gic, intid, priority)
        gic.set_level(intid, True)

    order = []
    for _ in range(6):
        order.append(acknowledge(gic))
        gic.set_level(order[-1], False)
        gic.write_register(0, ICC_EOIR1, order[-1])

    assert order == [SPI, SPI + 1, 40, TIMER, 30, 41]


def test_an_interrupt_must_have_a_higher_priority_than_the_mask() -> None:
    gic = controller(0)
    gic.set_level(TIMER, True)

    seen = []
    for mask in (0xA0, 0xA7, 0xA8, 0xFF, 0):
        gic.write_register(0, ICC_PMR, mask)
        seen.append((gic.read_register(0, ICC_PMR), gic.signals(0), gic.read_register(0, ICC_HPPIR1)))

    assert seen == [(0xA0, False, TIMER), (0xA0, False, TIMER), (0xA8, True, TIMER), (0xF8, True, TIMER), (0, False, TIMER)]


def test_an_interrupt_preempts_one_of_lower_priority_only_and_the_end_restores_the_running_priority() -> None:
    gic = controller(0)
    set_priority(gic, SPI, HIGH)
    gic.set_level(TIMER, True)
    assert acknowledge(gic) == TIMER
    gic.set_level(30, True)  # as high as what is active
    assert (gic.signals(0), gic.read_register(0, ICC_RPR)) == (False, LOW)

    gic.set_level(SPI, True)
    assert gic.signals(0)
    assert acknowledge(gic) == SPI
    assert (gic.read_register(0, ICC_RPR), gic.read_register(0, ICC_AP1R0)) == (HIGH, 1 << (HIGH >> 3) | 1 << (LOW >> 3))
    gic.set_level(SPI, False)
    gic.write_register(0, ICC_EOIR1, SPI)
    assert (gic.signals(0), gic.read_register(0, ICC_RPR)) == (False, LOW)
    gic.write_register(0, ICC_EOIR1, TIMER)
    assert (gic.signals(0), gic.read_register(0, ICC_RPR)) == (True, 0xFF)


def test_the_binary_point_says_which_bits_of_a_priority_preempt() -> None:
    gic = controller(0)
    set_priority(gic, SPI, 0x90)
    set_priority(gic, TIMER, 0x98)
    gic.set_level(TIMER, True)
    acknowledge(gic)
    gic.set_level(SPI, True)

    seen = []
    for bpr in range(8):
        gic.write_register(0, ICC_BPR1, bpr)
        seen.append((gic.read_register(0, ICC_BPR1), gic.signals(0)))

    assert seen == [(3, True)] * 4 + [(4, False), (5, False), (6, False), (7, False)]


def test_with_a_common_binary_point_group_1_follows_that_of_group_0() -> None:
    gic = controller(0)
    gic.write_register(0, ICC_BPR0, 5)
    gic.write_register(0, ICC_CTLR, 1)

    gic.write_register(0, ICC_BPR1, 3)

    assert [gic.read_register(0, register) for register in (ICC_BPR0, ICC_BPR1, ICC_CTLR)] == [5, 6, 0x8C01]
    set_priority(gic, TIMER, 0x60)
    set_priority(gic, SPI, 0x38)
    set_priority(gic, 30, 0x80)
    gic.set_level(30, True)
    assert (acknowledge(gic), gic.read_register(0, ICC_AP1R0)) == (30, 1 << (0x80 >> 3))
    gic.set_level(TIMER, True)
    assert (acknowledge(gic), gic.read_register(0, ICC_RPR)) == (TIMER, 0x40)
    gic.set_level(SPI, True)
    assert gic.signals(0)  # six bits of subpriority: 0x00 preempts 0x40
    gic.write_register(0, ICC_CTLR, 0)
    assert gic.read_register(0, ICC_BPR1) == 3


# ---- acknowledging and ending


def test_nothing_pending_reads_as_the_spurious_interrupt_and_changes_nothing() -> None:
    gic = controller()
    before = copy.deepcopy(gic)

    assert [gic.read_register(0, register) for register in (ICC_IAR0, ICC_IAR1, ICC_HPPIR0, ICC_HPPIR1)] == [SPURIOUS] * 4
    assert gic == before


def test_ends_that_match_nothing_are_ignored() -> None:
    gic = controller()
    before = copy.deepcopy(gic)

    for intid in (SPURIOUS, INTIDS, 0xFF_FFFF, TIMER):
        for register in (ICC_EOIR0, ICC_EOIR1, ICC_DIR):
            assert gic.write_register(0, register, intid)

    assert gic == before


def test_with_eoimode_the_end_drops_the_priority_and_dir_deactivates() -> None:
    gic = controller(0)
    gic.write_register(0, ICC_CTLR, EOIMODE)
    gic.set_level(TIMER, True)
    acknowledge(gic)
    gic.write_register(0, ICC_EOIR1, TIMER)
    assert (gic.read_register(0, ICC_RPR), gic.signals(0)) == (0xFF, False)
    assert gic.read_redistributor(sgi_frame(0, ISACTIVER), 4) == 1 << TIMER

    gic.write_register(0, ICC_DIR, TIMER)

    assert gic.signals(0)
    assert gic.read_redistributor(sgi_frame(0, ISACTIVER), 4) == 0


def test_an_spi_may_be_deactivated_by_another_vcpu() -> None:
    gic = controller()
    for vcpu in (0, 1):
        gic.write_register(vcpu, ICC_CTLR, EOIMODE)
    gic.set_level(SPI, True)
    assert acknowledge(gic) == SPI
    gic.write_register(0, ICC_EOIR1, SPI)
    assert signalled(gic) == []

    gic.write_register(1, ICC_DIR, SPI)

    assert signalled(gic) == [0]


def test_group_0_is_acknowledged_through_its_own_registers_and_never_an_irq() -> None:
    gic = controller(0)
    gic.write_redistributor(sgi_frame(0, IGROUPR), 4, 0)
    gic.write_register(0, ICC_IGRPEN0, 1)
    gic.set_level(TIMER, True)

    assert not gic.signals(0)
    assert [gic.read_register(0, register) for register in (ICC_HPPIR1, ICC_IAR1, ICC_HPPIR0)] == [SPURIOUS, SPURIOUS, TIMER]
    assert gic.read_register(0, ICC_IAR0) == TIMER
    assert [gic.read_register(0, register) for register in (ICC_AP0R0, ICC_AP1R0)] == [1 << (LOW >> 3), 0]
    gic.write_register(0, ICC_EOIR1, TIMER)
    assert gic.read_register(0, ICC_RPR) == LOW
    gic.write_register(0, ICC_EOIR0, TIMER)
    assert gic.read_register(0, ICC_RPR) == 0xFF


# ---- registers


def test_a_register_that_cannot_be_read_or_written_is_none_of_ours() -> None:
    gic = controller(0)
    write_only = {ICC_DIR, *END, *GENERATE}
    read_only = {ICC_RPR, *ACKNOWLEDGE, *HIGHEST_PENDING}
    absent = {(3, 0, 12, 8, 5), (3, 0, 12, 9, 1), (3, 0, 12, 9, 4), (3, 4, 12, 9, 5), (3, 4, 12, 11, 0), (3, 0, 12, 12, 8), (3, 0, 0, 4, 0)}

    assert [gic.read_register(0, register) for register in write_only | absent] == [None] * 13
    assert [gic.write_register(0, register, 0) for register in read_only | absent] == [False] * 12


def test_the_interface_is_always_used_through_system_registers() -> None:
    gic = controller(0)

    assert gic.write_register(0, ICC_SRE, 0)
    assert gic.read_register(0, ICC_SRE) == 7


def test_a_reset_of_the_core_resets_its_cpu_interface_alone() -> None:
    gic = controller()
    gic.set_level(TIMER, True, 0)
    gic.set_level(TIMER, True, 1)

    gic.reset_interface(1)

    assert signalled(gic) == [0]
    assert [gic.read_register(1, register) for register in (ICC_PMR, ICC_IGRPEN1)] == [0, 0]
    assert gic.read_redistributor(sgi_frame(1, ISENABLER), 4) == 0xFFFF_FFFF


def test_its_fields_are_its_whole_state() -> None:
    gic = controller(0, 1)
    gic.set_level(TIMER, True, 1)
    gic.set_level(SPI, True)
    assert acknowledge(gic, 0) == SPI

    state = {each.name: copy.deepcopy(getattr(gic, each.name)) for each in dataclasses.fields(gic) if each.init}
    other = Gicv3(**state)

    assert other == gic
    assert [other.signals(vcpu) for vcpu in (0, 1)] == [gic.signals(vcpu) for vcpu in (0, 1)] == [False, True]
