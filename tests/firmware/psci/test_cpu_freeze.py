"""CPU_FREEZE: as CPU_OFF, without moving interrupts away; a frozen CPU is OFF (choice)."""

from __future__ import annotations

import pytest

from firmware.abi import PowerState, Psci, Version
from firmware.host import TrustedOs
from firmware.hosts import host_named
from firmware.trap import NOTHING, Reply, Resume, Runnable, Woken
from tests.firmware.harness import ENTRY, V0_2, V1_0, V1_3, call, make, returned


@pytest.mark.parametrize("version", [V1_0, V1_3], ids=str)
def test_a_frozen_cpu_does_not_return_and_nothing_wakes_it(version: Version) -> None:
    firmware = make("spec", psci=version)

    assert call(firmware, "CPU_FREEZE") == Reply(resume=Resume.NEVER)
    assert firmware.handle(Woken(0, 10**9)) == NOTHING
    assert firmware.power.states[0] is PowerState.OFF


def test_a_frozen_cpu_is_off_to_others_and_cpu_on_starts_it() -> None:
    firmware = make("spec")
    call(firmware, "CPU_ON", 1, ENTRY)
    firmware.power.enter(1)
    call(firmware, "CPU_FREEZE")

    assert call(firmware, "AFFINITY_INFO", 0, vcpu=1) == returned("spec", 1)
    assert call(firmware, "CPU_ON", 0, ENTRY, vcpu=1) == returned("spec", Psci.SUCCESS, effects=(Runnable(0),))


def test_the_cpu_of_the_trusted_os_is_not_frozen() -> None:
    firmware = make(host_named("spec").evolve(trusted_os=TrustedOs(0, 0), cite="a test"))

    assert call(firmware, "CPU_FREEZE") == returned("spec", Psci.DENIED)
    assert firmware.power.states[0] is PowerState.ON


@pytest.mark.parametrize(("host", "version"), [("spec", V0_2), ("kvm-6.12", None), ("qemu-7", None)], ids=str)
def test_below_1_0_and_on_other_hosts_there_is_none(host: str, version: Version | None) -> None:
    assert call(make(host, psci=version), 0x8400_000B) == returned(host, Psci.NOT_SUPPORTED)
