"""The rules of a GICv2, by name (Arm IHI 0048); tests/emu/devices/test_gicv2_oracle.py compares whole histories."""

from __future__ import annotations

import copy
import dataclasses

import pytest

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
    GICC_IIDR,
    GICC_NSAPR0,
    GICC_PMR,
    GICC_RPR,
    GICD_CPENDSGIR,
    GICD_CTLR,
    GICD_IIDR,
    GICD_ITARGETSR,
    GICD_SGIR,
    GICD_SPENDSGIR,
    GICD_TYPER,
    INTIDS,
    MOST_VCPUS,
    Gicv2,
)
from emu.devices.gicv3_interface import SPURIOUS
from tests.emu.devices.gicv2_steps import (
    HIGH,
    LIST,
    OTHERS,
    SELF,
    SPI,
    SPI_BIT,
    TIMER,
    controller,
    distributor,
    new,
    read,
    send,
    set_priority,
    signalled,
    write,
)

# ---- identification


@pytest.mark.parametrize("vcpus", range(1, MOST_VCPUS + 1))
def test_the_distributor_says_how_many_interrupts_and_cpu_interfaces_there_are(vcpus: int) -> None:
    assert distributor(new(vcpus), GICD_TYPER, vcpus - 1) == (vcpus - 1) << 5 | 8


def test_reset_values() -> None:
    gic = new(2)
    interface = (GICC_CTLR, GICC_PMR, GICC_BPR, GICC_RPR, GICC_ABPR, GICC_APR0, GICC_NSAPR0, GICC_IIDR)

    assert distributor(gic, GICD_CTLR) == 0
    assert distributor(gic, GICD_IIDR) == 0x43B
    assert [distributor(gic, 0xFD0 + 4 * n) for n in range(12)] == [0x04, 0, 0, 0, 0x90, 0xB4, 0x2B, 0, 0x0D, 0xF0, 0x05, 0xB1]
    assert [distributor(gic, register) for register in (IGROUPR, ISENABLER, ICENABLER, ISPENDR, ISACTIVER)] == [0, 0xFFFF, 0xFFFF, 0, 0]
    assert [distributor(gic, ICFGR + 4 * n) for n in range(3)] == [0xAAAA_AAAA, 0, 0]
    assert [read(gic, register, 1) for register in interface] == [0, 0, 2, 0xFF, 3, 0, 0, 0x0002_043B]


def test_what_is_not_there_reads_zero_and_ignores_writes() -> None:
    gic = controller()
    before = copy.deepcopy(gic)

    for offset in (
        0xC,
        0x7C,
        0xA4,
        0x124,
        0x1A4,
        0x224,
        0x2A4,
        0x324,
        0x3A4,
        0x520,
        0x920,
        0xBFC,
        0xC48,
        0xD00,
        0xEFC,
        0xF04,
        0xF30,
        0xFCC,
    ):
        gic.write_distributor(offset, 4, 0xFFFF_FFFF, 0)
        assert distributor(gic, offset) == 0, hex(offset)
    for offset in (0x2C, 0xD4, 0xDC, 0xE4, 0xEC, 0xF8, 0x100, 0xFFC, 0x1004, 0x1FFC):
        write(gic, offset, 0xFFFF_FFFF)
        assert read(gic, offset) == 0, hex(offset)
    assert gic == before


def test_read_only_registers_ignore_writes_and_write_only_ones_read_zero() -> None:
    gic = controller()
    before = copy.deepcopy(gic)

    for offset in (GICD_TYPER, GICD_IIDR, 0xFD0, 0xFE8, 0xFFC):
        gic.write_distributor(offset, 4, 0, 0)
    for offset in (GICC_IAR, GICC_RPR, GICC_HPPIR, GICC_AIAR, GICC_AHPPIR, GICC_IIDR):
        write(gic, offset, 0)

    assert gic == before
    assert distributor(gic, GICD_SGIR) == 0
    assert [read(gic, offset) for offset in (GICC_EOIR, GICC_AEOIR, GICC_DIR)] == [0, 0, 0]


