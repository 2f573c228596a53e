"""SET_SUSPEND_MODE, and what OS-initiated mode makes of CPU_SUSPEND."""

from __future__ import annotations

import pytest

from firmware.abi import Psci
from firmware.dispatch import Firmware
from firmware.hosts import host_named
from firmware.trap import Reply, Reset, Resume
from tests.firmware.harness import ENTRY, JUNK, call, make, returned

PLATFORM_COORDINATED, OS_INITIATED = 0, 1
CLUSTERS = (0x0, 0x1, 0x100, 0x101)
WAITS = returned("spec", 0, resume=Resume.WAIT)


def running(*vcpus: int, mpidrs: tuple[int, ...] = CLUSTERS) -> Firmware:
    """Return a `spec` on which these vCPUs run beside vCPU 0."""
    firmware = make("spec", mpidrs=mpidrs)
    for vcpu in vcpus:
        call(firmware, "CPU_ON", mpidrs[vcpu], ENTRY)
        firmware.power.enter(vcpu)
    return firmware


def set_mode(firmware: Firmware, mode: int) -> Reply:
    return call(firmware, "SET_SUSPEND_MODE", mode)


@pytest.mark.parametrize("mode", [2, 0xFFFF_FFFF])
def test_there_are_two_modes(mode: int) -> None:
    assert set_mode(running(), mode) == returned("spec", Psci.INVALID_PARAMETERS)


def test_the_mode_is_a_word() -> None:
    firmware = running()

    assert set_mode(firmware, JUNK | OS_INITIATED) == returned("spec", Psci.SUCCESS)
    assert firmware.state().power.os_initiated


@pytest.mark.parametrize("mode", [PLATFORM_COORDINATED, OS_INITIATED])
def test_the_mode_in_force_can_be_set_whatever_others_do(mode: int) -> None:
    firmware = running()
    set_mode(firmware, mode)
    call(firmware, "CPU_ON", 1, ENTRY)

    assert set_mode(firmware, mode) == returned("spec", Psci.SUCCESS)


@pytest.mark.parametrize(
    ("others", "code"), [((), Psci.SUCCESS), ((1,), Psci.DENIED), ((1, 2), Psci.DENIED), ((1, 2, 3), Psci.SUCCESS)], ids=str
)
def test_os_initiated_needs_all_others_on_or_all_off(others: tuple[int, ...], code: Psci) -> None:
    firmware = running(*others)

    assert set_mode(firmware, OS_INITIATED) == returned("spec", code)
    assert firmware.state().power.os_initiated is (code is Psci.SUCCESS)


@pytest.mark.parametrize("others", [(), (1,), (1, 2, 3)], ids=str)
def test_going_back_needs_all_others_off(others: tuple[int, ...]) -> None:
    firmware = running()
    set_mode(firmware, OS_INITIATED)
    for vcpu in others:
        call(firmware, "CPU_ON", CLUSTERS[vcpu], ENTRY)

    assert set_mode(firmware, PLATFORM_COORDINATED) == returned("spec", Psci.DENIED if others else Psci.SUCCESS)


def test_the_mode_travels_with_the_state_and_ends_at_a_reset() -> None:
    firmware, other = running(), running()
    set_mode(firmware, OS_INITIATED)
    other.restore(firmware.state())
    assert other.state().power.os_initiated

    other.handle(Reset())

    assert not other.state().power.os_initiated


@pytest.mark.parametrize(
    ("others", "level", "denied"),
    [((1, 2, 3), 0, False), ((1, 2, 3), 1, True), ((2, 3), 1, False), ((2, 3), 2, True), ((2, 3), 3, True), ((), 3, False)],
    ids=str,
)
@pytest.mark.parametrize("powerdown", [0, 0x1_0000], ids=["standby", "powerdown"])
def test_the_last_man_alone_takes_a_level_down(others: tuple[int, ...], level: int, denied: bool, powerdown: int) -> None:
    firmware = running()
    set_mode(firmware, OS_INITIATED)
    for vcpu in others:
        call(firmware, "CPU_ON", CLUSTERS[vcpu], ENTRY)
    before = firmware.state()

    reply = call(firmware, "CPU_SUSPEND", level << 24 | powerdown, ENTRY)

    assert reply == (returned("spec", Psci.DENIED) if denied else Reply(resume=Resume.WAIT) if powerdown else WAITS)
    assert (firmware.state() == before) is denied


def test_a_cpu_that_sleeps_does_not_run() -> None:
    firmware = running(1, 2, 3)
    set_mode(firmware, OS_INITIATED)
    for vcpu in (1, 2, 3):
        call(firmware, "CPU_SUSPEND", 0, vcpu=vcpu)

    assert call(firmware, "CPU_SUSPEND", 0x300_0000) == WAITS


@pytest.mark.parametrize(("state_id", "denied"), [(0x0, False), (0x3, False), (0x33, True), (0x333_3333, True)], ids=hex)
def test_the_extended_formats_level_is_the_highest_digit_of_the_state_id(state_id: int, denied: bool) -> None:
    firmware = make(host_named("spec").evolve(extended_state_id=True, cite="a test"))
    set_mode(firmware, OS_INITIATED)
    call(firmware, "CPU_ON", 1, ENTRY)

    assert call(firmware, "CPU_SUSPEND", state_id) == (returned("spec", Psci.DENIED) if denied else WAITS)


def test_the_entry_point_is_refused_before_the_level() -> None:
    firmware = running()
    set_mode(firmware, OS_INITIATED)
    call(firmware, "CPU_ON", 1, ENTRY)

    assert call(firmware, "CPU_SUSPEND", 0x101_0000, 1) == returned("spec", Psci.INVALID_ADDRESS)


def test_platform_coordinated_mode_denies_nothing() -> None:
    assert call(running(1, 2, 3), "CPU_SUSPEND", 0x300_0000) == WAITS


@pytest.mark.parametrize("host", ["kvm-6.12", "qemu-7"])
def test_other_hosts_have_one_mode(host: str) -> None:
    assert call(make(host), 0x8400_000F) == returned(host, Psci.NOT_SUPPORTED)
