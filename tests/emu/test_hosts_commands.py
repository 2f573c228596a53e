"""`hosts show` and `hosts diff`: everything is told, and what differs is found by asking."""

from __future__ import annotations

from pathlib import Path

import pytest

from emu.cli import main
from emu.hostdiff import Row, differences
from emu.hostpage import columns, tell
from firmware.hosts import HOSTS, host_named


@pytest.mark.parametrize("host", HOSTS)
def test_a_host_differs_in_nothing_from_itself(host: str) -> None:
    renamed = HOSTS[host].evolve(name="other", cite="a test")

    assert differences(HOSTS[host], renamed) == ()


def test_the_differences_are_told_with_both_answers_and_where() -> None:
    kvm_5_3, kvm_5_5 = host_named("kvm-5.3"), host_named("kvm-5.5")

    found = differences(kvm_5_3, kvm_5_5)

    where = "PSCI 0.1, 0.2, 1.0 by HVC"
    assert found[-1] == Row("PV_TIME_ST, SMC64", "NOT_SUPPORTED, x1=0x0 x2=0x0 x3=0x0", "0x9000000, x1=0x0 x2=0x0 x3=0x0", where)
    assert differences(kvm_5_5, kvm_5_3) == tuple(Row(row.asked, row.second, row.first, row.places) for row in found)


@pytest.mark.parametrize(
    ("column", "change", "asked"),
    [
        ("reset_ends", True, "after a reset"),
        ("trusted_os", None, "MIGRATE_INFO_TYPE"),
        ("passes_context_id", False, "CPU_ON, SMC64"),
        ("result_registers", 4, "PSCI_VERSION"),
        ("immediates", {}, "PSCI_VERSION, immediate 1"),
        ("default_conduit", None, "psci node, method"),
    ],
)
def test_a_column_that_a_guest_can_notice_is_noticed(column: str, change: object, asked: str) -> None:
    first = host_named({"trusted_os": "tf-a-tos", "immediates": "xen"}.get(column, "tf-a"))
    if column == "default_conduit":
        change = host_named("xen").default_conduit
    second = first.evolve(**{column: change}, cite="a test")

    assert asked in [row.asked.partition(" [")[0] for row in differences(first, second)]


def test_a_difference_is_no_failure_unless_it_is_checked(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["hosts", "diff", "qemu-6", "qemu-7"]) == 0
    assert main(["hosts", "diff", "qemu-6", "qemu-7", "--check"]) == 100
    assert main(["hosts", "diff", "xen", "xen", "--check"]) == 0

    out = capfd.readouterr().out
    assert out.splitlines()[0].split() == ["asked", "qemu-6", "qemu-7", "at"]
    assert out.splitlines()[-1] == "xen and xen answer every question alike"


@pytest.mark.parametrize("host", [*HOSTS, "kvm-5.4"])
def test_a_host_is_shown_with_every_column_its_value_and_its_source(capfd: pytest.CaptureFixture[str], host: str) -> None:
    assert main(["hosts", "show", host]) == 0

    out, err = capfd.readouterr()
    shown = {line.split()[0] for line in out.split("\ncolumn ")[1].splitlines()[1:] if not line.startswith(" ")}
    assert out.startswith(f"{host}: ")
    assert shown == {column.replace("_", "-") for column in columns()}
    assert err == ""


def test_what_is_unknown_is_shown_as_unknown(capfd: pytest.CaptureFixture[str]) -> None:
    main(["hosts", "show", "bao"])

    lines = [line.split() for line in capfd.readouterr().out.splitlines() if line.startswith("node-compatible")]
    assert lines == [["node-compatible", "unknown", "(as", "if", "qemu_node_compatible)", "unknown"]]


def unknown_of(host: str, columns: str) -> str:
    return f"psci-emu: of host {host} it is unknown: {columns}; the guest gets what the host has before it\n"


def test_whatever_starts_a_machine_says_what_of_its_host_is_unknown(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    guest, of_bao = ("-kernel", "guests/elf/version-loop.elf"), unknown_of("bao", "default_conduit, node_compatible")
    kept = str(tmp_path / "kept")

    main(["run", "-host", "bao", *guest])
    assert capfd.readouterr().err.startswith(of_bao)
    main(["snapshot", "save", kept, "-host", "bao", *guest, "-at", "call:PSCI_VERSION#1"])
    assert capfd.readouterr().err.startswith(of_bao)
    main(["snapshot", "load", kept])
    assert capfd.readouterr().err.startswith(of_bao)


@pytest.mark.parametrize(("to", "also"), [("kvm-4.9.99", True), ("kvm-4.14.39", False), ("kvm-4.17", False)])
def test_a_move_says_it_of_both_hosts_and_of_one_host_once(to: str, also: bool, capfd: pytest.CaptureFixture[str]) -> None:
    guest = ("-kernel", "guests/elf/version-loop.elf", "-append", "rounds=3", "-at", "call:PSCI_VERSION#1")

    assert main(["migrate", "-from", "kvm-4.14.39", "-to", to, *guest]) == 0

    said = unknown_of("kvm-4.14.39", "undispatched")
    assert capfd.readouterr().err == said + (unknown_of(to, "undispatched") if also else "")


def test_a_stable_release_is_shown_with_what_it_took_over(capfd: pytest.CaptureFixture[str]) -> None:
    main(["hosts", "show", "kvm-4.16.7"])

    out = capfd.readouterr().out
    assert "backported" in out
    assert "in kvm-4.16 " in out
    assert main(["hosts", "show", "kvm-4.17"]) == 0
    assert "backported" not in capfd.readouterr().out


@pytest.mark.parametrize("arguments", [("show",), ("diff", "xen"), ("show", "xenn"), ("diff", "xen", "xenn"), ("show", "nope.toml")])
def test_what_cannot_be_shown_is_one_sentence(capfd: pytest.CaptureFixture[str], arguments: tuple[str, ...]) -> None:
    assert main(["hosts", *arguments]) in (102, 103)

    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1


def test_what_smc_gets_from_a_stable_release_is_told_only_where_it_was_read(capfd: pytest.CaptureFixture[str]) -> None:
    unread = HOSTS["kvm-4.17"].evolve(name="unread", cite="a test").leave_unknown("undispatched")

    tell(unread)

    line = next(line for line in capfd.readouterr().out.splitlines() if line.startswith("PSCI_VERSION  "))
    assert line.split("x3=0x0")[1].strip() == "unknown (as if NOT_SUPPORTED)"
