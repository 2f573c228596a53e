"""`probe`: one boot for all firmwares that a guest cannot tell apart before its first call, and a fork for each of them."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from emu.cli import main
from emu.machine import Machine
from emu.probe import Finding, Variant, boot, first_divergence, groups, probe
from emu.setup import Choices, Setup, make
from emu.words import parse_until
from firmware.hosts import HOSTS
from guests import catalogue, elf_path
from tests import real
from tests.emu.programs import flat

Run = Callable[..., tuple[int, str, str]]

AFTER_PROBING: Final = r"console:percpu: Embedded [^\n]*\n"
# Two of each group that has more than one.
PAIRS: Final = (
    (("kvm-3.14", "0.1"), ("kvm-7.0", "0.1")),
    (("kvm-4.15", "0.2"), ("kvm-7.0", "0.2")),
    (("kvm-4.17", "1.0"), ("qemu-7", "1.1")),
    (("firecracker", "1.3"), ("crosvm", "0.2")),
    (("crosvm", "1.0"), ("crosvm", "1.1")),
    (("tf-a", "1.1"), ("u-boot", "1.0")),
)


def variant(kernel: Path, host: str, version: str, *, smp: int = 1, until: str | None = None, insns: int = 40_000_000) -> Variant:
    setup = make(Choices(host=host, psci=version, mpidrs=tuple(range(smp))))
    point = None if until is None else parse_until(setup.config, until)
    return Variant(
        host, version, dataclasses.replace(setup, kernel=kernel, append="earlycon", until=point, max_insns=insns, no_reboot=True)
    )


def every_version(kernel: Path, hosts: list[str], smp: int) -> list[Variant]:
    return [variant(kernel, name, str(version), smp=smp) for name in hosts for version in HOSTS[name].versions]


A: Final = Finding("A", "1.0", ["x"], ["a", "b"], 1, 0, "system off")
B: Final = A._replace(host="B", psci="1.1")


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(["probe", *arguments])
        out, err = capfd.readouterr()
        return code, out, err

    return run


# ---- a fork is as good as a boot


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: " and ".join(" ".join(each) for each in pair))
def test_linux_forked_at_its_first_call_says_and_calls_what_it_does_when_booted(pair: tuple[tuple[str, str], tuple[str, str]]) -> None:
    variants = [variant(real.kernel(), host, version, until=AFTER_PROBING) for host, version in pair]
    assert len(groups(variants)) == 1

    findings = list(probe(variants, jobs=2))

    assert findings == [boot(each) for each in variants]
    assert all(f"psci: PSCIv{each.psci} detected in firmware." in each.said or each.psci == "0.1" for each in findings)


@pytest.mark.parametrize("guest", catalogue())
def test_a_guest_forked_at_its_first_call_says_and_calls_what_it_does_when_booted(guest: str) -> None:
    variants = every_version(elf_path(guest), ["spec", "kvm-4.15", "kvm-6.12", "qemu-7"], smp=4)

    findings = {(each.host, each.psci): each for each in probe(variants, jobs=2)}

    assert findings == {(each.host, each.psci): boot(each) for each in variants}


def test_linux_is_asked_about_every_firmware_there_is(command: Run) -> None:
    code, out, err = command("-kernel", str(real.kernel()), "-json", "-j", "2")

    assert (code, err) == (0, "")
    findings = [Finding(**each) for each in json.loads(out)]
    assert {finding.host for finding in findings} == set(HOSTS)
    assert {finding.code for finding in findings} == {0}
    for finding in findings:
        said = [line.removeprefix("psci: ") for line in finding.said if line.startswith("psci: ")]
        # A board's own part of U-Boot may lack PSCI_VERSION, and Linux takes the -1 for a version.
        version = "65535.65535" if finding.host == "u-boot-bare" else finding.psci
        told = "Using PSCI v0.1 Function IDs from DT" if version == "0.1" else f"PSCIv{version} detected in firmware."
        assert said[:2] == ["probing for conduit method from DT.", told]
        assert len(set(said)) == len(said)


def test_with_more_cpus_linux_is_asked_until_they_are_up(command: Run) -> None:
    code, out, err = command("-kernel", str(real.kernel()), "-hosts", "kvm-6.12,qemu-7", "-psci", "default", "-smp", "2")

    assert (code, err) == (0, "")
    assert out.count("   SMP: Total of 2 processors activated.\n") == out.count("   CPUs up: 2; ") == 2


def test_without_fork_every_firmware_has_a_boot_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    variants = every_version(elf_path("prober"), ["spec", "kvm-6.12"], smp=1)
    forked = list(probe(variants))
    monkeypatch.delattr(os, "fork")

    assert list(probe(variants)) == forked


def test_firmwares_that_look_the_same_before_the_first_call_are_booted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    variants = every_version(elf_path("prober"), ["kvm-4.17", "kvm-6.12", "qemu-7"], smp=1)
    started: list[Setup] = []
    begin = Machine.__init__

    def counted(self: Machine, setup: Setup) -> None:
        started.append(setup)
        begin(self, setup)

    monkeypatch.setattr(Machine, "__init__", counted)

    assert len(list(probe(variants))) == len(variants)
    assert len(started) == len(groups(variants)) == 2  # 0.2, and 1.0 and later


def test_a_guest_that_never_calls_does_the_same_under_every_firmware(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(flat(0x0000_0000))  # UDF: no vector to go to
    variants = [variant(image, "kvm-6.12", version) for version in ("1.0", "1.1")]

    findings = list(probe(variants))

    assert [(each.calls, each.cpus_up, each.code) for each in findings] == [([], 1, 120)] * 2
    assert findings == [boot(each) for each in variants]


# ---- the command


def test_the_command_tells_lines_calls_and_how_it_ended(command: Run) -> None:
    code, out, err = command("-kernel", str(elf_path("rendezvous")), "-hosts", "kvm-6.12,kvm-4.15", "-psci", "0.2", "-smp", "2")

    assert (code, err) == (0, "")
    assert "== kvm-6.12, PSCI 0.2\n" in out
    assert re.search(r"^   > cpu0 .*CPU_ON\(target_cpu=0x1, .*\) = SUCCESS$", out, re.MULTILINE)
    assert "   CPUs up: 2; system off" in out
    assert "\n2 firmwares, 1 boot\n" in out


def test_as_json_it_is_every_finding_whole(command: Run) -> None:
    code, out, err = command("-kernel", str(elf_path("prober")), "-hosts", "kvm-6.12", "-json")

    assert (code, err) == (0, "")
    findings = [Finding(**each) for each in json.loads(out)]
    assert [each.psci for each in findings] == ["0.1", "0.2", "1.0", "1.1"]
    assert [each.code for each in findings] == [boot(variant(elf_path("prober"), "kvm-6.12", each.psci)).code for each in findings]


def test_a_difference_is_told_at_its_first_call_and_fails_the_check(command: Run) -> None:
    code, out, err = command("-kernel", str(elf_path("prober")), "-diff", "kvm-6.12:1.0", "kvm-6.12:1.1")

    assert (code, err) == (100, "")
    assert out.startswith("call ")
    assert out.count("\n") == 1
    assert "kvm-6.12 1.0: cpu0 PSCI_VERSION() = 0x10000" in out
    assert "kvm-6.12 1.1: cpu0 PSCI_VERSION() = 0x10001" in out


def test_no_difference_is_told_too(command: Run) -> None:
    assert command("-kernel", str(elf_path("prober")), "-diff", "kvm-6.10", "kvm-6.12") == (
        0,
        "kvm-6.10 1.1 and kvm-6.12 1.1: no difference\n",
        "",
    )


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (B._replace(calls=["a", "c"]), "call 2: A 1.0: b; B 1.1: c"),
        (B._replace(calls=["a"]), "call 2: A 1.0: b; B 1.1: nothing"),
        (B._replace(said=["x", "y"]), "line 2: A 1.0: nothing; B 1.1: y"),
        (B._replace(cpus_up=2), "CPUs up: A 1.0: 1; B 1.1: 2"),
        (B, None),
    ],
)
def test_findings_part_at_a_call_a_line_or_the_cpus(other: Finding, told: str | None) -> None:
    assert first_divergence(A, other) == told


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        ((), 102, "nothing to probe with; give -kernel F"),
        (("-kernel", "no-such-file"), 103, "no-such-file cannot be read: No such file or directory"),
        (("-kernel", "F", "-hosts", "kwm-6.12"), 102, "unknown host 'kwm-6.12'; did you mean kvm-6.12?"),
        (("-kernel", "F", "-psci", "9.9"), 102, "9.9"),
        (("-kernel", "F", "-diff", "kvm-6.12:1.3", "kvm-6.12"), 102, "unknown version of kvm-6.12 '1.3'"),
        *((("-kernel", "F", "-j", jobs), 102, f"-j '{jobs}' is not a number from 1 to 64") for jobs in ("0", "-1", "65")),
        (("-kernel", "F", "-until", "call:CPU_NO#1"), 102, "CPU_NO"),
        (("-kernel", "F", "-hosts", ""), 102, "host"),
        (("-kernel", "F", "-hosts", "kvm-4.15", "-psci", "1.0"), 102, "--psci 1.0: none of the hosts offers it"),
    ],
)
def test_what_cannot_be_probed_is_refused_in_one_sentence(arguments: tuple[str, ...], code: int, sentence: str, command: Run) -> None:
    known = [str(elf_path("prober")) if each == "F" else each for each in arguments]

    returned, out, err = command(*known)

    assert (returned, out, err.count("\n")) == (code, "", 1)
    assert sentence in err