def test_registers_are_words_and_priorities_targets_and_sgi_sources_also_bytes() -> None:
    gic = controller()
    before = copy.deepcopy(gic)

    for size in (1, 2):
        for offset in (GICD_CTLR, GICD_TYPER, GICD_SGIR, 0xFE8, ISENABLER + 4, ICFGR + 8):
            gic.write_distributor(offset, size, 0x10, 0)
            assert gic.read_distributor(offset, size, 0) == 0
        for offset in (GICC_CTLR, GICC_PMR, GICC_IAR, GICC_IIDR):
            gic.write_cpu_interface(offset, size, 0, 0)
            assert gic.read_cpu_interface(offset, size, 0) == 0
    assert gic == before

    gic.write_distributor(IPRIORITYR + SPI, 1, 0x47, 0)
    assert gic.read_distributor(IPRIORITYR + SPI, 1, 0) == 0x40
    assert distributor(gic, IPRIORITYR + 32) == 0xA0A0_40A0
    gic.write_distributor(GICD_ITARGETSR + SPI, 1, 0xFE, 0)
    assert gic.read_distributor(GICD_ITARGETSR + SPI, 1, 0) == 2
    assert distributor(gic, GICD_ITARGETSR + 32) == 0x0101_0201
    gic.write_distributor(GICD_SPENDSGIR + 5, 1, 0xFF, 0)
    assert gic.read_distributor(GICD_CPENDSGIR + 5, 1, 0) == 3
    assert distributor(gic, GICD_SPENDSGIR + 4) == 0x300


@pytest.mark.parametrize("size", [1, 2, 4])
def test_no_access_is_beyond_it(size: int) -> None:
    gic = controller()
    for offset in range(0x1000):
        gic.write_distributor(offset, size, 0xFFFF_FFFF >> 8 * (4 - size), 1)
        assert 0 <= gic.read_distributor(offset, size, 1) < 1 << 8 * size
    for offset in range(0x2000):
        gic.write_cpu_interface(offset, size, 0xFFFF_FFFF >> 8 * (4 - size), 1)
        assert 0 <= gic.read_cpu_interface(offset, size, 1) < 1 << 32

    shapes = [(len(each.sources), len(each.bank.priority)) for each in gic.cpus]
    assert (shapes, len(gic.targets), len(gic.bank.priority)) == ([(16, 32)] * 2, INTIDS, INTIDS)


# ---- bits of interrupts


@pytest.mark.parametrize(("setter", "clearer"), [(ISENABLER, ICENABLER), (ISPENDR, ICPENDR), (ISACTIVER, ICACTIVER)])
def test_bits_are_set_and_cleared_by_ones_and_those_of_ppis_are_each_vcpus_own(setter: int, clearer: int) -> None:
    gic = new(2)
    gic.write_distributor(setter + 4, 4, 0b1011, 1)
    gic.write_distributor(clearer + 4, 4, 0b0010, 0)
    gic.write_distributor(setter, 4, 0xF000_0000, 1)
    gic.write_distributor(clearer, 4, 0x8000_0000, 1)

    for vcpu in (0, 1):
        assert [distributor(gic, register + 4, vcpu) for register in (setter, clearer)] == [0b1001] * 2
    assert [distributor(gic, register, 1) & 0xFFFF_0000 for register in (setter, clearer)] == [0x7000_0000] * 2
    assert distributor(gic, setter, 0) & 0xFFFF_0000 == 0


def test_sgis_are_edge_triggered_and_enabled_always_and_pending_by_their_senders_alone() -> None:
    gic = new(2)

    for register, value in ((ICENABLER, 0xFFFF_FFFF), (ISPENDR, 0xFFFF), (ICFGR, 0)):
        gic.write_distributor(register, 4, value, 0)

    assert gic == new(2)
    send(gic, 1, 5, 0b01)
    gic.write_distributor(ICPENDR, 4, 0xFFFF, 0)
    assert distributor(gic, ISPENDR) == 1 << 5


def test_ppis_and_spis_are_triggered_as_configured() -> None:
    gic = new(2)

    gic.write_distributor(ICFGR + 4, 4, 0x5555_5558, 1)
    gic.write_distributor(ICFGR + 8, 4, 0xFFFF_FFF7, 0)

    assert [distributor(gic, ICFGR + 4, vcpu) for vcpu in (0, 1)] == [0, 0x8]
    assert [distributor(gic, ICFGR + 8, vcpu) for vcpu in (0, 1)] == [0xAAAA_AAA2] * 2


