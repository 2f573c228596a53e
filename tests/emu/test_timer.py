"""One comparator of the generic timer, as plain state."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emu.devices.timer import ENABLE, IMASK, ISTATUS, Timer, VcpuTimers

words = st.integers(0, (1 << 64) - 1)


def test_a_new_timer_is_off() -> None:
    assert Timer() == Timer(ctl=0, cval=0)
    assert Timer().read_ctl(100) == 0
    assert Timer().deadline_ticks is None


@pytest.mark.parametrize(
    ("ctl", "now", "read"),
    [
        (0, 99, 0),
        (0, 100, 0),
        (ENABLE, 99, ENABLE),
        (ENABLE, 100, ENABLE | ISTATUS),
        (ENABLE, 101, ENABLE | ISTATUS),
        (ENABLE | IMASK, 100, ENABLE | IMASK | ISTATUS),
        (IMASK, 100, IMASK),
    ],
)
def test_istatus_says_whether_an_enabled_timers_condition_is_met(ctl: int, now: int, read: int) -> None:
    assert Timer(ctl, 100).read_ctl(now) == read


@pytest.mark.parametrize(("ctl", "deadline"), [(0, None), (IMASK, None), (ENABLE, 100), (ENABLE | IMASK, None)])
def test_only_an_enabled_and_unmasked_timer_has_a_deadline(ctl: int, deadline: int | None) -> None:
    assert Timer(ctl, 100).deadline_ticks == deadline


@given(value=words)
def test_ctl_keeps_enable_and_imask_alone(value: int) -> None:
    timer = Timer()

    timer.write_ctl(value)

    assert timer.ctl == value & 3


@given(value=words, now=st.integers(0, 1 << 60))
def test_tval_reads_back_its_low_half_at_the_same_instant(value: int, now: int) -> None:
    timer = Timer()

    timer.write_tval(value, now)

    assert timer.read_tval(now) == value & 0xFFFF_FFFF
    assert 0 <= timer.cval < 1 << 64


@pytest.mark.parametrize(("value", "cval"), [(0, 1000), (1, 1001), (0x7FFF_FFFF, 1000 + 0x7FFF_FFFF), (0xFFFF_FFFF, 999)])
def test_tval_is_a_signed_word_from_now(value: int, cval: int) -> None:
    timer = Timer()

    timer.write_tval(value, 1000)

    assert timer.cval == cval


def test_a_negative_tval_before_time_began_wraps_and_is_never_met() -> None:
    timer = Timer(ENABLE)

    timer.write_tval(0xFFFF_FFFF, 0)

    assert timer.cval == (1 << 64) - 1
    assert timer.read_ctl(0) == ENABLE


def test_tval_runs_below_zero() -> None:
    assert Timer(ENABLE, 100).read_tval(101) == 0xFFFF_FFFF


def test_a_vcpus_deadline_is_the_earlier_one() -> None:
    assert VcpuTimers().deadline_after(0) is None
    assert VcpuTimers(Timer(ENABLE, 7), Timer(ENABLE, 5)).deadline_after(4) == 5
    assert VcpuTimers(Timer(ENABLE, 7), Timer(ENABLE, 5)).deadline_after(5) == 7
    assert VcpuTimers(Timer(ENABLE, 7), Timer(ENABLE | IMASK, 5)).deadline_after(0) == 7
    assert VcpuTimers(Timer(ENABLE, 7), Timer()).deadline_after(7) is None
