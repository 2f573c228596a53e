"""Each vCPU's PSCI state as a function of calls and events."""

from __future__ import annotations

import pytest

from firmware.abi import PowerState
from firmware.dispatch import Firmware
from firmware.power import Power
from firmware.trap import NOTHING, Access, Conduit, Enter, EntryState, Event, Init, MpState, MpStateValue, Reset, Runnable, Woken
from tests.firmware.harness import CONTEXT, ENTRY, call, entered, make, returned

ON, OFF, ON_PENDING, SUSPENDED = PowerState.ON, PowerState.OFF, PowerState.ON_PENDING, PowerState.SUSPENDED
FIRST = EntryState(ENTRY, 1, 0x3C5, False)
SECOND = EntryState(ENTRY + 4, 2, 0x3C5, True)


def test_at_power_on_the_first_vcpu_is_on_and_all_others_off() -> None:
    assert Power((0, 1, 2)).states == [ON, OFF, OFF]


@pytest.mark.parametrize(
    ("target", "level", "vcpus"),
    [
        (0x100, 0, [2]),
        (0x1FF, 0, []),
        (0x1FF, 1, [2, 3]),
        (0x0, 2, [0, 1, 2, 3]),
        (0x0, 3, [0, 1, 2, 3, 4]),
        (0x81_0000_0000, 3, [5]),
    ],
)
def test_an_affinity_instance_is_every_vcpu_that_agrees_above_the_level(target: int, level: int, vcpus: list[int]) -> None:
    firmware = make("spec", mpidrs=(0x0, 0x1, 0x100, 0x101, 0x1_0000, 0x81_0000_0000))
    firmware.handle(MpState(0, MpStateValue.STOPPED))

    for vcpu in range(6):
        firmware.handle(MpState(vcpu, MpStateValue.RUNNABLE))
        answer = -2 if not vcpus else 0 if vcpu in vcpus else 1
        assert call(firmware, "AFFINITY_INFO", target, level) == returned("spec", answer)
        firmware.handle(MpState(vcpu, MpStateValue.STOPPED))


def test_a_start_hands_out_its_entry_once() -> None:
    power = Power((0, 1))

    assert power.start(1, FIRST) == Runnable(1)
    assert power.states == [ON, ON_PENDING]
    assert power.enter(1) == FIRST
    assert power.states == [ON, ON]
    assert power.enter(1) is None


def test_an_access_hands_out_the_entry_and_leaves_the_state() -> None:
    power = Power((0, 1))
    power.start(1, FIRST)

    assert power.access(0) is None
    assert power.access(1) == FIRST
    assert power.states == [ON, ON_PENDING]
    assert power.enter(1) is None
    assert power.states == [ON, ON]


def test_a_later_start_replaces_an_entry_that_is_pending() -> None:
    power = Power((0, 1))
    power.start(1, FIRST)
    power.start(1, SECOND)

    assert power.enter(1) == SECOND


def test_a_running_vcpu_cannot_be_started() -> None:
    with pytest.raises(AssertionError):
        Power((0,)).start(0, FIRST)


def test_a_wake_up_ends_a_suspension_and_nothing_else() -> None:
    power = Power((0, 1))
    power.start(1, FIRST)

    assert power.wake(0) is None
    assert power.wake(1) is None
    assert power.states == [ON, ON_PENDING]
    power.suspend(0, SECOND)
    assert power.states == [SUSPENDED, ON_PENDING]
    assert power.wake(0) == SECOND
    assert power.wake(0) is None
    assert power.states == [ON, ON_PENDING]
    assert power.enter(1) == FIRST


def test_stopping_everything_keeps_entries_that_are_pending() -> None:
    power = Power((0, 1))
    power.start(1, FIRST)

    power.stop_all()

    assert power.states == [OFF, OFF]
    assert power.snapshot().pending == (None, FIRST)


@pytest.mark.parametrize(
    ("state", "before", "after"),
    [
        (MpStateValue.STOPPED, ON, OFF),
        (MpStateValue.SUSPENDED, ON, SUSPENDED),
        (MpStateValue.RUNNABLE, OFF, ON),
        (MpStateValue.RUNNABLE, SUSPENDED, ON),
        (MpStateValue.RUNNABLE, ON, ON),
    ],
)
def test_user_space_sets_the_state(state: MpStateValue, before: PowerState, after: PowerState) -> None:
    firmware = make("kvm-6.12")
    firmware.power.states[0] = before

    assert firmware.handle(MpState(0, state)) == NOTHING
    assert firmware.power.states == [after, OFF]


