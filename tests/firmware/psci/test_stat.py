"""STAT_RESIDENCY and STAT_COUNT: how long and how often a CPU slept, by the power_state it asked for."""

from __future__ import annotations

import pytest

from firmware.abi import Psci
from firmware.dispatch import Firmware
from firmware.hosts import host_named
from firmware.trap import MpState, MpStateValue, Reset, Woken
from tests.firmware.harness import ENTRY, JUNK, call, make, returned

STANDBY, POWERDOWN = 0x1, 0x1_0002


def sleep(firmware: Firmware, power_state: int, start_ns: int, end_ns: int) -> None:
    call(firmware, "CPU_SUSPEND", power_state, ENTRY, time_ns=start_ns)
    firmware.handle(Woken(0, end_ns))


def stats(firmware: Firmware, power_state: int, target_cpu: int = 0, *, smc64: bool = True) -> tuple[int, int]:
    replies = [call(firmware, name, target_cpu, power_state, smc64=smc64) for name in ("STAT_COUNT", "STAT_RESIDENCY")]
    count, residency_us = (dict(reply.regs)[0] for reply in replies)
    assert replies == [returned("spec", count), returned("spec", residency_us)]
    return count, residency_us


@pytest.mark.parametrize("smc64", [False, True], ids=["smc32", "smc64"])
def test_sleeps_add_up_by_power_state_in_microseconds(smc64: bool) -> None:
    firmware = make("spec")
    sleep(firmware, STANDBY, 1_000, 2_500)
    sleep(firmware, STANDBY, 10_000, 11_600)
    sleep(firmware, POWERDOWN, 20_000, 5_020_000)

    assert stats(firmware, STANDBY, smc64=smc64) == (2, 3)
    assert stats(firmware, POWERDOWN, smc64=smc64) == (1, 5000)
    assert stats(firmware, 0x2, smc64=smc64) == (0, 0)


def test_a_sleep_under_way_does_not_count_yet() -> None:
    firmware = make("spec")
    call(firmware, "CPU_ON", 1, ENTRY)
    firmware.power.enter(1)
    call(firmware, "CPU_SUSPEND", STANDBY, vcpu=1, time_ns=1_000)

    assert stats(firmware, STANDBY, 1) == (0, 0)
    firmware.handle(Woken(1, 4_000))
    assert stats(firmware, STANDBY, 1) == (1, 3)


@pytest.mark.parametrize(("target_cpu", "power_state"), [(2, STANDBY), (JUNK, STANDBY), (1, STANDBY), (0, 0xFCFE_0000)], ids=hex)
def test_invalid_input_is_0(target_cpu: int, power_state: int) -> None:
    firmware = make("spec")
    sleep(firmware, STANDBY, 0, 1_000_000)

    assert stats(firmware, power_state, target_cpu) == (0, 0)


def test_the_power_state_is_a_word() -> None:
    firmware = make("spec")
    sleep(firmware, JUNK | STANDBY, 0, 1_000)

    assert stats(firmware, JUNK | STANDBY) == stats(firmware, STANDBY) == (1, 1)


def test_a_refused_suspend_is_no_sleep() -> None:
    firmware = make("spec")
    call(firmware, "CPU_SUSPEND", POWERDOWN, 1)
    firmware.handle(Woken(0, 10**9))

    assert stats(firmware, POWERDOWN) == (0, 0)


def test_a_wake_up_without_a_time_counts_and_lasts_no_time() -> None:
    firmware = make("spec")
    sleep(firmware, STANDBY, 10**9, 0)

    assert stats(firmware, STANDBY) == (1, 0)


def test_what_user_space_ends_does_not_count() -> None:
    firmware = make("spec")
    call(firmware, "CPU_SUSPEND", STANDBY)
    firmware.handle(MpState(0, MpStateValue.RUNNABLE))
    firmware.handle(Woken(0, 10**9))

    assert stats(firmware, STANDBY) == (0, 0)


def test_statistics_travel_with_the_state_even_in_mid_sleep_and_end_at_a_reset() -> None:
    firmware, other = make("spec"), make("spec")
    sleep(firmware, STANDBY, 0, 1_000)
    call(firmware, "CPU_SUSPEND", STANDBY, time_ns=2_000)

    other.restore(firmware.state())
    assert other.state() == firmware.state()
    other.handle(Woken(0, 4_000))
    assert stats(other, STANDBY) == (2, 3)

    other.handle(Reset())
    assert stats(other, STANDBY) == (0, 0)


def test_a_guest_cannot_fill_the_hosts_memory_with_power_states() -> None:
    firmware = make(host_named("spec").evolve(extended_state_id=True, cite="a test"))
    for state_id in range(300):
        sleep(firmware, state_id, 0, 1_000)
    sleep(firmware, 0, 0, 1_000)

    assert len(firmware.state().power.statistics) == 256
    assert stats(firmware, 0) == (2, 2)
    assert stats(firmware, 299) == (0, 0)


@pytest.mark.parametrize("host", ["kvm-6.12", "qemu-7"])
@pytest.mark.parametrize("fid", [0x8400_0010, 0xC400_0010, 0x8400_0011, 0xC400_0011], ids=hex)
def test_other_hosts_keep_none(host: str, fid: int) -> None:
    firmware = make(host)
    call(firmware, "CPU_SUSPEND", 0, time_ns=1_000)
    firmware.handle(Woken(0, 5_000))

    assert call(firmware, fid) == returned(host, Psci.NOT_SUPPORTED)
    assert not firmware.state().power.statistics
