"""Hosts as data: every departure from `spec` is cited, and names are checked."""

from __future__ import annotations

import dataclasses
import re

import pytest

from firmware.abi import Version
from firmware.dispatch import function_names
from firmware.errors import UserError
from firmware.fwregs import BY_NAME
from firmware.host import Deviation, Host
from firmware.hosts import HOSTS, host_named
from firmware.hosts.spec import SPEC
from firmware.trap import Conduit
from tests.firmware.harness import make

OTHERS = [host for name, host in HOSTS.items() if name != "spec"]
COLUMNS = [field.name for field in dataclasses.fields(Host) if field.name not in ("sources", "unsourced")]
DEVIATIONS = [(host, deviation) for host in HOSTS.values() for deviation in host.deviations]


LISTED = ", ".join(sorted(HOSTS)[:12]) + ", ..."
DEPARTURES = [(host, column) for host in OTHERS for column in COLUMNS if getattr(host, column) != getattr(SPEC, column)]


@pytest.mark.parametrize(("host", "column"), DEPARTURES, ids=lambda value: value if isinstance(value, str) else value.name)
def test_a_column_that_departs_from_spec_has_a_source(host: Host, column: str) -> None:
    if column == "unknown_columns":
        assert not host.unknown_columns & host.sources.keys()
    elif column not in host.unknown_columns:
        assert len(host.sources[column]) > len("Linux v6.12")


@pytest.mark.parametrize("host", OTHERS, ids=lambda host: host.name)
def test_sources_are_of_columns(host: Host) -> None:
    assert set(host.sources) <= set(COLUMNS)


@pytest.mark.parametrize(("host", "deviation"), DEVIATIONS, ids=lambda value: getattr(value, "function", getattr(value, "name", None)))
def test_a_deviation_is_cited(host: Host, deviation: Deviation) -> None:
    assert re.search(r"\b(commit [0-9a-f]{8,}|v?\d+\.\d+)\b.*/.*, \w", deviation.cite), host.name


@pytest.mark.parametrize("host", HOSTS.values(), ids=lambda host: host.name)
def test_a_hosts_columns_name_functions_and_versions_that_exist(host: Host) -> None:
    names = function_names(make(host).config)

    assert host.serves | host.serves_0_1 | host.truncates | set(host.workaround_answers) <= names
    assert {deviation.function for deviation in host.deviations} <= names
    assert host.latest == max(host.versions)
    assert tuple(sorted(host.versions)) == host.versions
    assert host.smccc in (*host.smccc_versions, None)
    assert set(host.bitmap_resets) <= set(BY_NAME)
    assert set(host.registers) <= set(BY_NAME)
    assert host.unknown_columns <= set(COLUMNS)


def test_what_runs_at_el3_is_called_by_smc_and_all_else_by_hvc() -> None:
    by_smc = {name for name, host in HOSTS.items() if host.default_conduit is Conduit.SMC}

    assert by_smc == {"tf-a", "tf-a-tos", "hafnium-primary", "hafnium-secondary", "jailhouse", "u-boot", "u-boot-bare"}


def test_a_host_is_found_by_its_name() -> None:
    assert {name: host_named(name) for name in HOSTS} == HOSTS


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("kvm-3.12", "kvm-3.11"),
        ("kvm-4.9", "kvm-4.3"),
        ("kvm-4.9.200", "kvm-4.9.99"),
        ("kvm-4.14.39", "kvm-4.14.39"),
        ("kvm-4.16.6", "kvm-4.16"),
        ("kvm-4.16.8", "kvm-4.16.7"),
        ("kvm-4.19", "kvm-4.18"),
        ("kvm-5.4", "kvm-5.3"),
        ("kvm-5.4.0", "kvm-5.3"),
        ("kvm-6.1", "kvm-5.19"),
        ("kvm-6.14", "kvm-6.13"),
        ("kvm-6.19", "kvm-6.15"),
    ],
)
def test_a_release_without_changes_is_the_row_in_force_under_its_own_name(name: str, row: str) -> None:
    found = host_named(name)

    assert found.name == name
    # What user space alone sees has releases of its own (firmware/hosts/kvm_interface.py).
    columns = [column for column in COLUMNS if column not in ("name", "summary", "user_interface")]
    assert {column: getattr(found, column) for column in columns} == {column: getattr(HOSTS[row], column) for column in columns}


