"""A GICv2's CPU interface: priorities, groups, acknowledging and ending (Arm IHI 0048)."""

from __future__ import annotations

import copy

import pytest

from emu.devices.gic_bank import IPRIORITYR, ISACTIVER
from emu.devices.gicv2 import (
    CTLR_ACKCTL,
    CTLR_CBPR,
    CTLR_EOIMODE,
    CTLR_FIQEN,
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
    GICD_CTLR,
    INTIDS,
)
from emu.devices.gicv3_interface import SPURIOUS
from tests.emu.devices.gicv2_steps import (
    GROUP_1_PENDING,
    HIGH,
    LOW,
    MIDDLE,
    SPI,
    TIMER,
    controller,
    distributor,
    new,
    read,
    set_group,
    set_priority,
    signalled,
    write,
)

# ---- priorities


def test_the_highest_priority_is_taken_first_and_of_equal_ones_the_lowest_intid() -> None:
    gic = controller(1)
    for intid, priority in ((TIMER, LOW), (30, LOW), (SPI, HIGH), (SPI + 1, HIGH), (40, MIDDLE), (41, LOW)):
        set_priority(gic, intid, priority)
        gic.set_level(intid, True)

    order = []
    for _ in range(6):
        order.append(read(gic, GICC_IAR))
        gic.set_level(order[-1], False)
        write(gic, GICC_EOIR, order[-1])

    assert order == [SPI, SPI + 1, 40, TIMER, 30, 41]


def test_priorities_have_five_bits_and_those_of_ppis_are_each_vcpus_own() -> None:
    gic = new(2)
    for intid in (TIMER, SPI):
        set_priority(gic, intid, 0xFF, 1)

    assert [gic.read_distributor(IPRIORITYR + TIMER, 1, vcpu) for vcpu in (0, 1)] == [0, 0xF8]
    assert [gic.read_distributor(IPRIORITYR + SPI, 1, vcpu) for vcpu in (0, 1)] == [0xF8, 0xF8]


def test_an_interrupt_must_have_a_higher_priority_than_the_mask() -> None:
    gic = controller(1)
    gic.set_level(TIMER, True)

    seen = []
    for mask in (0xA0, 0xA7, 0xA8, 0xFFF, 0):
        write(gic, GICC_PMR, mask)
        seen.append((read(gic, GICC_PMR), gic.signals(0), read(gic, GICC_HPPIR)))
    assert read(gic, GICC_IAR) == SPURIOUS

    assert seen == [(0xA0, False, TIMER), (0xA0, False, TIMER), (0xA8, True, TIMER), (0xF8, True, TIMER), (0, False, TIMER)]


def test_an_interrupt_preempts_one_of_lower_priority_only_and_the_end_restores_the_running_priority() -> None:
    gic = controller(1)
    set_priority(gic, SPI, HIGH)
    gic.set_level(TIMER, True)
    assert read(gic, GICC_IAR) == TIMER
    gic.set_level(30, True)  # as high as what is active
    assert (gic.signals(0), read(gic, GICC_RPR), read(gic, GICC_HPPIR)) == (False, LOW, 30)

    gic.set_level(SPI, True)
    assert gic.signals(0)
    assert read(gic, GICC_IAR) == SPI
    assert (read(gic, GICC_RPR), read(gic, GICC_APR0)) == (HIGH, 1 << (HIGH >> 3) | 1 << (LOW >> 3))
    gic.set_level(SPI, False)
    write(gic, GICC_EOIR, SPI)
    assert (gic.signals(0), read(gic, GICC_RPR)) == (False, LOW)
    write(gic, GICC_EOIR, TIMER)
    assert (gic.signals(0), read(gic, GICC_RPR)) == (True, 0xFF)


