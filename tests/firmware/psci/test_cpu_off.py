"""CPU_OFF: the caller is gone, unless the Trusted OS sits on it."""

from __future__ import annotations

import pytest

from firmware.abi import PowerState, Psci
from firmware.host import TrustedOs
from firmware.hosts import host_named
from firmware.trap import Enter, Reply, Resume
from tests.firmware.harness import CONTEXT, ENTRY, HOSTS, call, entered, make, returned

GONE = {
    "spec": Reply(resume=Resume.NEVER),
    "kvm-6.12": Reply(((0, 0), (1, 0), (2, 0), (3, 0)), Resume.NEVER),
    "qemu-7": Reply(resume=Resume.NEVER),
}


@pytest.mark.parametrize("host", HOSTS)
def test_the_caller_stops_even_as_the_last_one(host: str) -> None:
    firmware = make(host)

    assert call(firmware, "CPU_OFF", 0x1_0000) == GONE[host]
    assert firmware.power.states == [PowerState.OFF, PowerState.OFF]


@pytest.mark.parametrize("host", HOSTS)
def test_a_stopped_vcpu_is_off_to_others_and_starts_again_where_it_is_told(host: str) -> None:
    firmware = make(host)
    call(firmware, "CPU_ON", 1, ENTRY, CONTEXT)
    firmware.handle(Enter(1))
    call(firmware, "CPU_OFF", vcpu=1)

    assert call(firmware, "AFFINITY_INFO", 1) == returned(host, 1)
    assert call(firmware, "CPU_ON", 1, ENTRY + 8, CONTEXT + 1).resume is Resume.NEXT
    assert firmware.handle(Enter(1)) == entered(ENTRY + 8, CONTEXT + 1)


@pytest.mark.parametrize("type_", [0, 1])
def test_the_trusted_os_pins_its_cpu_and_no_other(type_: int) -> None:
    firmware = make(host_named("spec").evolve(trusted_os=TrustedOs(type_, 1), cite="a test"))
    call(firmware, "CPU_ON", 1, ENTRY)
    firmware.handle(Enter(1))

    assert call(firmware, "CPU_OFF", vcpu=1) == returned("spec", Psci.DENIED)
    assert firmware.power.states == [PowerState.ON, PowerState.ON]
    assert call(firmware, "CPU_OFF", vcpu=0) == GONE["spec"]


@pytest.mark.parametrize("host", HOSTS)
def test_there_is_no_smc64_form(host: str) -> None:
    firmware = make(host)

    assert call(firmware, 0xC400_0002) == returned(host, Psci.NOT_SUPPORTED)
    assert firmware.power.states[0] is PowerState.ON