@pytest.mark.parametrize("state", MpStateValue)
def test_user_space_neither_applies_nor_drops_an_entry_that_is_pending(state: MpStateValue) -> None:
    firmware = make("kvm-6.12")
    call(firmware, "CPU_ON", 1, ENTRY, CONTEXT)

    assert firmware.handle(MpState(1, state)) == NOTHING
    assert firmware.handle(MpState(1, MpStateValue.RUNNABLE)) == NOTHING
    assert firmware.power.states == [ON, ON_PENDING]
    assert firmware.handle(Enter(1)) == entered(ENTRY, CONTEXT)


def test_entering_a_stopped_vcpu_applies_its_entry_and_does_not_start_it() -> None:
    firmware = make("kvm-6.12")
    call(firmware, "CPU_ON", 1, ENTRY, CONTEXT)
    firmware.handle(MpState(1, MpStateValue.STOPPED))

    assert firmware.handle(Enter(1)) == entered(ENTRY, CONTEXT)
    assert firmware.power.states == [ON, OFF]


def off_by_smc() -> Firmware:
    """Return a firmware whose second vCPU has gone off by SMC, which leaves its PC to be moved."""
    firmware = make("kvm-6.12")
    call(firmware, "CPU_ON", 1, ENTRY)
    firmware.handle(Enter(1))
    call(firmware, "CPU_OFF", vcpu=1, conduit=Conduit.SMC)
    return firmware


@pytest.mark.parametrize(
    "event", [Access(1), Enter(1), MpState(1, MpStateValue.STOPPED), Init(1, stopped=True)], ids=lambda event: type(event).__name__
)
def test_a_pc_that_waits_to_be_moved_is_moved_when_user_space_has_the_vcpu(event: Event) -> None:
    firmware = off_by_smc()
    firmware.handle(event)
    call(firmware, "CPU_ON", 1, ENTRY, CONTEXT)

    assert firmware.handle(Enter(1)) == entered(ENTRY, CONTEXT)


@pytest.mark.parametrize("event", [Access(1), Enter(1)], ids=lambda event: type(event).__name__)
def test_it_is_moved_once_after_the_reset_and_not_for_another_vcpu(event: Event) -> None:
    firmware = off_by_smc()
    firmware.handle(Access(0))
    call(firmware, "CPU_ON", 1, (1 << 64) - 4, CONTEXT)
    other = make("kvm-6.12")
    other.restore(firmware.state())

    assert firmware.handle(event) == other.handle(event) == entered(0, CONTEXT)
    assert firmware.handle(Enter(1)) == NOTHING


def test_a_machine_reset_drops_entries_and_keeps_registers_and_the_first_run() -> None:
    firmware = make("kvm-6.12")
    firmware.set_one_reg(0x6030_0000_0014_0000, 0x2)
    firmware.handle(Enter(0))
    call(firmware, "CPU_ON", 1, ENTRY)
    firmware.handle(MpState(0, MpStateValue.STOPPED))

    assert firmware.handle(Reset()) == NOTHING
    assert firmware.power.states == [ON, OFF]
    assert firmware.handle(Enter(1)) == NOTHING
    assert firmware.get_one_reg(0x6030_0000_0014_0000) == 0x2
    assert firmware.has_run


@pytest.mark.parametrize("event", [Access(0), Woken(0), MpState(0, MpStateValue.STOPPED), Reset()], ids=lambda event: type(event).__name__)
def test_only_entering_counts_as_having_run(event: Event) -> None:
    firmware = make("kvm-6.12")
    call(firmware, "PSCI_VERSION")
    firmware.handle(event)

    assert not firmware.state().has_run
    firmware.handle(Enter(1))
    assert firmware.state().has_run


def test_a_snapshot_is_a_copy() -> None:
    power = Power((0, 1))
    before = power.snapshot()
    power.start(1, FIRST)
    other = Power((0, 1))

    other.restore(power.snapshot())

    assert other.snapshot() == power.snapshot() != before
    assert other.enter(1) == FIRST
    assert power.snapshot().pending == (None, FIRST)
    power.restore(before)
    assert power.states == [ON, OFF]
    assert power.enter(1) is None