@pytest.mark.parametrize(
    ("group", "register", "expected"),
    [
        (0, GICC_BPR, [(2, True)] * 3 + [(3, False), (4, False), (5, False), (6, False), (7, False)]),
        (1, GICC_ABPR, [(3, True)] * 4 + [(4, False), (5, False), (6, False), (7, False)]),
    ],
)
def test_the_binary_point_of_its_group_says_which_bits_of_a_priority_preempt(
    group: int, register: int, expected: list[tuple[int, bool]]
) -> None:
    gic = controller(1, 3 | CTLR_ACKCTL)
    set_group(gic, group, SPI, TIMER)
    set_priority(gic, SPI, 0x90)
    set_priority(gic, TIMER, 0x98)
    gic.set_level(TIMER, True)
    assert read(gic, GICC_IAR) == TIMER
    gic.set_level(SPI, True)

    seen = []
    for bpr in range(8):
        write(gic, register, bpr)
        seen.append((read(gic, register), gic.signals(0)))

    assert seen == expected


def test_with_a_common_binary_point_group_1_follows_that_of_group_0() -> None:
    gic = controller(1, 3 | CTLR_ACKCTL | CTLR_CBPR)
    set_group(gic, 1, SPI, TIMER)
    write(gic, GICC_BPR, 5)
    set_priority(gic, TIMER, 0x60)
    set_priority(gic, SPI, 0x38)
    gic.set_level(TIMER, True)

    assert (read(gic, GICC_IAR), read(gic, GICC_RPR)) == (TIMER, 0x40)
    gic.set_level(SPI, True)
    assert gic.signals(0)  # six bits of subpriority: 0x00 preempts 0x40
    assert (read(gic, GICC_BPR), read(gic, GICC_ABPR)) == (5, 3)


# ---- groups


def test_only_the_groups_that_distributor_and_interface_enable_are_signalled() -> None:
    gic = controller(1, 3)
    set_group(gic, 1, SPI)
    seen = []

    for intid in (TIMER, SPI):
        gic.set_level(intid, True)
        for ctlr in range(4):
            gic.write_distributor(GICD_CTLR, 4, ctlr, 0)
            write(gic, GICC_CTLR, 3)
            by_distributor = gic.signals(0)
            gic.write_distributor(GICD_CTLR, 4, 3, 0)
            write(gic, GICC_CTLR, ctlr)
            seen.append((by_distributor, gic.signals(0)))
        gic.set_level(intid, False)

    assert seen == [(enabled, enabled) for enabled in (False, True, False, True, False, False, True, True)]
    gic.write_distributor(GICD_CTLR, 4, 0xFFFF_FFFF, 0)
    write(gic, GICC_CTLR, 0xFFFF_FFFF)
    assert (distributor(gic, GICD_CTLR), read(gic, GICC_CTLR)) == (3, 0x21F)


def test_group_1_is_acknowledged_through_the_aliases_or_with_ackctl() -> None:
    gic = controller(1, 3)
    set_group(gic, 1, SPI)
    gic.set_level(SPI, True)
    assert gic.signals(0)
    assert [read(gic, register) for register in (GICC_HPPIR, GICC_IAR, GICC_AHPPIR)] == [GROUP_1_PENDING, GROUP_1_PENDING, SPI]
    assert read(gic, GICC_AIAR) == SPI
    assert [read(gic, register) for register in (GICC_APR0, GICC_NSAPR0, GICC_RPR)] == [0, 1 << (LOW >> 3), LOW]
    write(gic, GICC_AEOIR, SPI)
    assert read(gic, GICC_RPR) == 0xFF

    write(gic, GICC_CTLR, 3 | CTLR_ACKCTL)

    assert [read(gic, register) for register in (GICC_HPPIR, GICC_IAR)] == [SPI, SPI]
    write(gic, GICC_EOIR, SPI)
    assert (read(gic, GICC_RPR), distributor(gic, ISACTIVER + 4)) == (0xFF, 0)


