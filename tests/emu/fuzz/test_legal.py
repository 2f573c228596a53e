"""Which firmware a guest that keeps to the standards might meet: a table of cases, each with why."""

from __future__ import annotations

import dataclasses
from typing import Final, NamedTuple

import pytest

from emu.fuzz.case import Case
from emu.fuzz.guest import Guest
from emu.fuzz.legal import is_allowed, is_correct
from emu.fuzz.mutate import Choice, single
from firmware.host import Deviation
from firmware.hosts import HOSTS

GUEST: Final = Guest(("-smp", "2"), None, (), None, 1, 1)


class Row(NamedTuple):
    """A case, whether it is legal, and why."""

    case: Case
    is_legal: bool
    why: str


SPEC: Final = Case("spec", "1.1")
ROWS: Final = (
    Row(Case("spec", "0.2"), True, "the standard itself"),
    Row(Case("spec", "1.3"), True, "and its newest version"),
    Row(Case("spec", "0.1"), True, "0.1 makes nothing mandatory"),
    Row(Case("kvm-6.12", "1.0"), True, "a version that the host may be asked for"),
    Row(Case("kvm-3.11", "0.1"), True, "an old host of its time"),
    Row(Case("qemu-7", "1.1"), True, "the only version that it has"),
    Row(Case("xen", "1.1"), True, "it serves all that is mandatory"),
    Row(Case("tf-a", "1.1"), True, "over SMC, which is its own"),
    Row(Case("u-boot", "1.0"), False, "it lacks what PSCI makes mandatory"),
    Row(Case("jailhouse", "1.1"), False, "it lacks what PSCI makes mandatory"),
    Row(Case("bao", "1.1"), False, "it lacks what PSCI makes mandatory"),
    Row(Case("hafnium-primary", "1.1"), False, "it lacks what PSCI makes mandatory"),
    Row(Case("tf-a-tos", "1.1"), True, "a Trusted OS may deny CPU_OFF of its CPU"),
    Row(SPEC._replace(conduit="smc"), True, "it is served over both conduits"),
    Row(Case("kvm-6.4", "1.1", conduit="smc"), True, "since then KVM serves SMC too"),
    Row(Case("kvm-5.19", "1.1", conduit="smc"), False, "before, SMC is undefined there"),
    Row(Case("kvm-3.14", "0.1", conduit="smc"), False, "and of 0.1 it is CPU_ON that is not served"),
    Row(SPEC._replace(seed=5), True, "any schedule is"),
    Row(SPEC._replace(call_ns=100_000), True, "a call may take longer"),
    Row(SPEC._replace(compatible=("arm,psci-1.0",)), True, "for firmware that has 1.0 the string alone is right"),
    Row(SPEC._replace(compatible=("arm,psci-0.2",)), True, "1.1 is compatible with 0.2"),
    Row(Case("spec", "0.2", compatible=("arm,psci-1.0", "arm,psci-0.2")), False, "0.2 is not 1.0"),
    Row(Case("spec", "1.0", compatible=("arm,psci-1.1", "arm,psci-1.0")), False, "1.0 is not 1.1"),
    Row(Case("spec", "0.1", compatible=("arm,psci-0.2",)), False, "0.1 is not 0.2"),
    Row(SPEC._replace(faults=("CPU_ON: zero-extend",)), True, "a W register's write leaves the upper half zero"),
    Row(SPEC._replace(faults=("CPU_ON: poison=x1-x3",)), True, "x1 to x3 are results"),
    Row(SPEC._replace(faults=("CPU_ON: poison=x4-x17",)), True, "and those are, while SMCCC 1.0 is in force"),
    Row(SPEC._replace(faults=("SMCCC_ARCH_FEATURES: poison=x1-x3",)), True, "it answers in x0 alone, as PSCI does"),
    Row(SPEC._replace(faults=("TRNG_RND32: poison=x1-x3",)), False, "the entropy is there"),
    Row(SPEC._replace(faults=("TRNG_GET_UUID: poison=x1-x3",)), False, "the UUID is there"),
    Row(SPEC._replace(faults=("SMCCC_ARCH_SOC_ID: poison=x1-x3",)), False, "the name is there"),
    Row(SPEC._replace(faults=("CPU_ON: drop",)), False, "SUCCESS for what is not done"),
    Row(SPEC._replace(faults=("CPU_ON: x0=0x1",)), False, "no standard has that code"),
    Row(SPEC._replace(faults=("CPU_ON: undef",)), False, "a conduit is served or it is not"),
    Row(SPEC._replace(faults=("CPU_ON: delay=1",)), False, "ON_PENDING for a CPU that is off"),
    Row(SPEC._replace(faults=("CPU_ON: NOT_SUPPORTED=DENIED",)), False, "another code than the standard's"),
    Row(SPEC._replace(faults=("version=2.0",)), False, "there is no such version"),
    Row(SPEC._replace(faults=("features=yes",)), False, "it says yes to what is not served"),
    Row(SPEC._replace(faults=("unknown=undef",)), False, "unknown calls are NOT_SUPPORTED"),
    Row(SPEC._replace(faults=("wrong-conduit",)), False, "the node names the one that is not served"),
    Row(SPEC._replace(faults=("trusted-os=cpu1",)), False, "of faults only results are looked at; a host that has one is tf-a-tos"),
    Row(SPEC._replace(faults=("CPU_ON: zero-extend", "CPU_OFF: drop")), False, "one of two is enough"),
    Row(SPEC._replace(changes=("1.0@call:CPU_ON#1",)), False, "the version is the same for as long as a guest runs"),
)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.case}: {row.why}")
def test_what_is_legal(row: Row) -> None:
    assert (is_correct(GUEST.setup(row.case, {})) and is_allowed(row.case)) == row.is_legal


@pytest.mark.parametrize("name", HOSTS)
def test_each_host_is_correct_at_every_version_over_its_own_conduit_or_at_none(name: str) -> None:
    host = HOSTS[name]

    verdicts = {is_correct(GUEST.setup(Case(name, str(version)), {})) for version in host.versions}

    assert len(verdicts) == 1


def test_firmware_that_says_yes_to_a_function_it_lacks_is_not_correct() -> None:
    setup = GUEST.setup(SPEC, {})
    lie = Deviation("PSCI_FEATURES", "SYSTEM_SUSPEND", 0, "made up")
    host = setup.config.host.evolve(cite="made up", deviations=(lie,))

    lying = dataclasses.replace(setup, config=dataclasses.replace(setup.config, host=host))

    assert is_correct(setup)
    assert not is_correct(lying)


def test_of_what_one_fault_does_only_what_the_standards_leave_open_is_allowed() -> None:
    choice = Choice((("spec", ("1.1",)),))

    allowed = {fault for case, _ in single(SPEC, (("CPU_ON", 1),), choice) if is_allowed(case) for fault in case.faults}

    assert allowed == {"CPU_ON: zero-extend", "CPU_ON: poison=x1-x3", "CPU_ON: poison=x4-x17"}
