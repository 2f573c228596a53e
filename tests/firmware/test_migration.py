"""What becomes of a guest that is moved: reference tables by kernel release, and each rule by itself.

The tables are derived from the kernels' code and QEMU's by release, independently of `firmware/`; where ours differs, the test says
why.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Final

import pytest

from firmware.abi import PSCI_0_1, PSCI_0_2, PSCI_1_0, PSCI_1_1, PSCI_1_3, Version
from firmware.dispatch import configuration
from firmware.errors import UserError
from firmware.host import Config, Mitigations
from firmware.hosts import HOSTS, host_named
from firmware.migration import Migration, carried, created, plan
from firmware.policy import DO_NOTHING, FILTER_0_2, POLICIES, PSEUDO_REGISTER, QEMU_11, MachineType, Missing, Policy, Unknown, Withheld
from firmware.trap import NOTHING, Conduit, Enter, EntryState, Reply
from firmware.view import view
from tests.firmware.harness import ENTRY, call, make

_ASK: Final = partial(view, conduit=Conduit.HVC)


def _vm(host: str, policy: Policy, asked: Version | None = None, *mitigations: Mitigations, vcpus: int = 1) -> Config:
    like = configuration(host_named(host), tuple(range(vcpus)))
    if mitigations:
        like = dataclasses.replace(like, mitigations=mitigations)
    return created(like, host_named(host), policy, policy.machine_types[0], asked)


def _move(source: str, destination: str, policy: Policy = PSEUDO_REGISTER, asked: Version | None = None) -> Migration:
    # A PSCI version travels in the register; 0.1 is a feature bit, and both sides' VMMs create their vCPUs without it.
    return plan(
        _vm(source, policy, asked), _vm(destination, policy, asked if asked == PSCI_0_1 else None), policy, policy.machine_types[0], _ASK
    )


def _errnos(migration: Migration) -> set[str]:
    return {step.errno for step in migration.refusals}


# ---- by release: the guest booted at the source's default

_DESTINATIONS: Final = {
    "before 4.2": ("kvm-3.16",),
    "4.2 to 4.15": ("kvm-4.2", "kvm-4.12", "kvm-4.15"),
    "4.16.0 to .6": ("kvm-4.16",),
    "4.16.7, 4.17 to 5.2": ("kvm-4.16.7", "kvm-4.14.39", "kvm-4.9.99", "kvm-4.17", "kvm-4.18", "kvm-5.2"),
    "5.3 to 5.16": ("kvm-5.3", "kvm-5.5", "kvm-5.7", "kvm-5.9", "kvm-5.10", "kvm-5.12", "kvm-5.13", "kvm-5.15", "kvm-5.16"),
    "5.17": ("kvm-5.17",),
    "5.18": ("kvm-5.18",),
    "5.19 to 6.12": ("kvm-5.19", "kvm-6.4", "kvm-6.12"),
    "6.13 and 6.14": ("kvm-6.13", "kvm-6.14"),
    "6.15 and later": ("kvm-6.15", "kvm-7.0"),
}

# By source: for each destination the version after the move, or the errno of the refusals.
_R: Final = ("ENOENT",)
_BY_RELEASE: Final = {
    ("kvm-3.16", "kvm-4.2", "kvm-4.12", "kvm-4.15"): ("0.2", "0.2", "1.0", "1.0", "1.0", "1.0", "1.1", "1.1", "1.3", "1.3"),
    ("kvm-4.16",): ("0.2", "0.2", "1.0", "1.0", "1.0", "1.0", "1.1", "1.1", "1.3", "1.3"),
    ("kvm-4.16.7", "kvm-4.17", "kvm-4.18", "kvm-5.2"): (_R, _R, _R, "1.0", "1.0", "1.0", "1.0", "1.0", "1.0", "1.0"),
    ("kvm-5.3", "kvm-5.7", "kvm-5.10", "kvm-5.16"): (_R, _R, _R, ("EINVAL",), "1.0", "1.0", "1.0", "1.0", "1.0", "1.0"),
    ("kvm-5.17",): (_R, _R, _R, ("EINVAL",), _R, "1.0", "1.0", "1.0", "1.0", "1.0"),
    ("kvm-5.18",): (_R, _R, _R, ("EINVAL",), ("EINVAL", "ENOENT"), ("EINVAL",), "1.1", "1.1", "1.1", "1.1"),
    ("kvm-5.19", "kvm-6.12"): (_R, _R, _R, ("EINVAL", "ENOENT"), ("EINVAL", "ENOENT"), ("EINVAL", "ENOENT"), _R, "1.1", "1.1", "1.1"),
    ("kvm-6.13", "kvm-6.14"): (_R, _R, _R, *[("EINVAL", "ENOENT")] * 4, ("EINVAL",), "1.3", "1.3"),
    ("kvm-6.15", "kvm-7.0"): (_R, _R, _R, *[("EINVAL", "ENOENT")] * 4, ("EINVAL", "ENOENT"), _R, "1.3"),
}


@pytest.mark.parametrize("source", [source for sources in _BY_RELEASE for source in sources])
@pytest.mark.parametrize("column", range(len(_DESTINATIONS)), ids=list(_DESTINATIONS))
def test_a_guest_at_its_kernels_default_fares_as_the_releases_say(source: str, column: int) -> None:
    expected = next(row for sources, row in _BY_RELEASE.items() if source in sources)[column]
    for destination in list(_DESTINATIONS.values())[column]:
        migration = _move(source, destination)

        if isinstance(expected, tuple):
            assert _errnos(migration) == set(expected), destination
        else:
            assert migration.after is not None, destination
            assert str(migration.after.version) == expected, destination


@pytest.mark.parametrize("destination", ["kvm-3.16", "kvm-4.2", "kvm-4.15"])
def test_a_guest_of_4_16_loses_its_mitigation_on_a_host_from_before(destination: str) -> None:
    migration = _move("kvm-4.16", destination)

    assert migration.accepted
    assert {loss.workaround for loss in migration.losses} >= {"SMCCC_ARCH_WORKAROUND_1"}


def test_without_workaround_registers_an_unmitigated_destination_loses_the_mitigation_silently() -> None:
    source = _vm("kvm-4.17", PSEUDO_REGISTER)
    fresh = _vm("kvm-4.17", PSEUDO_REGISTER, None, Mitigations(spectre_v2="vulnerable"))

    migration = plan(source, fresh, PSEUDO_REGISTER, PSEUDO_REGISTER.machine_types[0], _ASK)

    assert migration.accepted
    assert [loss.workaround for loss in migration.losses] == ["SMCCC_ARCH_WORKAROUND_1"]


# Source and destination level of the registers' three states: kvm_arm_set_fw_reg refuses a host that is less mitigated.
_REFUSED: Final = {("mitigated", "vulnerable"), ("unaffected", "vulnerable"), ("unaffected", "mitigated")}
_STATES: Final = ("vulnerable", "mitigated", "unaffected")


@pytest.mark.parametrize("host", ["kvm-5.3", "kvm-5.17", "kvm-6.12", "kvm-7.0"])
@pytest.mark.parametrize("was", _STATES)
@pytest.mark.parametrize("is_", _STATES)
def test_from_5_3_on_a_less_mitigated_destination_refuses_workaround_1(host: str, was: str, is_: str) -> None:
    source, fresh = (_vm(host, PSEUDO_REGISTER, None, Mitigations(spectre_v2=state)) for state in (was, is_))

    migration = plan(source, fresh, PSEUDO_REGISTER, PSEUDO_REGISTER.machine_types[0], _ASK)

    refused = [(step.register, step.errno) for step in migration.refusals]
    assert refused == ([("SMCCC_ARCH_WORKAROUND_1", "EINVAL")] if (was, is_) in _REFUSED else [])


# ---- by the version that the guest's owner asked for

_BEFORE_4_16: Final = ("kvm-3.16", "kvm-4.2", "kvm-4.15")
_FROM_4_17: Final = ("kvm-4.17", "kvm-5.3", "kvm-5.17")
_FROM_5_18: Final = ("kvm-5.18", "kvm-5.19", "kvm-6.12")
_FROM_6_13: Final = ("kvm-6.13", "kvm-6.15", "kvm-7.0")

# (version, a source that takes it, destinations, errno of the version register: "" accepted)
_BY_VERSION: Final = (
    (PSCI_0_1, "kvm-4.17", (*_BEFORE_4_16, "kvm-4.16"), "ENOENT"),
    (PSCI_0_1, "kvm-4.17", (*_FROM_4_17, *_FROM_5_18, *_FROM_6_13), ""),
    (PSCI_0_2, "kvm-4.17", (*_BEFORE_4_16, "kvm-4.16"), "ENOENT"),
    (PSCI_0_2, "kvm-4.17", (*_FROM_4_17, *_FROM_5_18, *_FROM_6_13), ""),
    (PSCI_1_0, "kvm-4.17", (*_BEFORE_4_16, "kvm-4.16"), "ENOENT"),
    (PSCI_1_0, "kvm-4.17", (*_FROM_4_17, *_FROM_5_18, *_FROM_6_13), ""),
    (PSCI_1_1, "kvm-5.18", (*_BEFORE_4_16, "kvm-4.16"), "ENOENT"),
    (PSCI_1_1, "kvm-5.18", _FROM_4_17, "EINVAL"),
    (PSCI_1_1, "kvm-5.18", (*_FROM_5_18, *_FROM_6_13), ""),
    (PSCI_1_3, "kvm-6.13", (*_BEFORE_4_16, "kvm-4.16"), "ENOENT"),
    (PSCI_1_3, "kvm-6.13", (*_FROM_4_17, *_FROM_5_18), "EINVAL"),
    (PSCI_1_3, "kvm-6.13", _FROM_6_13, ""),
)


@pytest.mark.parametrize(("version", "source", "destinations", "errno"), _BY_VERSION, ids=str)
def test_the_version_register_travels_where_the_destination_takes_its_value(
    version: Version, source: str, destinations: tuple[str, ...], errno: str
) -> None:
    for destination in destinations:
        step = next(step for step in _move(source, destination, asked=version).steps if step.register == "PSCI_VERSION")

        assert (step.when, step.value, step.errno) == ("sent", version.word, errno), destination


@pytest.mark.parametrize("destination", _BEFORE_4_16)
def test_a_vmm_that_keeps_back_0_2_can_go_back_to_an_old_host(destination: str) -> None:
    migration = _move("kvm-4.17", destination, FILTER_0_2, PSCI_0_2)

    assert migration.accepted
    assert not migration.version_changed
    assert not migration.mitigation_lost
    assert migration.withheld == (("PSCI_VERSION", PSCI_0_2.word),)


def test_a_register_kept_back_leaves_4_16_at_its_own_version() -> None:
    migration = _move("kvm-4.17", "kvm-4.16", FILTER_0_2, PSCI_0_2)

    assert migration.after is not None
    assert str(migration.after.version) == "1.0"


def test_a_guest_of_1_0_whose_register_is_kept_back_loses_its_mitigation_on_an_old_host() -> None:
    policy = dataclasses.replace(PSEUDO_REGISTER, withholds=(Withheld("PSCI_VERSION"),))

    migration = _move("kvm-4.17", "kvm-4.15", policy)

    assert migration.version_changed
    assert migration.mitigation_lost


@pytest.mark.parametrize("destination", ["kvm-4.17", "kvm-5.17", "kvm-6.12", "kvm-7.0"])
@pytest.mark.parametrize(("was_0_1", "is_0_1"), [(True, False), (False, True)])
def test_vcpus_with_another_feature_bit_refuse_the_version(destination: str, was_0_1: bool, is_0_1: bool) -> None:
    source = _vm("kvm-4.17", PSEUDO_REGISTER, PSCI_0_1 if was_0_1 else None)
    fresh = _vm(destination, PSEUDO_REGISTER, PSCI_0_1 if is_0_1 else None)

    migration = plan(source, fresh, PSEUDO_REGISTER, PSEUDO_REGISTER.machine_types[0], _ASK)

    assert [(step.register, step.errno) for step in migration.refusals] == [("PSCI_VERSION", "EINVAL")]


# ---- policies


# Where a machine type asks for a version, older hosts do not have it: tests/emu/test_matrix.py.
@pytest.mark.parametrize(
    "policy", [each for each in POLICIES.values() if each.machine_types[0].asks_for is None], ids=lambda each: each.name
)
@pytest.mark.parametrize("host", HOSTS)
def test_a_guest_moved_to_an_equal_host_sees_no_difference(policy: Policy, host: str) -> None:
    config = _vm(host, policy)

    migration = plan(config, _vm(host, policy), policy, policy.machine_types[0], _ASK)

    assert migration.accepted
    assert migration.before == migration.after
    assert not migration.mitigation_lost


def test_under_do_nothing_no_register_travels() -> None:
    migration = _move("kvm-6.12", "kvm-4.15", DO_NOTHING)

    assert migration.accepted
    assert {step.when for step in migration.steps} <= {"not sent"}
    assert migration.version_changed
    assert migration.mitigation_lost


def test_a_receiver_may_ignore_what_its_kernel_lacks_but_not_a_value_it_refuses() -> None:
    policy = dataclasses.replace(PSEUDO_REGISTER, unknown=Unknown.IGNORE)

    assert _move("kvm-4.17", "kvm-4.15", policy).accepted
    assert _errnos(_move("kvm-6.13", "kvm-6.12", policy)) == {"EINVAL"}


def test_a_receiver_that_wants_every_register_refuses_a_move_from_an_older_host() -> None:
    policy = dataclasses.replace(PSEUDO_REGISTER, missing=Missing.REFUSE)

    assert [step.register for step in _move("kvm-5.2", "kvm-5.3", policy).refusals] == [
        "SMCCC_ARCH_WORKAROUND_1",
        "SMCCC_ARCH_WORKAROUND_2",
    ]


def test_a_register_that_may_safely_be_missing_is_dropped_where_the_destination_lacks_it() -> None:
    policy = dataclasses.replace(PSEUDO_REGISTER, safe_missing=frozenset({"VENDOR_HYP_BMAP_2"}))

    migration = _move("kvm-6.15", "kvm-6.14", policy)

    assert migration.accepted
    assert [(step.register, step.errno) for step in migration.steps if step.errno] == [("VENDOR_HYP_BMAP_2", "ENOENT")]
    assert not _move("kvm-5.3", "kvm-5.2", policy).accepted  # any other register refuses the move as before


def test_a_register_that_a_machine_type_hides_is_neither_sent_nor_expected() -> None:
    policy = dataclasses.replace(QEMU_11, missing=Missing.REFUSE)
    hiding, plain = policy.machine_type("virt-10.1"), policy.machine_type("virt-11.0")

    def moved(source: str, destination: str, machine_type: MachineType) -> Migration:
        return plan(_vm(source, policy), _vm(destination, policy), policy, machine_type, _ASK)

    assert moved("kvm-6.15", "kvm-6.14", hiding).accepted
    assert moved("kvm-6.15", "kvm-6.14", hiding).withheld == (("VENDOR_HYP_BMAP_2", 0),)
    assert moved("kvm-6.14", "kvm-6.15", hiding).accepted
    assert [step.register for step in moved("kvm-6.15", "kvm-6.14", plain).refusals] == ["VENDOR_HYP_BMAP_2"]
    assert [step.register for step in moved("kvm-6.14", "kvm-6.15", plain).refusals] == ["VENDOR_HYP_BMAP_2"]


def test_a_receiver_that_takes_a_missing_version_for_0_2_keeps_an_old_guest_at_0_2() -> None:
    policy = dataclasses.replace(PSEUDO_REGISTER, absent_version=PSCI_0_2)

    migration = _move("kvm-4.15", "kvm-7.0", policy)

    assert migration.accepted
    assert not migration.version_changed


# ---- verdicts


@pytest.mark.parametrize("asked", [PSCI_0_1, PSCI_0_2])
def test_a_guest_below_1_0_was_never_led_to_a_mitigation_and_loses_none(asked: Version) -> None:
    policy = dataclasses.replace(PSEUDO_REGISTER, withholds=(Withheld("PSCI_VERSION"),))

    migration = _move("kvm-4.17", "kvm-4.15", policy, asked)

    assert migration.before.workaround("SMCCC_ARCH_WORKAROUND_1") == (0,)
    assert migration.after is not None
    assert migration.after.workaround("SMCCC_ARCH_WORKAROUND_1") == (-1,)
    assert not migration.mitigation_lost


def test_a_mitigation_is_lost_on_one_vcpu_alone_where_the_cpus_differ() -> None:
    source = _vm("kvm-6.12", DO_NOTHING, None, Mitigations(), vcpus=2)
    fresh = _vm("kvm-6.12", DO_NOTHING, None, Mitigations(), Mitigations(spectre_bhb="vulnerable"), vcpus=2)

    migration = plan(source, fresh, DO_NOTHING, DO_NOTHING.machine_types[0], _ASK)

    assert [(loss.vcpu, loss.workaround) for loss in migration.losses] == [(1, "SMCCC_ARCH_WORKAROUND_3")]


def test_a_guest_that_was_told_it_need_not_call_is_not_mitigated_where_it_must() -> None:
    source = _vm("kvm-6.12", DO_NOTHING, None, Mitigations(spectre_v2="unaffected"))
    fresh = _vm("kvm-6.12", DO_NOTHING)

    migration = plan(source, fresh, DO_NOTHING, DO_NOTHING.machine_types[0], _ASK)

    assert [(loss.workaround, loss.before, loss.after) for loss in migration.losses] == [("SMCCC_ARCH_WORKAROUND_1", 1, 0)]


def test_a_refused_move_changes_no_configuration_and_shows_no_view() -> None:
    migration = _move("kvm-6.13", "kvm-6.12")

    assert (migration.accepted, migration.config, migration.after, migration.losses) == (False, None, None, ())


@pytest.mark.parametrize("version", [PSCI_0_1, PSCI_1_3])
def test_a_kernels_default_is_a_version_that_it_has(version: Version) -> None:
    policy = dataclasses.replace(PSEUDO_REGISTER, name="mine", kernel_default=version)
    host = host_named("kvm-6.12")

    with pytest.raises(UserError, match=rf"policy mine: host kvm-6\.12 cannot offer PSCI {version} unasked; it has 0\.2, 1\.0, 1\.1"):
        created(configuration(host), host, policy, policy.machine_types[0], None)


@pytest.mark.parametrize(("is_started", "entered"), [(False, NOTHING), (True, Reply(entry=EntryState(ENTRY + 4, 7, 0x3C5, False)))])
def test_an_instruction_that_waits_to_be_skipped_is_skipped_before_a_move(is_started: bool, entered: Reply) -> None:
    source, moved = make("kvm-6.12"), make("kvm-6.12")
    call(source, "CPU_ON", 1, ENTRY)
    source.handle(Enter(1))
    call(source, "CPU_OFF", vcpu=1, conduit=Conduit.SMC)
    if is_started:
        call(source, "CPU_ON", 1, ENTRY, 7)

    moved.restore(carried(source.state(), source.config.host, moved.config))

    assert moved.handle(Enter(1)) == entered
    assert moved.state().power.skipping == frozenset()
