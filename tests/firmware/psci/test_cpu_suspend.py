"""CPU_SUSPEND: standby and powerdown on `spec`, WFI on KVM and QEMU."""

from __future__ import annotations

import pytest

from firmware.abi import PowerState, Psci, Version
from firmware.hosts import host_named
from firmware.trap import NOTHING, Reply, Resume, Woken
from tests.firmware.harness import CONTEXT, ENTRY, HOSTS, JUNK, RAM, V0_1, V0_2, V1_0, V1_3, call, entered, make, returned

POWERDOWN = 0x1_0000
EXTENDED_POWERDOWN = 0x4000_0000
EXTENDED = host_named("spec").evolve(extended_state_id=True, cite="a test")
WAITS = Reply(resume=Resume.WAIT)


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("smc64", [False, True], ids=["smc32", "smc64"])
def test_standby_writes_success_waits_and_goes_on_after_the_call(host: str, smc64: bool) -> None:
    firmware = make(host)

    assert call(firmware, "CPU_SUSPEND", 0, 0x1, CONTEXT, smc64=smc64) == returned(host, 0, resume=Resume.WAIT)
    assert firmware.power.states == [PowerState.SUSPENDED, PowerState.OFF]
    assert firmware.handle(Woken(0)) == NOTHING
    assert firmware.power.states == [PowerState.ON, PowerState.OFF]


@pytest.mark.parametrize("host", HOSTS)
def test_a_vcpu_that_sleeps_is_on_to_others(host: str) -> None:
    firmware = make(host)
    call(firmware, "CPU_ON", 1, ENTRY)
    firmware.power.enter(1)
    call(firmware, "CPU_SUSPEND", 0)

    assert call(firmware, "AFFINITY_INFO", 0, vcpu=1) == returned(host, 0)
    assert call(firmware, "CPU_ON", 0, ENTRY, vcpu=1) == returned(host, Psci.ALREADY_ON)


@pytest.mark.parametrize("power_state", [0xFFFF_FFFF, POWERDOWN, JUNK | EXTENDED_POWERDOWN], ids=hex)
@pytest.mark.parametrize("entry", [0x1, ENTRY, 0xFFFF_FFFF_FFFF_FFFF], ids=hex)
def test_kvm_looks_at_no_argument(power_state: int, entry: int) -> None:
    firmware = make("kvm-6.12")

    assert call(firmware, "CPU_SUSPEND", power_state, entry, CONTEXT) == returned("kvm-6.12", 0, resume=Resume.WAIT)
    assert firmware.handle(Woken(0)) == NOTHING


@pytest.mark.parametrize("bit", range(17, 32))
def test_qemu_refuses_any_power_state_with_a_level_or_a_reserved_bit(bit: int) -> None:
    firmware = make("qemu-7")

    assert call(firmware, "CPU_SUSPEND", 1 << bit) == returned("qemu-7", Psci.INVALID_PARAMETERS)
    assert firmware.power.states[0] is PowerState.ON


@pytest.mark.parametrize("power_state", [POWERDOWN, 0xFFFF, 0x1_FFFF, 1 << 32], ids=hex)
def test_qemu_waits_whatever_state_id_and_type_and_upper_half_are(power_state: int) -> None:
    assert call(make("qemu-7"), "CPU_SUSPEND", power_state, 0x1) == returned("qemu-7", 0, resume=Resume.WAIT)


@pytest.mark.parametrize("smc64", [False, True], ids=["smc32", "smc64"])
@pytest.mark.parametrize("big_endian", [False, True])
def test_powerdown_writes_nothing_and_resumes_at_the_entry_point(smc64: bool, big_endian: bool) -> None:
    firmware = make("spec")
    context = CONTEXT if smc64 else CONTEXT & 0xFFFF_FFFF

    assert call(firmware, "CPU_SUSPEND", POWERDOWN, ENTRY, CONTEXT, smc64=smc64, big_endian=big_endian) == WAITS
    assert firmware.handle(Woken(0)) == entered(ENTRY, context, big_endian=big_endian)
    assert firmware.handle(Woken(0)) == NOTHING
    assert firmware.power.states[0] is PowerState.ON


@pytest.mark.parametrize("bit", [*range(17, 24), *range(26, 32)])
def test_every_bit_that_should_be_zero_is_refused_before_the_entry_point(bit: int) -> None:
    firmware = make("spec")

    assert call(firmware, "CPU_SUSPEND", POWERDOWN | 1 << bit, 0x1) == returned("spec", Psci.INVALID_PARAMETERS)
    assert firmware.power.states[0] is PowerState.ON


@pytest.mark.parametrize("bit", [28, 29, 31])
def test_the_extended_format_has_other_bits_that_should_be_zero(bit: int) -> None:
    assert call(make(EXTENDED), "CPU_SUSPEND", EXTENDED_POWERDOWN | 1 << bit, 0x1) == returned("spec", Psci.INVALID_PARAMETERS)


@pytest.mark.parametrize("bit", [*range(28)])
def test_the_extended_format_takes_bits_27_to_0_as_state_id(bit: int) -> None:
    firmware = make(EXTENDED)

    assert call(firmware, "CPU_SUSPEND", EXTENDED_POWERDOWN | 1 << bit, ENTRY, CONTEXT) == WAITS
    assert firmware.handle(Woken(0)) == entered(ENTRY, CONTEXT)
    assert call(firmware, "CPU_SUSPEND", 1 << bit, 0x1) == returned("spec", 0, resume=Resume.WAIT)


@pytest.mark.parametrize("bit", [*range(16), 24, 25, 32, 63])
def test_the_original_format_takes_state_id_power_level_and_any_upper_half(bit: int) -> None:
    firmware = make("spec")

    assert call(firmware, "CPU_SUSPEND", POWERDOWN | 1 << bit, ENTRY, CONTEXT) == WAITS
    assert firmware.handle(Woken(0)) == entered(ENTRY, CONTEXT)
    assert call(firmware, "CPU_SUSPEND", 1 << bit, 0x1) == returned("spec", 0, resume=Resume.WAIT)


@pytest.mark.parametrize("entry", [0x0, ENTRY + 1, ENTRY + 2, RAM[0] - 4, RAM[0] + RAM[1], JUNK | ENTRY], ids=hex)
@pytest.mark.parametrize(
    ("version", "code"),
    [(V0_1, Psci.INVALID_PARAMETERS), (V0_2, Psci.INVALID_PARAMETERS), (V1_0, Psci.INVALID_ADDRESS), (V1_3, Psci.INVALID_ADDRESS)],
    ids=str,
)
def test_powerdown_refuses_a_bad_entry_point(version: Version, code: Psci, entry: int) -> None:
    firmware = make("spec", psci=version)

    assert call(firmware, "CPU_SUSPEND", POWERDOWN, entry) == returned("spec", code)
    assert firmware.power.states[0] is PowerState.ON


@pytest.mark.parametrize(
    ("host", "flags"), [("spec", 1), ("kvm-6.12", 0), ("qemu-7", 0), ("extended", 3)], ids=["spec", "kvm-6.12", "qemu-7", "extended"]
)
@pytest.mark.parametrize("fid", [0x8400_0001, 0xC400_0001], ids=hex)
def test_its_feature_flags_are_os_initiated_mode_and_the_power_states_format(host: str, flags: int, fid: int) -> None:
    firmware = make(EXTENDED if host == "extended" else host)

    assert call(firmware, "PSCI_FEATURES", fid) == returned(firmware, flags)