def test_a_level_triggered_interrupt_is_pending_while_its_line_is_asserted() -> None:
    gic = controller()
    gic.set_level(TIMER, True, 1)
    assert signalled(gic) == [1]
    gic.write_distributor(ICPENDR, 4, 0xFFFF_FFFF, 1)
    assert [distributor(gic, ISPENDR, vcpu) for vcpu in (0, 1)] == [0, 1 << TIMER]

    gic.set_level(TIMER, False, 1)

    assert signalled(gic) == []
    assert distributor(gic, ISPENDR, 1) == 0


def test_an_edge_triggered_interrupt_stays_pending_until_it_is_taken() -> None:
    gic = controller()
    gic.write_distributor(ICFGR + 8, 4, 0b10 << 2 * (SPI - 32), 0)
    gic.set_level(SPI, True)
    gic.set_level(SPI, False)
    assert signalled(gic) == [0]

    assert read(gic, GICC_IAR) == SPI
    gic.set_level(SPI, True)  # another edge while it is active
    assert (distributor(gic, ISPENDR + 4), distributor(gic, ISACTIVER + 4), signalled(gic)) == (SPI_BIT, SPI_BIT, [])
    write(gic, GICC_EOIR, SPI)
    assert read(gic, GICC_IAR) == SPI
    write(gic, GICC_EOIR, SPI)
    assert signalled(gic) == []


def test_a_line_that_stays_asserted_is_active_and_pending_and_taken_again_after_its_end() -> None:
    gic = controller()
    gic.set_level(TIMER, True, 0)

    assert read(gic, GICC_IAR) == TIMER
    assert (distributor(gic, ISPENDR), distributor(gic, ISACTIVER), signalled(gic)) == (1 << TIMER, 1 << TIMER, [])
    assert read(gic, GICC_IAR) == SPURIOUS
    write(gic, GICC_EOIR, TIMER)
    assert read(gic, GICC_IAR) == TIMER


def test_an_interrupt_is_signalled_only_if_distributor_interrupt_and_interface_are_enabled_and_it_is_not_active() -> None:
    gic = controller(1)
    gic.set_level(TIMER, True, 0)
    seen = []

    for offset, value in ((GICD_CTLR, 2), (GICD_CTLR, 1), *((each, 1 << TIMER) for each in (ICENABLER, ISENABLER, ISACTIVER, ICACTIVER))):
        gic.write_distributor(offset, 4, value, 0)
        seen.append(gic.signals(0))
    for value in (2, 1):
        write(gic, GICC_CTLR, value)
        seen.append(gic.signals(0))

    assert seen == [False, True] * 4
    assert gic.wakes(0)


# ---- targets


def test_an_spi_goes_to_every_vcpu_it_targets_and_is_taken_once() -> None:
    gic = controller(3)
    gic.set_level(SPI, True)
    seen = []
    for targets in (0b000, 0b010, 0b110):
        gic.write_distributor(GICD_ITARGETSR + SPI, 1, targets, 0)
        seen.append(signalled(gic))
    assert seen == [[], [1], [1, 2]]

    assert read(gic, GICC_IAR, 2) == SPI

    assert signalled(gic) == []
    assert read(gic, GICC_IAR, 1) == SPURIOUS


def test_targets_are_the_vcpus_that_there_are_and_those_of_a_ppi_say_who_reads() -> None:
    gic = controller(3)
    for offset in range(0, INTIDS, 4):
        gic.write_distributor(GICD_ITARGETSR + offset, 4, 0xFFFF_FFFF, 0)

    assert [distributor(gic, GICD_ITARGETSR + offset, 2) for offset in range(0, INTIDS, 4)] == [0x0404_0404] * 8 + [0x0707_0707] * 64
    assert distributor(gic, GICD_ITARGETSR + 28, 0) == 0x0101_0101


