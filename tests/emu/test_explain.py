"""explain: every row can be told, and what is told is the row's, the docstring's and the hosts' own."""

from __future__ import annotations

import re

import pytest

from emu.explain import explain, parse
from firmware.abi import SMCCC_1_6
from firmware.dispatch import SERVICES, configuration, rows
from firmware.errors import UserError
from firmware.hosts import HOSTS
from firmware.hosts.spec import SPEC
from firmware.table import Function

CONFIG = configuration(SPEC, smccc=SMCCC_1_6)
ROWS = [row for _, row in rows(CONFIG)]
NAMES = sorted({row.name for row in ROWS})


def identity(row: Function) -> str:
    return f"{row.name} {row.fids[0]:#x}"


def told_hosts(text: str) -> list[str]:
    """Return the hosts that a text tells of, in order: by themselves, or from one to another."""
    known, told = list(HOSTS), []
    for first, last in re.findall(r"(?m)^  ([a-z][a-z0-9.-]+)(?: to ([a-z0-9.-]+))? +(?:not )?served", text):
        told += known[known.index(first) : known.index(last or first) + 1]
    return told


@pytest.mark.parametrize("row", ROWS, ids=identity)
def test_every_row_is_told_with_its_ids_and_arguments(row: Function) -> None:
    text = explain(row.name)

    assert text.startswith(f"{row.name}\n\n")
    assert all(f"{fid:#010x}" in text for fid in row.fids)
    assert told_hosts(text) == list(HOSTS)
    assert max(map(len, text.splitlines())) <= 122


@pytest.mark.parametrize("row", [row for service in SERVICES[1:] for row in service.functions(CONFIG)], ids=identity)
def test_every_docstring_has_a_section_a_presence_and_the_rows_arguments(row: Function) -> None:
    text = parse(row)

    assert text.summary.endswith(").")
    assert " (" in text.summary
    assert "Convention: SMC" in text.presence
    assert tuple(name for name, _ in text.arguments) == row.args or row.name == "SMCCC_ARCH_WORKAROUND_3" or not row.args


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("name", NAMES)
def test_a_host_alone_is_told_alone(host: str, name: str) -> None:
    told = explain(name, host).partition("\non the modelled hosts\n")[2]

    assert [line.split()[0] for line in told.splitlines() if line[2:3] != " "] == [host]


def test_cpu_on_is_told_whole() -> None:
    text = explain("CPU_ON")

    assert "Start another CPU (DEN 0022, CPU_ON)." in text
    assert "0x84000003 SMC32, since PSCI 0.2" in text
    assert "0x95c1ba60 is its ID in PSCI 0.1 alone" in text
    assert "    w1/x1  target_cpu             MPIDR affinity fields, all other bits zero" in text
    assert "    ALREADY_ON           -4  for a CPU that is on" in text
    assert "    INVALID_ADDRESS      -9  for a bad entry" in text
    assert "entry_rule: Accept any entry point, as KVM does (Linux v3.10 arch/arm/kvm/psci.c, kvm_psci_vcpu_on" in text
    assert "truncates: no, an SMC32 call hands on whole X registers (QEMU v7.2" in text


@pytest.mark.parametrize(
    ("name", "host", "sentence"),
    [
        ("SYSTEM_RESET2", "kvm-6.12", "served at PSCI 1.1"),
        ("SYSTEM_OFF2", "spec", "served at PSCI 1.3"),
        ("CPU_FREEZE", "kvm-6.12", "not served: NOT_SUPPORTED"),
        ("SMCCC_ARCH_FEATURE_AVAILABILITY", "spec", "served at SMCCC 1.5, 1.6"),
        ("SYSTEM_SUSPEND", "kvm-6.12", "not served as it is by default: needs -cap system-suspend"),
        ("VENDOR_HYP_PTP", "spec", "not served as it is by default: needs bit 1 of VENDOR_HYP_BMAP"),
        ("MIGRATE", "spec", "not served as it is by default: see its presence"),
        ("PSCI_VERSION", "qemu-7", "served"),
    ],
)
def test_where_a_function_is_served_is_asked_of_the_host(name: str, host: str, sentence: str) -> None:
    assert f"\n  {host:<10} {sentence}" in explain(name, host)


def test_releases_that_have_the_same_to_tell_are_told_as_one() -> None:
    text = explain("SYSTEM_OFF2")

    assert "\n  kvm-3.11 to kvm-6.12 not served: NOT_SUPPORTED\n" in text
    assert "\n  kvm-6.13 to kvm-7.0 served at PSCI 1.3\n" in text


def test_a_column_that_nobody_has_a_source_for_is_told_as_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = {**HOSTS, "kvm-4.18": HOSTS["kvm-4.18"].leave_unknown("resets_in_cpu_on")}
    monkeypatch.setattr("emu.explain.host_of", hosts.__getitem__)

    assert "resets_in_cpu_on: unknown, modelled as True" in explain("CPU_ON", "kvm-4.18")


def test_a_hosts_deviation_is_told_with_its_source() -> None:
    assert "SMCCC_ARCH_FEATURES(SMCCC_VERSION) answers -1, other than dispatch does (Linux v4.19 virt/kvm/arm" in explain("SMCCC_VERSION")


@pytest.mark.parametrize(
    ("name", "host", "sentence"),
    [
        ("CPU_OM", None, "unknown function 'CPU_OM'; did you mean CPU_ON?"),
        ("cpu_om", None, "unknown function 'cpu_om'; did you mean CPU_ON?"),
        ("CPU_ON", "kvm6.13", "unknown host 'kvm6.13'; did you mean kvm-6.13?"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(name: str, host: str | None, sentence: str) -> None:
    with pytest.raises(UserError) as refused:
        explain(name, host)

    assert str(refused.value) == sentence


@pytest.mark.parametrize("row", ROWS, ids=identity)
def test_a_function_may_be_named_by_its_id_and_in_any_case(row: Function) -> None:
    text = explain(row.name)

    assert explain(row.name.lower()) == text
    assert all(explain(spelling) == text for fid in row.fids for spelling in (f"{fid:#010x}", f"{fid:#010X}"))


@pytest.mark.parametrize("text", ["0x8400dead", "0x", "2214592515", ""])
def test_an_id_nobody_knows_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=f"unknown function '{text}'"):
        explain(text)
