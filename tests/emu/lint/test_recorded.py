"""A recorded run, linted."""

from __future__ import annotations

import json
import shlex
from base64 import b64encode
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emu.cli import main
from emu.lint.recorded import read_trace
from emu.outcome import ExitCode
from emu.symbols import Symbols
from firmware.errors import UserError
from guests.gallery import gallery

# The rules over one run whose guests need no firmware but a plain one.
_ONE_RUN: Final = {
    "G07": "-psci 0.2 -fault version=-1",
    "G10": "-psci 0.2",
    "G11": "-psci 0.2",
    "G14": "-host kvm-6.12",
    "G15": "-psci 1.0 -fault 'PSCI_FEATURES: NOT_SUPPORTED=INVALID_PARAMETERS'",
    "G16": "-conduit smc",
    "G27": "-fault trusted-os=cpu1",
    "G28": "-host kvm-6.12",
    "G30": "-host qemu-7",
    "G31": "-psci 1.3",
    "G34": "-host kvm-6.12",
    "G37": "-host kvm-6.12",
}


def record(path: Path, name: str, firmware: str) -> Path:
    guest = gallery()[name]
    options = shlex.split(f"{guest.machine} {firmware}")
    main(["run", "-kernel", str(guest.elf), "-serial", "none", "-max-insns", "400000", "--trace", str(path), *options])
    return path


@pytest.mark.parametrize(("name", "firmware"), _ONE_RUN.items(), ids=_ONE_RUN)
def test_a_rule_over_one_run_fires_on_a_recorded_one(name: str, firmware: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = record(tmp_path / "t", name, firmware)
    capsys.readouterr()

    assert main(["lint", "--trace", str(path), "--json"]) == ExitCode.CHECK_FAILED
    document = json.loads(capsys.readouterr().out)
    assert {finding["rule"] for finding in document["findings"]} == {gallery()[name].rule}


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("trace") / "g22.jsonl", "G22", "-host kvm-6.12")


def test_what_one_run_cannot_tell_is_named_with_the_reason(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lint", "--trace", str(trace)]) == ExitCode.CHECK_FAILED

    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "mpidr-aff0-only: target_cpu is Aff0 alone"
    assert [line for line in lines if line.startswith("not judged")] == [
        "not judged, since they compare several runs: version-exact-compare, minor-pinned, version-whitelist, version-ceiling, "
        "major-pinned, version-zero, result-signedness, result-width, compat-0.2-only, compat-0.1-required, compat-unknown, "
        "clobber-missing, clobber-1.0, on-pending, no-timeout",
        "not judged, since they compare several runs, though what one shows was looked at: smccc-unsigned",
        "not judged, since they want a run made for them: context-uninit",
    ]


def test_symbols_name_the_call_sites(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["lint", "--trace", str(trace), "-symbols", str(gallery()["G22"].elf)])
    assert "\n  at    cpu_on+0x40, CPU_ON\n" in capsys.readouterr().out


def test_a_trace_of_a_machine_without_a_psci_node_says_what_it_lacks(
    trace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, rest = trace.read_text(encoding="utf-8").split("\n", 1)
    path = tmp_path / "t"
    path.write_text(json.dumps({**json.loads(first), "device_tree": ""}) + "\n" + rest, encoding="utf-8")

    assert main(["lint", "--trace", str(path)]) == ExitCode.OK
    out = capsys.readouterr().out
    assert "not judged, since the trace's device tree has no psci node: ids-not-from-node, conduit-hardcoded, reset-missing\n" in out
    assert "not judged, since the trace's device tree has no CPUs: mpidr-aff0-only, mpidr-hardcoded\n" in out


@pytest.mark.parametrize(
    "content", [b"", b"{}\n", b"\xff\n", b"[" * 100_000, b'{"kind":"end","t":0,"code":0,"sentence":""}\n'], ids=range(5)
)
def test_what_is_no_trace_is_refused_in_one_sentence(content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "t").write_bytes(content)

    assert main(["lint", "--trace", str(tmp_path / "t")]) == ExitCode.INPUT
    err = capsys.readouterr().err
    assert err.startswith("psci-emu: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("dtb", [b"\0", b"\xd0\x0d\xfe\xed" + bytes(36), b"\xd0\x0d\xfe\xed" + b"\xff" * 100])
def test_a_trace_with_a_broken_device_tree_is_refused(dtb: bytes, trace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, rest = trace.read_text(encoding="utf-8").split("\n", 1)
    path = tmp_path / "t"
    path.write_text(json.dumps({**json.loads(first), "device_tree": b64encode(dtb).decode()}) + "\n" + rest, encoding="utf-8")

    assert main(["lint", "--trace", str(path)]) == ExitCode.INPUT
    assert "the device tree in it is not a usable device tree blob" in capsys.readouterr().err


def test_a_trace_that_was_cut_off_is_refused(trace: Path, tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_bytes(b"".join(trace.read_bytes().splitlines(keepends=True)[:-1]))

    with pytest.raises(UserError, match="has no end"):
        read_trace(path, Symbols())


def test_a_trace_of_more_calls_than_are_judged_is_refused(trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emu.lint.recorded._MOST_CALLS", 1)

    with pytest.raises(UserError, match="has more than 1 calls"):
        read_trace(trace, Symbols())


@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.integers(min_value=0), byte=st.integers(min_value=0, max_value=255), cut=st.booleans())
def test_a_trace_with_any_byte_changed_is_judged_or_refused(trace: Path, tmp_path: Path, where: int, byte: int, cut: bool) -> None:
    content = bytearray(trace.read_bytes())
    where %= len(content)
    path = tmp_path / "t"
    path.write_bytes(content[:where] if cut else content[:where] + bytes([byte]) + content[where + 1 :])

    with suppress(UserError):
        read_trace(path, Symbols())
    assert main(["lint", "--trace", str(path)]) in (ExitCode.OK, ExitCode.CHECK_FAILED, ExitCode.USAGE, ExitCode.INPUT)
