"""SYSTEM_OFF and SYSTEM_RESET: every vCPU stops and the VMM has the word."""

from __future__ import annotations

import pytest

from firmware.abi import PowerState, Psci, Version
from firmware.trap import MpState, MpStateValue, SystemEventType
from tests.firmware.harness import ENTRY, HOST_VERSIONS, HOSTS, RESET, SHUTDOWN, V0_2, call, left, make, returned

FUNCTIONS = {0x8400_0008: SHUTDOWN, 0x8400_0009: RESET}


@pytest.mark.parametrize(("host", "version"), [pair for pair in HOST_VERSIONS if pair[1] >= V0_2], ids=str)
@pytest.mark.parametrize(("fid", "event"), FUNCTIONS.items(), ids=["off", "reset"])
def test_every_vcpu_is_stopped_and_the_vmm_decides(host: str, version: Version, fid: int, event: SystemEventType) -> None:
    firmware = make(host, vcpus=3, psci=version)
    call(firmware, "CPU_ON", 1, ENTRY)

    assert call(firmware, fid, 1, 2, 3) == left(host, event)
    assert firmware.power.states == [PowerState.OFF] * 3


@pytest.mark.parametrize("host", ["spec", "kvm-6.12"])
@pytest.mark.parametrize("fid", FUNCTIONS, ids=["off", "reset"])
def test_a_start_that_was_under_way_survives_a_vmm_that_lets_the_machine_go_on(host: str, fid: int) -> None:
    firmware = make(host)
    call(firmware, "CPU_ON", 1, ENTRY, 7)
    call(firmware, fid)

    for vcpu in (0, 1):
        firmware.handle(MpState(vcpu, MpStateValue.RUNNABLE))

    assert firmware.power.states == [PowerState.ON, PowerState.ON_PENDING]


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("fid", [0xC400_0008, 0xC400_0009], ids=hex)
def test_there_is_no_smc64_form(host: str, fid: int) -> None:
    firmware = make(host)

    assert call(firmware, fid) == returned(host, Psci.NOT_SUPPORTED)
    assert firmware.power.states[0] is PowerState.ON