@pytest.mark.parametrize("name", ["kvm-3.10", "kvm-7.1", "kvm-9.99", "kvm-5.20", "kvm-4.21"])
def test_a_release_that_is_not_known_is_refused_with_those_that_are(name: str) -> None:
    with pytest.raises(UserError) as refused:
        host_named(name)

    assert str(refused.value) == f"host {name!r} is not known; KVM/arm64 is known from kvm-3.11 to kvm-7.0"


@pytest.mark.parametrize("name", ["kvm-4.9.98", "kvm-4.14.1", "kvm-5.4.75", "kvm-6.1.192"])
def test_a_stable_release_of_which_nothing_is_known_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"what this stable release took over from later ones is not known"):
        host_named(name)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("kvm6.13", "unknown host 'kvm6.13'; did you mean kvm-6.13?"),
        ("KVM-6.12", "unknown host 'KVM-6.12'; did you mean kvm-6.12?"),
        ("qemu", "unknown host 'qemu'; did you mean qemu-7?"),
        ("Spec", "unknown host 'Spec'; did you mean spec?"),
        ("zzzzzzzz", f"unknown host 'zzzzzzzz'; known: {LISTED}"),
        ("", f"unknown host ''; known: {LISTED}"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(name: str, sentence: str) -> None:
    with pytest.raises(UserError) as refused:
        host_named(name)

    assert str(refused.value) == sentence
    assert refused.value.exit_code == 102


def test_evolving_changes_the_named_columns_and_remembers_why() -> None:
    evolved = SPEC.evolve(name="x", summary="y", cite="first").evolve(summary="z", cite="second")

    assert (evolved.name, evolved.summary) == ("x", "z")
    assert evolved.sources == {"name": "first", "summary": "second"}
    assert SPEC.sources == {}


@pytest.mark.parametrize(
    ("version", "strings"),
    [
        ((0, 1), ("arm,psci",)),
        ((0, 2), ("arm,psci-0.2", "arm,psci")),
        ((1, 0), ("arm,psci-1.0", "arm,psci-0.2", "arm,psci")),
        ((1, 3), ("arm,psci-1.0", "arm,psci-0.2", "arm,psci")),
    ],
)
@pytest.mark.parametrize("host", [host_named(name) for name in ("spec", "kvm-6.12", "qemu-6", "qemu-7", "xen")], ids=lambda host: host.name)
def test_the_nodes_strings_follow_the_version_as_qemu_writes_them(host: Host, version: tuple[int, int], strings: tuple[str, ...]) -> None:
    assert host.node_compatible(Version(*version)) == strings


@pytest.mark.parametrize(
    ("name", "at_0_2", "at_1_1"),
    [
        ("firecracker", ("arm,psci-0.2",), ("arm,psci-0.2",)),
        ("crosvm", ("arm,psci-0.2",), ("arm,psci-1.0", "arm,psci-0.2")),
        ("tf-a", None, ("arm,psci-1.0", "arm,psci-0.2")),
        ("hafnium-primary", None, ("arm,psci-1.0", "arm,psci-0.2")),
        ("jailhouse", None, ("arm,psci-0.2",)),
        ("u-boot", None, ("arm,psci-1.0", "arm,psci-0.2")),
    ],
)
def test_other_hosts_list_the_strings_that_their_sources_do(name: str, at_0_2: tuple[str, ...] | None, at_1_1: tuple[str, ...]) -> None:
    host = host_named(name)

    assert host.node_compatible(Version(1, 1)) == at_1_1
    assert at_0_2 is None or host.node_compatible(Version(0, 2)) == at_0_2


def test_an_unknown_column_keeps_the_predecessors_value_until_a_source_is_found() -> None:
    evolved = SPEC.evolve(summary="y", cite="here").leave_unknown("soc_id", "summary")
    known_again = evolved.evolve(soc_id=None, cite="found")

    assert (evolved.soc_id, evolved.summary, evolved.sources) == (SPEC.soc_id, "y", {})
    assert evolved.unknown_columns == {"soc_id", "summary"}
    assert known_again.soc_id is None
    assert known_again.unknown_columns == {"summary"}


def test_what_is_unknown_of_a_host_is_how_its_guests_find_psci() -> None:
    unknown = {name: set(host.unknown_columns) for name, host in HOSTS.items() if host.unknown_columns and not name.startswith("kvm-")}

    assert unknown == {name: {"default_conduit", "node_compatible"} for name in ("hafnium-secondary", "bao")}
