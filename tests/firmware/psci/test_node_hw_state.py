"""NODE_HW_STATE: the power controller's view, per CPU and per level above."""

from __future__ import annotations

import pytest

from firmware.abi import Psci
from tests.firmware.harness import ENTRY, JUNK, call, make, returned

ON, OFF, STANDBY = 0, 1, 2
CLUSTERS = (0x0, 0x1, 0x100, 0x101)
STANDBY_STATE, POWERDOWN_STATE = 0x0, 0x1_0000


def test_a_cpu_is_on_from_cpu_on_until_it_is_off() -> None:
    firmware = make("spec")
    seen = [call(firmware, "NODE_HW_STATE", 1)]
    call(firmware, "CPU_ON", 1, ENTRY)
    seen.append(call(firmware, "NODE_HW_STATE", 1))
    firmware.power.enter(1)
    seen.append(call(firmware, "NODE_HW_STATE", 1))
    call(firmware, "CPU_OFF", vcpu=1)
    seen.append(call(firmware, "NODE_HW_STATE", 1))

    assert seen == [returned("spec", state) for state in (OFF, ON, ON, OFF)]


@pytest.mark.parametrize(("power_state", "state"), [(STANDBY_STATE, STANDBY), (POWERDOWN_STATE, OFF)], ids=["standby", "powerdown"])
def test_a_sleeping_cpu_is_in_standby_or_off_as_it_asked(power_state: int, state: int) -> None:
    firmware = make("spec")
    call(firmware, "CPU_ON", 1, ENTRY)
    firmware.power.enter(1)
    call(firmware, "CPU_SUSPEND", power_state, ENTRY, vcpu=1)

    assert call(firmware, "NODE_HW_STATE", 1) == returned("spec", state)


def test_a_cluster_is_as_awake_as_its_most_awake_cpu() -> None:
    firmware = make("spec", mpidrs=CLUSTERS)
    seen = [call(firmware, "NODE_HW_STATE", 0x100, 1)]
    for vcpu in (2, 3):
        call(firmware, "CPU_ON", CLUSTERS[vcpu], ENTRY)
        firmware.power.enter(vcpu)
    seen.append(call(firmware, "NODE_HW_STATE", 0x100, 1))
    call(firmware, "CPU_SUSPEND", POWERDOWN_STATE, ENTRY, vcpu=2)
    call(firmware, "CPU_SUSPEND", STANDBY_STATE, vcpu=3)
    seen.append(call(firmware, "NODE_HW_STATE", 0x100, 1))

    assert seen == [returned("spec", state) for state in (OFF, ON, STANDBY)]
    assert call(firmware, "NODE_HW_STATE", 0x100, 2) == returned("spec", ON)


@pytest.mark.parametrize(("target_cpu", "power_level"), [(2, 0), (0x8000_0000, 0), (JUNK, 0), (0, 4), (0, 0xFFFF_FFFF)], ids=hex)
def test_a_cpu_or_level_that_does_not_exist_is_refused(target_cpu: int, power_level: int) -> None:
    assert call(make("spec"), "NODE_HW_STATE", target_cpu, power_level) == returned("spec", Psci.INVALID_PARAMETERS)


def test_the_level_is_a_word_in_both_conventions() -> None:
    assert call(make("spec"), "NODE_HW_STATE", 0, JUNK) == returned("spec", ON)


@pytest.mark.parametrize("host", ["kvm-6.12", "qemu-7"])
@pytest.mark.parametrize("fid", [0x8400_000D, 0xC400_000D], ids=hex)
def test_other_hosts_have_none(host: str, fid: int) -> None:
    assert call(make(host), fid) == returned(host, Psci.NOT_SUPPORTED)
