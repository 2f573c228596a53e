"""CPU_ON: target, entry point and state are looked at in this order; then the target is started once."""

from __future__ import annotations

import pytest

from firmware.abi import PowerState, Psci, Version
from firmware.trap import NOTHING, Access, Enter, Runnable
from tests.firmware.harness import (
    CONTEXT,
    ENTRY,
    HOSTS,
    JUNK,
    RAM,
    V0_1,
    V0_2,
    V1_0,
    V1_1,
    V1_3,
    call,
    entered,
    make,
    returned,
)

SPARSE = (0x0, 0x1, 0x100, 0x1_0000, 0x81_0000_0000)


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("smc64", [False, True], ids=["smc32", "smc64"])
@pytest.mark.parametrize("vcpu", [1, 2, 3])
def test_the_target_is_an_mpidr_and_becomes_runnable_at_the_entry_point(host: str, smc64: bool, vcpu: int) -> None:
    firmware = make(host, mpidrs=SPARSE)
    context = CONTEXT & 0xFFFF_FFFF

    assert call(firmware, "CPU_ON", SPARSE[vcpu], ENTRY, context, smc64=smc64) == returned(host, 0, effects=(Runnable(vcpu),))
    assert firmware.power.states[vcpu] is PowerState.ON_PENDING
    assert firmware.handle(Enter(vcpu)) == entered(ENTRY, context)
    assert firmware.handle(Enter(vcpu)) == NOTHING
    assert firmware.power.states[vcpu] is PowerState.ON


@pytest.mark.parametrize("host", HOSTS)
def test_smc64_reaches_aff3(host: str) -> None:
    firmware = make(host, mpidrs=SPARSE)

    assert call(firmware, "CPU_ON", 0x81_0000_0000, ENTRY, CONTEXT) == returned(host, 0, effects=(Runnable(4),))
    assert firmware.handle(Enter(4)) == entered(ENTRY, CONTEXT)


@pytest.mark.parametrize("host", ["spec", "kvm-6.12"])
def test_smc32_arguments_are_their_low_halves(host: str) -> None:
    firmware = make(host)

    assert call(firmware, "CPU_ON", JUNK | 1, JUNK | ENTRY, JUNK | 7, smc64=False) == returned(host, 0, effects=(Runnable(1),))
    assert firmware.handle(Enter(1)) == entered(ENTRY, 7)


def test_qemu_truncates_no_argument() -> None:
    firmware = make("qemu-7")

    assert call(firmware, "CPU_ON", JUNK | 1, ENTRY, smc64=False) == returned("qemu-7", Psci.INVALID_PARAMETERS)
    assert call(firmware, "CPU_ON", 1, JUNK | ENTRY, JUNK | 7, smc64=False) == returned("qemu-7", 0, effects=(Runnable(1),))
    assert firmware.handle(Enter(1)) == entered(JUNK | ENTRY, JUNK | 7)


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("target", [2, 0x101, 0x8000_0001, 0x100_0001, 0x1_0000_0001, 0x100_0000_0001, 1 << 63 | 1], ids=hex)
def test_a_target_that_is_no_vcpu_or_has_a_reserved_bit_is_refused(host: str, target: int) -> None:
    firmware = make(host)

    assert call(firmware, "CPU_ON", target, ENTRY) == returned(host, Psci.INVALID_PARAMETERS)
    assert firmware.power.states == [PowerState.ON, PowerState.OFF]


BAD_ENTRIES = (0x0, ENTRY + 1, ENTRY + 2, ENTRY + 3, RAM[0] - 4, RAM[0] + RAM[1], JUNK | ENTRY)


@pytest.mark.parametrize("entry", BAD_ENTRIES, ids=hex)
@pytest.mark.parametrize(
    ("version", "code"),
    [(V0_1, Psci.INVALID_PARAMETERS), (V0_2, Psci.INVALID_PARAMETERS), (V1_0, Psci.INVALID_ADDRESS), (V1_3, Psci.INVALID_ADDRESS)],
    ids=str,
)
def test_spec_refuses_a_bad_entry_point(version: Version, code: Psci, entry: int) -> None:
    firmware = make("spec", psci=version)

    assert call(firmware, "CPU_ON", 1, entry) == returned("spec", code)
    assert firmware.power.states[1] is PowerState.OFF


@pytest.mark.parametrize("entry", [RAM[0], RAM[0] + RAM[1] - 4], ids=hex)
def test_the_first_and_the_last_instruction_of_ram_are_good_entry_points(entry: int) -> None:
    assert call(make("spec"), "CPU_ON", 1, entry) == returned("spec", 0, effects=(Runnable(1),))


@pytest.mark.parametrize("entry", BAD_ENTRIES, ids=hex)
def test_kvm_takes_any_entry_point(entry: int) -> None:
    firmware = make("kvm-6.12")

    assert call(firmware, "CPU_ON", 1, entry) == returned("kvm-6.12", 0, effects=(Runnable(1),))
    assert firmware.handle(Enter(1)) == entered(entry, 0)


