"""PSCI 0.1: a platform's own IDs, answered to a 0.1 guest alone, except on QEMU."""

from __future__ import annotations

import pytest

from firmware.abi import PowerState, Psci, Version
from firmware.host import FunctionIds
from firmware.hosts import host_named
from firmware.trap import Enter, Reply, Resume, Runnable
from tests.firmware.harness import CONTEXT, ENTRY, HOST_VERSIONS, JUNK, V0_1, V0_2, call, entered, make, returned

CPU_SUSPEND, CPU_OFF, CPU_ON, MIGRATE = 0x95C1_BA5E, 0x95C1_BA5F, 0x95C1_BA60, 0x95C1_BA61


@pytest.mark.parametrize("host", ["spec", "kvm-6.12"])
@pytest.mark.parametrize("fid", [0x8400_0000 + number for number in range(0x20)] + [0xC400_0001, 0xC400_0003, 0xC400_0004], ids=hex)
def test_a_0_1_guest_has_none_of_the_later_ids(host: str, fid: int) -> None:
    firmware = make(host, psci=V0_1, capabilities=frozenset({"system-suspend"}))

    assert call(firmware, fid, 1, ENTRY) == returned(host, Psci.NOT_SUPPORTED)
    assert firmware.power.states == [PowerState.ON, PowerState.OFF]


@pytest.mark.parametrize(("host", "version"), [pair for pair in HOST_VERSIONS if pair[1] >= V0_2 and pair[0] != "qemu-7"], ids=str)
@pytest.mark.parametrize("fid", [CPU_SUSPEND, CPU_OFF, CPU_ON, MIGRATE], ids=hex)
def test_a_later_guest_has_none_of_the_0_1_ids(host: str, version: Version, fid: int) -> None:
    firmware = make(host, psci=version)

    assert call(firmware, fid, 1, ENTRY) == returned(host, Psci.NOT_SUPPORTED)
    assert firmware.power.states == [PowerState.ON, PowerState.OFF]


@pytest.mark.parametrize("host", ["spec", "kvm-6.12", "qemu-7"])
def test_cpu_on_has_the_callers_width(host: str) -> None:
    firmware = make(host, psci=None if host == "qemu-7" else V0_1)

    assert call(firmware, CPU_ON, JUNK | 1, ENTRY) == returned(host, Psci.INVALID_PARAMETERS)
    assert call(firmware, CPU_ON, 1, ENTRY, CONTEXT) == returned(host, 0, effects=(Runnable(1),))
    assert firmware.handle(Enter(1)) == entered(ENTRY, CONTEXT)


def test_kvm_narrows_nothing_under_the_0_1_ids() -> None:
    firmware = make("kvm-6.12", psci=V0_1)

    call(firmware, CPU_ON, 1, JUNK | ENTRY, JUNK | 7)

    assert firmware.handle(Enter(1)) == entered(JUNK | ENTRY, JUNK | 7)


@pytest.mark.parametrize("host", ["spec", "kvm-6.12"])
def test_already_on_and_on_pending_are_invalid_parameters(host: str) -> None:
    firmware = make(host, psci=V0_1)
    call(firmware, CPU_ON, 1, ENTRY)

    assert call(firmware, CPU_ON, 1, ENTRY) == returned(host, Psci.INVALID_PARAMETERS)
    firmware.handle(Enter(1))
    assert call(firmware, CPU_ON, 1, ENTRY) == returned(host, Psci.INVALID_PARAMETERS)


@pytest.mark.parametrize(
    ("host", "reply"),
    [
        ("spec", Reply(resume=Resume.NEVER)),
        ("kvm-6.12", Reply(((0, 0), (1, 0), (2, 0), (3, 0)), Resume.NEVER)),
        ("qemu-7", Reply(resume=Resume.NEVER)),
    ],
    ids=["spec", "kvm-6.12", "qemu-7"],
)
def test_cpu_off_stops_the_caller(host: str, reply: Reply) -> None:
    firmware = make(host, psci=None if host == "qemu-7" else V0_1)

    assert call(firmware, CPU_OFF, 0x1_0000) == reply
    assert firmware.power.states[0] is PowerState.OFF


@pytest.mark.parametrize(
    ("host", "reply"),
    [
        ("spec", returned("spec", 0, resume=Resume.WAIT)),
        ("kvm-6.12", returned("kvm-6.12", Psci.NOT_SUPPORTED)),
        ("qemu-7", returned("qemu-7", 0, resume=Resume.WAIT)),
    ],
    ids=["spec", "kvm-6.12", "qemu-7"],
)
def test_kvm_has_no_cpu_suspend_under_0_1(host: str, reply: Reply) -> None:
    assert call(make(host, psci=None if host == "qemu-7" else V0_1), CPU_SUSPEND, 0) == reply


@pytest.mark.parametrize("host", ["spec", "kvm-6.12", "qemu-7"])
def test_migrate_is_not_supported_without_a_trusted_os(host: str) -> None:
    assert call(make(host, psci=None if host == "qemu-7" else V0_1), MIGRATE, 1) == returned(host, Psci.NOT_SUPPORTED)


def test_a_platform_chooses_its_ids_and_the_sve_hint_takes_none_of_them() -> None:
    chosen = FunctionIds(cpu_suspend=0x95C1_0002, cpu_off=0x3, cpu_on=0x95C0_0002, migrate=0x4)
    host = host_named("spec").evolve(ids_0_1=chosen, cite="a test")

    assert call(make(host, psci=V0_1), 0x95C1_0002, 0) == returned("spec", 0, resume=Resume.WAIT)
    assert call(make(host, psci=V0_1), 0x95C0_0002, 1, ENTRY) == returned("spec", 0, effects=(Runnable(1),))
    assert call(make(host, psci=V0_1), 0x3) == Reply(resume=Resume.NEVER)
    assert call(make(host, psci=V0_1), 0x1_0003) == returned("spec", Psci.NOT_SUPPORTED)  # a yielding call has no hint
    assert call(make(host, psci=V0_1), CPU_ON, 1, ENTRY) == returned("spec", Psci.NOT_SUPPORTED)