def test_with_one_vcpu_all_goes_to_it_and_the_targets_read_zero() -> None:
    gic = new(1)
    before = copy.deepcopy(gic)
    for offset in range(0, INTIDS, 4):
        gic.write_distributor(GICD_ITARGETSR + offset, 4, 0xFFFF_FFFF, 0)
    assert [distributor(gic, GICD_ITARGETSR + offset) for offset in range(0, INTIDS, 4)] == [0] * 72
    assert gic == before

    gic = controller(1)
    gic.set_level(SPI, True)

    assert signalled(gic) == [0]


# ---- software generated interrupts


@pytest.mark.parametrize(
    ("targets", "where", "expected"),
    [
        (0b0101, LIST, [0, 2]),
        (0b0010, LIST, [1]),
        (0xF8, LIST, []),
        (0, LIST, []),
        (0xFF, OTHERS, [0, 2]),
        (0xFF, SELF, [1]),
        (0xFF, 3, []),
    ],
)
def test_an_sgi_goes_to_a_list_to_all_others_or_to_its_sender(targets: int, where: int, expected: list[int]) -> None:
    gic = controller(3)

    send(gic, 1, 4, targets, where)

    assert signalled(gic) == expected
    assert [read(gic, GICC_IAR, vcpu) for vcpu in expected] == [1 << 10 | 4] * len(expected)


def test_an_sgi_is_taken_once_from_each_of_its_senders() -> None:
    gic = controller(4)
    for sender in (3, 1, 1, 0):
        send(gic, sender, 9, 0b0100)
    assert gic.read_distributor(GICD_SPENDSGIR + 9, 1, 2) == 0b1011
    taken = []

    for _ in range(4):
        highest = read(gic, GICC_HPPIR, 2)
        taken.append(read(gic, GICC_IAR, 2))
        assert taken[-1] == highest
        write(gic, GICC_EOIR, taken[-1], 2)

    assert taken == [9, 1 << 10 | 9, 3 << 10 | 9, SPURIOUS]


def test_an_sgi_is_set_and_cleared_by_sender() -> None:
    gic = controller(4)
    gic.write_distributor(GICD_SPENDSGIR + 12, 4, 0xFF00_0006, 1)
    assert [distributor(gic, GICD_CPENDSGIR + 12, vcpu) for vcpu in (0, 1)] == [0, 0x0F00_0006]
    assert (signalled(gic), distributor(gic, ISPENDR, 1)) == ([1], 1 << 12 | 1 << 15)

    gic.write_distributor(GICD_CPENDSGIR + 12, 4, 0xFF00_0002, 1)
    assert distributor(gic, ISPENDR, 1) == 1 << 12
    gic.write_distributor(GICD_CPENDSGIR + 12, 1, 0x04, 1)

    assert (signalled(gic), distributor(gic, ISPENDR, 1)) == ([], 0)


def test_the_end_of_an_sgi_may_name_its_sender_or_not() -> None:
    gic = controller()
    for ended in (1 << 10 | 3, 3):
        send(gic, 1, 3, 0b01)
        assert read(gic, GICC_IAR) == 1 << 10 | 3
        write(gic, GICC_EOIR, ended)
        assert (distributor(gic, ISACTIVER), read(gic, GICC_RPR)) == (0, 0xFF)


# ---- state


def test_its_fields_are_its_whole_state() -> None:
    gic = controller()
    gic.set_level(TIMER, True, 1)
    gic.set_level(SPI, True)
    send(gic, 0, 3, 0b10)
    assert read(gic, GICC_IAR) == SPI

    state = {each.name: copy.deepcopy(getattr(gic, each.name)) for each in dataclasses.fields(gic) if each.init}
    other = Gicv2(**state)

    assert other == gic == gic.copy()
    assert signalled(other) == signalled(gic) == [1]


def test_a_copy_goes_its_own_way() -> None:
    gic = controller()
    send(gic, 0, 3, 0b10)
    before = copy.deepcopy(gic)
    other = gic.copy()

    assert read(other, GICC_IAR, 1) == 3
    write(other, GICC_EOIR, 3, 1)
    other.write_distributor(GICD_ITARGETSR + SPI, 1, 2, 0)
    set_priority(other, TIMER, HIGH)
    other.set_level(SPI, True)

    assert gic == before
    assert (signalled(gic), signalled(other)) == ([1], [1])
