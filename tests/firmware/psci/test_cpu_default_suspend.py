"""CPU_DEFAULT_SUSPEND: a powerdown suspend of the CPU alone."""

from __future__ import annotations

import pytest

from firmware.abi import Psci
from firmware.host import Host
from firmware.hosts import host_named
from firmware.trap import Reply, Resume, Woken
from tests.firmware.harness import CONTEXT, ENTRY, JUNK, RAM, call, entered, make, returned

EXTENDED = host_named("spec").evolve(extended_state_id=True, cite="a test")


@pytest.mark.parametrize("smc64", [False, True], ids=["smc32", "smc64"])
@pytest.mark.parametrize("big_endian", [False, True])
def test_it_writes_nothing_and_resumes_at_the_entry_point(smc64: bool, big_endian: bool) -> None:
    firmware = make("spec")
    context = CONTEXT if smc64 else CONTEXT & 0xFFFF_FFFF

    assert call(firmware, "CPU_DEFAULT_SUSPEND", ENTRY, CONTEXT, smc64=smc64, big_endian=big_endian) == Reply(resume=Resume.WAIT)
    assert firmware.handle(Woken(0)) == entered(ENTRY, context, big_endian=big_endian)


@pytest.mark.parametrize("entry", [0x0, ENTRY + 1, RAM[0] - 4, RAM[0] + RAM[1], JUNK | ENTRY], ids=hex)
def test_a_bad_entry_point_is_refused(entry: int) -> None:
    firmware = make("spec")
    before = firmware.state()

    assert call(firmware, "CPU_DEFAULT_SUSPEND", entry) == returned("spec", Psci.INVALID_ADDRESS)
    assert firmware.state() == before


@pytest.mark.parametrize(("host", "power_state"), [(host_named("spec"), 0x1_0000), (EXTENDED, 0x4000_0000)], ids=["original", "extended"])
def test_it_counts_as_powerdown_with_state_id_0(host: Host, power_state: int) -> None:
    firmware = make(host)
    call(firmware, "CPU_DEFAULT_SUSPEND", ENTRY)
    firmware.handle(Woken(0))

    assert call(firmware, "STAT_COUNT", 0, power_state) == returned("spec", 1)


def test_no_last_man_rule_holds_for_the_cpu_alone() -> None:
    firmware = make("spec")
    call(firmware, "SET_SUSPEND_MODE", 1)
    call(firmware, "CPU_ON", 1, ENTRY)
    firmware.power.enter(1)

    assert call(firmware, "CPU_DEFAULT_SUSPEND", ENTRY) == Reply(resume=Resume.WAIT)


@pytest.mark.parametrize("host", ["kvm-6.12", "qemu-7"])
@pytest.mark.parametrize("fid", [0x8400_000C, 0xC400_000C], ids=hex)
def test_other_hosts_have_none(host: str, fid: int) -> None:
    assert call(make(host), fid, ENTRY) == returned(host, Psci.NOT_SUPPORTED)
