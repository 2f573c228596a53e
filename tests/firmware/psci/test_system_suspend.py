"""SYSTEM_SUSPEND: leaves to the VMM with the registers as they are."""

from __future__ import annotations

import pytest

from firmware.abi import PowerState, Psci, Version
from firmware.trap import Enter, MpState, MpStateValue
from tests.firmware.harness import CONTEXT, ENTRY, JUNK, RAM, SUSPEND, V0_2, V1_0, V1_1, V1_3, call, left, make, returned

CAPABLE = frozenset({"system-suspend"})
FIDS = (0x8400_000E, 0xC400_000E)


@pytest.mark.parametrize("fid", FIDS, ids=hex)
@pytest.mark.parametrize("version", [V1_0, V1_3], ids=str)
def test_spec_writes_nothing_and_stops_nobody(fid: int, version: Version) -> None:
    firmware = make("spec", psci=version)

    assert call(firmware, fid, ENTRY, CONTEXT) == left("spec", SUSPEND)
    assert firmware.power.states == [PowerState.ON, PowerState.OFF]


@pytest.mark.parametrize("other", ["pending", "running", "sleeping"])
def test_spec_denies_it_while_another_cpu_is_not_off_before_it_looks_at_the_entry_point(other: str) -> None:
    firmware = make("spec")
    call(firmware, "CPU_ON", 1, ENTRY)
    if other != "pending":
        firmware.handle(Enter(1))
    if other == "sleeping":
        call(firmware, "CPU_SUSPEND", 0, vcpu=1)

    assert call(firmware, FIDS[1], 0x1) == returned("spec", Psci.DENIED)


@pytest.mark.parametrize("entry", [0x0, ENTRY + 2, RAM[0] - 4, RAM[0] + RAM[1]], ids=hex)
def test_spec_refuses_a_bad_entry_point(entry: int) -> None:
    assert call(make("spec"), FIDS[1], entry) == returned("spec", Psci.INVALID_ADDRESS)


def test_spec_looks_at_the_low_half_of_an_smc32_entry_point() -> None:
    assert call(make("spec"), FIDS[0], JUNK | ENTRY) == left("spec", SUSPEND)
    assert call(make("spec"), FIDS[1], JUNK | ENTRY) == returned("spec", Psci.INVALID_ADDRESS)


def test_another_vcpu_than_0_may_be_the_last_one() -> None:
    firmware = make("spec")
    call(firmware, "CPU_ON", 1, ENTRY)
    firmware.handle(Enter(1))

    assert call(firmware, FIDS[1], ENTRY, vcpu=1) == returned("spec", Psci.DENIED)
    firmware.handle(MpState(0, MpStateValue.STOPPED))
    assert call(firmware, FIDS[1], ENTRY, vcpu=1) == left("spec", SUSPEND)


@pytest.mark.parametrize("entry", [0x0, ENTRY, 0x1], ids=hex)
def test_kvm_checks_nothing_and_keeps_every_register(entry: int) -> None:
    firmware = make("kvm-6.12", capabilities=CAPABLE)
    call(firmware, "CPU_ON", 1, ENTRY)

    assert call(firmware, FIDS[1], entry, JUNK) == left("kvm-6.12", SUSPEND, regs=())
    assert firmware.power.states == [PowerState.ON, PowerState.ON_PENDING]


def test_kvm_narrows_the_registers_of_an_smc32_call() -> None:
    firmware = make("kvm-6.12", capabilities=CAPABLE)

    narrowed = ((1, ENTRY), (2, 0x77), (3, 0x5))
    assert call(firmware, FIDS[0], JUNK | ENTRY, JUNK | 0x77, JUNK | 0x5) == left("kvm-6.12", SUSPEND, regs=narrowed)


@pytest.mark.parametrize("fid", FIDS, ids=hex)
@pytest.mark.parametrize(
    ("host", "version", "capabilities"),
    [("spec", V0_2, CAPABLE), ("kvm-6.12", V0_2, CAPABLE), ("kvm-6.12", V1_1, frozenset()), ("qemu-7", V1_1, CAPABLE)],
    ids=["spec 0.2", "kvm-6.12 0.2", "kvm-6.12 without the capability", "qemu-7"],
)
def test_it_is_absent_before_1_0_and_without_kvms_capability(fid: int, host: str, version: Version, capabilities: frozenset[str]) -> None:
    firmware = make(host, psci=version, capabilities=capabilities)

    assert call(firmware, fid, ENTRY) == returned(host, Psci.NOT_SUPPORTED)