@pytest.mark.parametrize("entry", BAD_ENTRIES, ids=hex)
def test_qemu_refuses_a_misaligned_entry_point_alone(entry: int) -> None:
    refused = returned("qemu-7", Psci.INVALID_PARAMETERS)
    started = returned("qemu-7", 0, effects=(Runnable(1),))

    assert call(make("qemu-7"), "CPU_ON", 1, entry) == (refused if entry % 4 else started)


def test_spec_looks_at_the_target_then_at_the_entry_point_then_at_the_state() -> None:
    firmware = make("spec")

    assert call(firmware, "CPU_ON", 9, 0x1) == returned("spec", Psci.INVALID_PARAMETERS)
    assert call(firmware, "CPU_ON", 0, 0x1) == returned("spec", Psci.INVALID_ADDRESS)
    assert call(firmware, "CPU_ON", 0, ENTRY) == returned("spec", Psci.ALREADY_ON)


@pytest.mark.parametrize(
    ("host", "version", "code"),
    [
        ("spec", V0_1, Psci.INVALID_PARAMETERS),
        ("spec", V0_2, Psci.ALREADY_ON),
        ("spec", V1_3, Psci.ALREADY_ON),
        ("kvm-6.12", V0_1, Psci.INVALID_PARAMETERS),
        ("kvm-6.12", V0_2, Psci.ALREADY_ON),
        ("kvm-6.12", V1_1, Psci.ALREADY_ON),
        ("qemu-7", V1_1, Psci.ALREADY_ON),
    ],
    ids=str,
)
def test_a_running_target_is_already_on_the_caller_too(host: str, version: Version, code: Psci) -> None:
    firmware = make(host, psci=version)
    call(firmware, "CPU_ON", 1, ENTRY)
    firmware.handle(Enter(1))

    assert call(firmware, "CPU_ON", 0, ENTRY) == returned(host, code)
    assert call(firmware, "CPU_ON", 1, ENTRY) == returned(host, code)


@pytest.mark.parametrize(
    ("host", "version", "code"),
    [
        ("spec", V0_1, Psci.INVALID_PARAMETERS),
        ("spec", V0_2, Psci.ON_PENDING),
        ("spec", V1_3, Psci.ON_PENDING),
        ("kvm-6.12", V0_1, Psci.INVALID_PARAMETERS),
        ("kvm-6.12", V0_2, Psci.ALREADY_ON),
        ("kvm-6.12", V1_1, Psci.ALREADY_ON),
    ],
    ids=str,
)
def test_a_target_that_has_not_run_yet_is_started_once(host: str, version: Version, code: Psci) -> None:
    firmware = make(host, psci=version)
    call(firmware, "CPU_ON", 1, ENTRY, 7)

    assert call(firmware, "CPU_ON", 1, ENTRY + 4, 8) == returned(host, code)
    assert firmware.handle(Enter(1)) == entered(ENTRY, 7)


@pytest.mark.parametrize("host", ["spec", "kvm-6.12", "qemu-7"])
def test_of_many_callers_exactly_one_starts_the_target(host: str) -> None:
    firmware = make(host, vcpus=4)
    for vcpu in (1, 2):
        call(firmware, "CPU_ON", vcpu, ENTRY)
        firmware.handle(Enter(vcpu))

    replies = [call(firmware, "CPU_ON", 3, ENTRY, vcpu, vcpu=vcpu) for vcpu in (2, 0, 1)]

    loser = returned(host, Psci.ON_PENDING if host == "spec" else Psci.ALREADY_ON)
    assert replies == [returned(host, 0, effects=(Runnable(3),)), loser, loser]
    assert firmware.handle(Enter(3)) == entered(ENTRY, 2)


@pytest.mark.parametrize(("host", "inherits"), [("spec", True), ("kvm-6.12", True), ("qemu-7", False)])
def test_a_started_vcpu_has_its_starters_endianness_except_on_qemu(host: str, inherits: bool) -> None:
    firmware = make(host)

    call(firmware, "CPU_ON", 1, ENTRY, 7, big_endian=True)

    assert firmware.handle(Enter(1)) == entered(ENTRY, 7, big_endian=inherits)


@pytest.mark.parametrize("host", HOSTS)
def test_user_space_sees_the_entry_before_the_target_has_run(host: str) -> None:
    firmware = make(host)
    call(firmware, "CPU_ON", 1, ENTRY, 7)

    assert firmware.handle(Access(0)) == NOTHING
    assert firmware.handle(Access(1)) == entered(ENTRY, 7)
    assert firmware.handle(Access(1)) == NOTHING
    assert firmware.power.states == [PowerState.ON, PowerState.ON_PENDING]
    assert firmware.handle(Enter(1)) == NOTHING
    assert firmware.power.states == [PowerState.ON, PowerState.ON]
