"""The Spectre v4 mitigation that a guest switches by SMCCC_ARCH_WORKAROUND_2: KVM of Linux 4.18 to 5.9, each vCPU's own."""

from __future__ import annotations

from functools import partial
from typing import Final

import pytest

from firmware.dispatch import Firmware, configuration
from firmware.host import Mitigations
from firmware.hosts import host_named
from firmware.migration import carried, created, plan
from firmware.policy import FILTER_0_2, PSEUDO_REGISTER, Policy, Withheld
from firmware.trap import Access, Conduit, Enter, Init, Reply, Reset
from firmware.view import view
from tests.firmware.harness import ENTRY, call, make, returned
from tests.firmware.test_kvm_interface import ready

WORKAROUND_2: Final = 0x8000_7FFF
REGISTER: Final = 0x6030_0000_0014_0002
OFF, ON = 0x2, 0x12
SSBS: Final = Mitigations(ssbs=True)
SWITCHED: Final = ("kvm-4.18", "kvm-4.20", "kvm-5.0", "kvm-5.3", "kvm-5.9")
CLEARED: Final = Reply(((0, 0), (1, 0), (2, 0)))


def switchable(host: str, vcpus: int = 2) -> Firmware:
    return make(host, vcpus=vcpus, mitigations=(SSBS,))


def off(firmware: Firmware) -> set[int]:
    return set(firmware.state().power.ssbd_off)


@pytest.mark.parametrize("host", SWITCHED)
def test_a_call_switches_the_callers_mitigation(host: str) -> None:
    firmware = switchable(host)

    replies, seen = [], []
    for vcpu, enable in ((1, 0), (0, 0), (0, 1), (1, 1 << 31)):
        replies.append(call(firmware, WORKAROUND_2, enable, 7, 7, vcpu=vcpu, imm=5))
        seen.append(off(firmware))

    assert replies == [CLEARED] * 4
    assert seen == [{1}, {0, 1}, {1}, set()]


def test_it_is_the_low_half_of_x1_that_says_on_or_off() -> None:
    firmware = switchable("kvm-5.9")

    call(firmware, WORKAROUND_2, 1 << 32)

    assert off(firmware) == {0}


def test_x3_is_cleared_where_the_hosts_own_firmware_is_called() -> None:
    firmware = make("kvm-4.19", mitigations=(Mitigations(ssbd="kernel"), Mitigations(spectre_v4="unaffected", ssbd="kernel")))

    assert call(firmware, WORKAROUND_2, 0, vcpu=0) == Reply(((0, 0), (1, 0), (2, 0), (3, 0)))
    assert call(firmware, WORKAROUND_2, 0, vcpu=1) == CLEARED
    assert off(firmware) == {0, 1}


@pytest.mark.parametrize("ssbd", ["unknown", "force-disable", "force-enable", "mitigated"])
@pytest.mark.parametrize("host", ["kvm-4.18", "kvm-5.9"])
def test_nothing_is_switched_where_the_hosts_state_is_fixed_and_the_answer_stays_ready(host: str, ssbd: str) -> None:
    firmware = make(host, mitigations=(Mitigations(ssbd=ssbd),))

    assert firmware.tables.by_conduit[Conduit.HVC].entries[WORKAROUND_2] == CLEARED
    assert call(firmware, WORKAROUND_2, 0) == CLEARED
    assert off(firmware) == set()


@pytest.mark.parametrize(("host", "cleared"), [("kvm-5.10", 2), ("kvm-6.12", 2), ("xen", 4)])
def test_since_5_10_and_on_other_hosts_nothing_is_switched(host: str, cleared: int) -> None:
    firmware = switchable(host)

    assert call(firmware, WORKAROUND_2, 0) == Reply(tuple((register, 0) for register in range(cleared)))
    assert off(firmware) == set()


def test_only_the_workaround_by_hvc_is_worked_out_at_the_call() -> None:
    firmware = switchable("kvm-5.9")

    assert isinstance(firmware.tables.by_conduit[Conduit.HVC].entries[0x8000_8000], Reply)
    assert call(firmware, WORKAROUND_2, 0, conduit=Conduit.SMC) == Reply(((0, (1 << 64) - 1),))
    assert off(firmware) == set()


# ---- resets


@pytest.mark.parametrize(("host", "until_entered"), [("kvm-4.18", set()), ("kvm-4.20", set()), ("kvm-5.0", {1}), ("kvm-5.9", {1})])
def test_the_reset_of_a_started_vcpu_switches_it_on(host: str, until_entered: set[int]) -> None:
    firmware = switchable(host)
    call(firmware, WORKAROUND_2, 0, vcpu=1)

    assert call(firmware, "CPU_ON", 1, ENTRY).regs == returned(host, 0).regs
    started = off(firmware)
    firmware.handle(Access(1))  # no such release applies a reset then
    accessed = off(firmware)
    firmware.handle(Enter(1))

    assert (started, accessed, off(firmware)) == (until_entered, until_entered, set())


