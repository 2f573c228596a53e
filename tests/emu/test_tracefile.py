"""A run as data, and its replay."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emu.cli import main
from emu.outcome import ExitCode
from emu.replay import Replay
from firmware.errors import UserError
from guests import elf_path


def record(path: Path, guest: str = "race", *options: str) -> bytes:
    code = main(["run", "-kernel", str(elf_path(guest)), "-smp", "5", "-serial", "none", "--trace", str(path), *options])
    assert code == 0
    return path.read_bytes()


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trace") / "race.jsonl"
    record(path, "race", "-psci", "0.2@call:CPU_ON#2")
    return path


def test_two_runs_write_the_same_bytes(tmp_path: Path) -> None:
    assert record(tmp_path / "a", "race", "-seed", "3") == record(tmp_path / "b", "race", "-seed", "3")
    assert record(tmp_path / "c", "race", "-seed", "4") != record(tmp_path / "a", "race", "-seed", "3")


@pytest.mark.parametrize("host", ["spec", "kvm-6.12", "qemu-7"])
@pytest.mark.parametrize("guest", ["prober", "off-on-again", "system-suspend", "suspend-powerdown", "reset", "trng"])
def test_a_replay_on_the_same_host_has_no_difference(tmp_path: Path, guest: str, host: str) -> None:
    record(tmp_path / "t", guest, "-host", host, "-max-insns", "20000000")
    replay = Replay(tmp_path / "t")

    assert list(replay.differences()) == []
    assert replay.events


def test_a_run_whose_version_changes_replays(trace: Path, tmp_path: Path) -> None:
    assert list(Replay(trace).differences()) == []
    record(tmp_path / "t", "version-loop", "-psci", "0.2@call:PSCI_VERSION#2")  # the very call the change comes after
    assert list(Replay(tmp_path / "t").differences()) == []


def test_a_trace_that_was_cut_off_is_refused(trace: Path, tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_bytes(b"".join(trace.read_bytes().splitlines(keepends=True)[:-1]))

    with pytest.raises(UserError, match="has no end"):
        list(Replay(path).differences())


def test_the_first_line_says_what_the_firmware_was_and_the_last_how_it_ended(trace: Path) -> None:
    lines = [json.loads(line) for line in trace.read_text(encoding="utf-8").splitlines()]

    assert (lines[0]["kind"], lines[0]["schema"], lines[0]["host"], lines[0]["version"]) == ("header", 1, "spec", [1, 3])
    assert (lines[-1]["kind"], lines[-1]["code"]) == ("end", 0)
    assert {line["kind"] for line in lines} == {"header", "call", "event", "register", "machine", "console", "end"}
    assert "".join(line["text"] for line in lines if line["kind"] == "console").endswith("context_id\n")


def test_one_altered_answer_is_exactly_the_difference_that_is_reported(
    trace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = trace.read_text(encoding="utf-8").splitlines()
    (number,) = [number for number, line in enumerate(lines, start=1) if '"SYSTEM_OFF"' in line]
    altered = json.loads(lines[number - 1])
    altered["reply"]["regs"] = {"x0": "0x7"}
    lines[number - 1] = json.dumps(altered)
    path = tmp_path / "altered"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")

    assert [difference.number for difference in Replay(path).differences()] == [number]
    assert main(["replay", str(path)]) == ExitCode.CHECK_FAILED
    assert capsys.readouterr().out.startswith(f"line {number}: cpu0 hvc SYSTEM_OFF(")


def test_another_host_answers_otherwise_where_it_does(trace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record(tmp_path / "kvm", "version-loop", "-host", "kvm-6.12")

    assert main(["replay", str(tmp_path / "kvm"), "-host", "kvm-6.12"]) == ExitCode.OK
    assert main(["replay", str(tmp_path / "kvm"), "-host", "spec"]) == ExitCode.CHECK_FAILED
    assert main(["replay", str(trace), "-host", "qemu-7"]) == ExitCode.CHECK_FAILED
    out = capsys.readouterr().out
    assert "no difference" in out
    assert "host qemu-7 has no version register" in out


def test_a_host_of_the_users_own_that_has_changed_is_told_and_can_be_asked_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine, path = tmp_path / "mine.toml", tmp_path / "trace"
    mine.write_text('based-on = "kvm-6.12"\n', encoding="utf-8")
    record(path, "version-loop", "-host", str(mine))
    assert main(["replay", str(path)]) == ExitCode.OK
    capsys.readouterr()

    mine.write_text('based-on = "kvm-6.12"\nserves = { remove = ["SMCCC_ARCH_FEATURES"] }\n', encoding="utf-8")

    assert main(["replay", str(path)]) == ExitCode.INPUT
    out, err = capsys.readouterr()
    told = f"{path}: host {mine} is no longer what it was when this was recorded; -host {mine} asks it as it is now"
    assert (out, err) == ("", f"psci-emu: {told}\n")
    assert main(["replay", str(path), "-host", str(mine)]) == ExitCode.CHECK_FAILED
    assert "SMCCC_ARCH_FEATURES" in capsys.readouterr().out


def test_a_trace_that_does_not_say_what_its_host_was_is_played(trace: Path, tmp_path: Path) -> None:
    first, rest = trace.read_text(encoding="utf-8").split("\n", 1)
    header = json.loads(first)
    del header["host_is"]
    path = tmp_path / "earlier"
    path.write_text(json.dumps(header) + "\n" + rest, encoding="utf-8")

    assert list(Replay(path).differences()) == []


def test_an_unknown_host_is_refused(trace: Path) -> None:
    with pytest.raises(UserError, match="unknown host"):
        Replay(trace, "kvm-6")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}\n",
        b"\xff\n",
        b"[" * 100_000,
        b'{"kind":"end","t":0,"code":0,"sentence":""}\n',
        b'{"kind":"header","schema":1}\n',
    ],
    ids=range(6),
)
def test_what_is_no_trace_is_refused_in_one_sentence(content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "t"
    path.write_bytes(content)

    assert main(["replay", str(path)]) == ExitCode.INPUT
    err = capsys.readouterr().err
    assert err.startswith("psci-emu: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("schema", 2),
        ("host", "kvm-0"),
        ("mpidrs", ["0x0", "0x0"]),
        ("mpidrs", []),
        ("mitigations", [["mild", "mitigated", "mitigated", False]]),
        ("device_tree", "!"),
        ("conduits", ["trap"]),
        ("surprise", 1),
        ("host_is", "another"),
        ("version", [1]),
    ],
)
def test_a_header_that_means_nothing_is_refused(field: str, value: object, trace: Path, tmp_path: Path) -> None:
    first, rest = trace.read_text(encoding="utf-8").split("\n", 1)
    path = tmp_path / "t"
    path.write_text(json.dumps({**json.loads(first), field: value}) + "\n" + rest, encoding="utf-8")

    with pytest.raises(UserError):
        list(Replay(path).differences())


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.integers(min_value=0), byte=st.integers(min_value=0, max_value=255), cut=st.booleans())
def test_a_trace_with_any_byte_changed_is_played_or_refused(trace: Path, tmp_path: Path, where: int, byte: int, cut: bool) -> None:
    content = bytearray(trace.read_bytes())
    where %= len(content)
    path = tmp_path / "t"
    path.write_bytes(content[:where] if cut else content[:where] + bytes([byte]) + content[where + 1 :])

    with suppress(UserError):
        list(Replay(path).differences())