def test_the_aliases_do_not_see_group_0() -> None:
    gic = controller(1, 3 | CTLR_ACKCTL)
    gic.set_level(TIMER, True)
    before = copy.deepcopy(gic)

    assert [read(gic, register) for register in (GICC_AHPPIR, GICC_AIAR)] == [SPURIOUS, SPURIOUS]
    assert gic == before


def test_each_groups_active_priorities_have_their_register_and_a_guest_can_put_them_back() -> None:
    gic = controller(1, 3 | CTLR_ACKCTL)
    set_group(gic, 1, SPI)
    set_priority(gic, SPI, HIGH)
    for intid in (TIMER, SPI):
        gic.set_level(intid, True)
        assert read(gic, GICC_IAR) == intid
    saved = [read(gic, register) for register in (GICC_APR0, GICC_NSAPR0)]
    before = copy.deepcopy(gic)

    for register, value in zip((GICC_APR0, GICC_NSAPR0), saved, strict=True):
        write(gic, register, 0)
        write(gic, register, value)

    assert saved == [1 << (LOW >> 3), 1 << (HIGH >> 3)]
    assert gic == before
    write(gic, GICC_NSAPR0, 0)
    assert read(gic, GICC_RPR) == LOW


def test_with_fiqen_group_0_is_no_irq_and_can_be_acknowledged() -> None:
    gic = controller(1, 3)
    set_group(gic, 1, SPI)
    gic.set_level(TIMER, True)
    write(gic, GICC_CTLR, 3 | CTLR_FIQEN)
    assert not gic.signals(0)
    assert read(gic, GICC_IAR) == TIMER
    gic.set_level(TIMER, False)
    write(gic, GICC_EOIR, TIMER)

    gic.set_level(SPI, True)

    assert gic.signals(0)


# ---- acknowledging and ending


def test_nothing_pending_reads_as_the_spurious_interrupt_and_changes_nothing() -> None:
    gic = controller()
    before = copy.deepcopy(gic)

    assert [read(gic, register) for register in (GICC_IAR, GICC_AIAR, GICC_HPPIR, GICC_AHPPIR)] == [SPURIOUS] * 4
    assert gic == before


def test_ends_that_match_nothing_are_ignored() -> None:
    gic = controller(2, 3 | CTLR_EOIMODE)
    before = copy.deepcopy(gic)

    for intid in (SPURIOUS, GROUP_1_PENDING, INTIDS, 0xFFFF_FFFF, TIMER):
        for register in (GICC_EOIR, GICC_AEOIR, GICC_DIR):
            write(gic, register, intid)

    assert gic == before


def test_without_eoimode_dir_is_ignored() -> None:
    gic = controller(1)
    gic.set_level(TIMER, True)
    assert read(gic, GICC_IAR) == TIMER
    before = copy.deepcopy(gic)

    write(gic, GICC_DIR, TIMER)

    assert gic == before


def test_with_eoimode_the_end_drops_the_priority_and_dir_deactivates() -> None:
    gic = controller(1, 1 | CTLR_EOIMODE)
    gic.set_level(TIMER, True)
    assert read(gic, GICC_IAR) == TIMER
    write(gic, GICC_EOIR, TIMER)
    assert (read(gic, GICC_RPR), gic.signals(0), distributor(gic, ISACTIVER)) == (0xFF, False, 1 << TIMER)

    write(gic, GICC_DIR, TIMER)

    assert (gic.signals(0), distributor(gic, ISACTIVER)) == (True, 0)


def test_an_spi_may_be_deactivated_by_another_vcpu() -> None:
    gic = controller(2, 1 | CTLR_EOIMODE)
    gic.set_level(SPI, True)
    assert read(gic, GICC_IAR) == SPI
    write(gic, GICC_EOIR, SPI)
    assert signalled(gic) == []

    write(gic, GICC_DIR, SPI, 1)

    assert signalled(gic) == [0]


def test_a_reset_of_the_core_leaves_its_cpu_interface_as_it_is() -> None:
    gic = controller()
    before = copy.deepcopy(gic)

    gic.reset_interface(1)

    assert gic == before
