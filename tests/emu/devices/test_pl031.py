from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emu.devices.pl031 import CR, DR, ICR, IMSC, LR, MIS, MR, RIS, Pl031

SECOND: int = 1_000_000_000
NOON: int = 1_516_536_000
WORDS = st.integers(0, 0xFFFF_FFFF)


def armed(seconds: int, now_ns: int = 0) -> Pl031:
    """Return a clock whose unmasked alarm comes so many seconds after noon."""
    rtc = Pl031(offset=NOON)
    rtc.write(MR, 4, NOON + seconds, now_ns)
    rtc.write(IMSC, 4, 1, now_ns)
    return rtc


def test_the_clock_counts_whole_seconds_of_virtual_time_from_its_offset() -> None:
    rtc = Pl031(offset=NOON)

    assert [rtc.read(DR, 4, now) for now in (0, SECOND - 1, SECOND, 90 * SECOND)] == [NOON, NOON, NOON + 1, NOON + 90]


def test_the_clock_counts_from_the_load_register_once_that_is_written() -> None:
    rtc = Pl031(offset=NOON)
    rtc.write(LR, 4, 1000, 5 * SECOND + 7)

    assert rtc.read(LR, 4, 9 * SECOND) == 1000
    assert [rtc.read(DR, 4, now) for now in (5 * SECOND + 7, 6 * SECOND)] == [1000, 1001]


def test_the_clock_wraps_around() -> None:
    assert Pl031(offset=0xFFFF_FFFF).read(DR, 4, SECOND) == 0


def test_a_new_clock_has_no_alarm() -> None:
    rtc = Pl031()
    rtc.write(IMSC, 4, 1, 0)
    rtc.look(1 << 62)

    assert (rtc.irq, rtc.deadline_ns) == (False, None)


def test_the_alarm_comes_with_its_second_and_stays_until_it_is_cleared() -> None:
    rtc = armed(3, now_ns=SECOND + 5)

    assert (rtc.irq, rtc.deadline_ns) == (False, 3 * SECOND)
    rtc.look(3 * SECOND - 1)
    assert not rtc.irq
    rtc.look(3 * SECOND)
    assert (rtc.irq, rtc.deadline_ns) == (True, None)
    assert (rtc.read(RIS, 4, 4 * SECOND), rtc.read(MIS, 4, 4 * SECOND)) == (1, 1)
    rtc.write(ICR, 4, 1, 4 * SECOND)
    assert (rtc.irq, rtc.read(RIS, 4, 4 * SECOND)) == (False, 0)
    rtc.look(1 << 62)
    assert not rtc.irq


def test_a_masked_alarm_comes_without_an_interrupt_and_is_no_deadline() -> None:
    rtc = armed(3)
    rtc.write(IMSC, 4, 0, 0)

    assert rtc.deadline_ns is None
    rtc.look(3 * SECOND)
    assert not rtc.irq
    assert (rtc.read(RIS, 4, 3 * SECOND), rtc.read(MIS, 4, 3 * SECOND)) == (1, 0)
    rtc.write(IMSC, 4, 1, 3 * SECOND)
    assert rtc.irq


def test_an_alarm_for_this_very_second_comes_at_once() -> None:
    assert armed(2, now_ns=2 * SECOND + 17).irq


def test_an_alarm_in_the_past_comes_when_the_clock_has_wrapped_around() -> None:
    assert armed(-1).deadline_ns == 0xFFFF_FFFF * SECOND


def test_setting_the_clock_moves_the_alarm() -> None:
    rtc = armed(10)
    rtc.write(LR, 4, NOON + 8, 0)

    assert rtc.deadline_ns == 2 * SECOND


def test_an_alarm_whose_time_has_come_is_not_lost_when_the_next_is_set() -> None:
    rtc = armed(1)
    rtc.write(MR, 4, NOON + 9, 5 * SECOND)

    assert (rtc.irq, rtc.alarm_ns) == (True, 9 * SECOND)


def test_it_is_always_enabled() -> None:
    rtc = Pl031()
    rtc.write(CR, 4, 0, 0)

    assert rtc.read(CR, 4, 0) == 1


def test_the_identification_registers_say_pl031() -> None:
    assert bytes(Pl031().read(offset, 4, 0) for offset in range(0xFE0, 0x1000, 4)) == bytes.fromhex("311014000df005b1")


@pytest.mark.parametrize(("size", "value"), [(1, 0x78), (2, 0x5678), (4, 0x1234_5678)])
def test_narrow_reads_give_the_lanes_asked_for(size: int, value: int) -> None:
    rtc = Pl031(offset=0x1234_5678)

    assert (rtc.read(DR, size, 0), rtc.read(DR + 2, 2, 0)) == (value, 0x1234)


@given(st.lists(st.tuples(st.integers(0, 0xFFF), st.sampled_from((1, 2, 4)), WORDS, st.integers(0, 1 << 62)), max_size=20))
def test_no_access_fails_and_a_copy_of_the_fields_is_a_copy_of_the_clock(accesses: list[tuple[int, int, int, int]]) -> None:
    rtc = Pl031(offset=NOON)
    for offset, size, value, now in sorted(accesses, key=lambda access: access[3]):
        rtc.write(offset, size, value, now)
        same = copy.copy(rtc)

        assert rtc.read(offset, size, now) == same.read(offset, size, now)
        assert 0 <= rtc.read(offset, size, now) < 1 << 8 * size
        assert rtc.alarm_ns is None or rtc.alarm_ns > now