@pytest.mark.parametrize(("event", "left"), [(Init(1, stopped=False), {0}), (Reset(), set()), (Enter(1), {0, 1})])
def test_so_does_a_vmms_reset_and_no_mere_entry(event: Init | Reset | Enter, left: set[int]) -> None:
    firmware = switchable("kvm-5.9")
    for vcpu in (0, 1):
        call(firmware, WORKAROUND_2, 0, vcpu=vcpu)

    firmware.handle(event)

    assert off(firmware) == left


# ---- the register, from 5.3 on


@pytest.mark.parametrize("host", ["kvm-5.3", "kvm-5.9"])
def test_the_register_tells_each_vcpus_switch(host: str) -> None:
    machine = ready(host, mitigations=(SSBS,))
    first, second = machine.vcpus

    second.call(Conduit.HVC, WORKAROUND_2, 0)
    told = [first.get_one_reg(REGISTER), second.get_one_reg(REGISTER)]
    second.call(Conduit.HVC, WORKAROUND_2, 1)

    assert told == [ON, OFF]
    assert second.get_one_reg(REGISTER) == ON


def test_a_write_switches_one_vcpu_and_a_level_below_available_none() -> None:
    machine = ready("kvm-5.3", mitigations=(SSBS,))
    first, second = machine.vcpus

    second.set_one_reg(REGISTER, OFF)
    for lower in (0x0, 0x1):
        second.set_one_reg(REGISTER, lower)
    written = [first.get_one_reg(REGISTER), second.get_one_reg(REGISTER)]
    second.set_one_reg(REGISTER, ON)

    assert written == [ON, OFF]
    assert off(machine.firmware) == set()


@pytest.mark.parametrize("ssbd", ["force-enable", "mitigated"])
def test_a_write_switches_nothing_where_the_hosts_state_is_fixed(ssbd: str) -> None:
    firmware = make("kvm-5.9", mitigations=(Mitigations(ssbd=ssbd),))

    firmware.set_one_reg(REGISTER, OFF)

    assert off(firmware) == set()


# ---- state and moves


def test_it_is_part_of_the_state_and_of_a_firmware_that_begins_in_this_ones_place() -> None:
    firmware, other = switchable("kvm-5.9"), switchable("kvm-5.9")
    call(firmware, WORKAROUND_2, 0, vcpu=1)

    other.restore(firmware.state())

    assert other.state() == firmware.state() != switchable("kvm-5.9").state()
    assert off(Firmware(firmware.config_as_it_is)) == {1}


def moved(source: str, destination: str, policy: Policy = PSEUDO_REGISTER, cpu: Mitigations = SSBS) -> tuple[list[int], set[int]]:
    """Move a guest whose second vCPU has it off; return the values that were accepted, and the vCPUs that have it off then."""
    firmware, to = switchable(source), host_named(destination)
    call(firmware, WORKAROUND_2, 0, vcpu=1)
    like = configuration(to, (0, 1), mitigations=(cpu,))
    kind = policy.machine_types[0]
    migration = plan(firmware.config_as_it_is, created(like, to, policy, kind, None), policy, kind, partial(view, conduit=Conduit.HVC))
    values = [step.value for step in migration.steps if step.id == REGISTER and step.when == "sent" and not step.errno]
    assert migration.config is not None
    return values, set(carried(firmware.state(), firmware.config.host, migration.config).power.ssbd_off)


@pytest.mark.parametrize(
    ("source", "destination", "values", "left"),
    [
        ("kvm-5.3", "kvm-5.9", [ON, OFF], {1}),
        ("kvm-4.19", "kvm-4.19", [], set()),  # no register: the destination's vCPUs begin with it on
        ("kvm-4.19", "kvm-5.9", [], set()),
    ],
)
def test_a_move_takes_along_what_the_register_tells(source: str, destination: str, values: list[int], left: set[int]) -> None:
    assert moved(source, destination) == (values, left)


def test_a_move_to_where_nothing_is_switched_leaves_it_behind() -> None:
    assert moved("kvm-5.9", "kvm-5.9", cpu=Mitigations(ssbd="mitigated")) == ([ON, OFF], set())
    assert moved("kvm-5.9", "kvm-5.10", cpu=Mitigations()) == ([ON, OFF], set())


def test_a_register_that_the_sender_keeps_back_tells_nothing() -> None:
    keeps = Policy(name="keeps", summary="", cite="", withholds=(Withheld("SMCCC_ARCH_WORKAROUND_2", OFF),))

    assert moved("kvm-5.9", "kvm-5.9", keeps) == ([ON], set())
    assert moved("kvm-5.9", "kvm-5.9", FILTER_0_2) == ([ON, OFF], {1})
