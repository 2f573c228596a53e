"""The conformance runner: recordings agree, an altered one is caught, and no file makes it fall over."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from tests.conformance import main

ROOT: Final = Path(__file__).parents[1]
VECTORS: Final = ROOT / "tests" / "vectors"

CALL: Final = {
    "op": "call",
    "cpu": 0,
    "conduit": "hvc",
    "imm": 0,
    "x": ["0x84000000", "0x1", "0x2", "0x3"],
    "ret": "resume",
    "out": ["0x10001", "0x0", "0x0", "0x0"],
    "off": [0, 1],
}
SEQUENCE: Final = {
    "title": "a title",
    "host": "6.12",
    "vcpus": 2,
    "feature_psci_0_2": True,
    "mpidr": ["0x80000000", "0x80000001"],
    "spectre_v2": 1,
    "spectre_v4": 1,
    "spectre_bhb": 1,
    "ssbs": 0,
    "cap_system_suspend": False,
}


@pytest.fixture
def vectors(tmp_path: Path) -> Callable[..., str]:
    """Write a vector file of one sequence with these steps and fields."""

    def write(*steps: dict[str, Any], **fields: Any) -> str:
        path = tmp_path / "x.jsonl.gz"
        with gzip.open(path, "wt", encoding="utf-8") as lines:
            lines.write(json.dumps({**SEQUENCE, **fields, "steps": list(steps)}) + "\n")
        return str(path)

    return write


@pytest.mark.parametrize(
    ("file", "counts"),
    [
        ("kvm-4.19-structured", "92 sequences, 14702 steps, 14702 agree"),
        ("kvm-4.19-random", "150 sequences, 11053 steps, 11053 agree"),
        ("kvm-6.12-structured", "106 sequences, 20915 steps, 20915 agree"),
        ("kvm-6.12-random", "150 sequences, 11399 steps, 11399 agree"),
    ],
)
def test_every_recorded_step_of_kvm_6_12_agrees(file: str, counts: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = VECTORS / f"{file}.jsonl.gz"

    assert main([str(path)]) == 0
    assert capsys.readouterr() == (f"{path}: {counts}\n", "")


def test_it_is_a_command(vectors: Callable[..., str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.conformance", vectors(CALL)], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("1 sequences, 1 steps, 1 agree\n")


def alter(step: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {**step, **fields}


@pytest.mark.parametrize(
    "altered",
    [
        alter(CALL, out=["0x10000", "0x0", "0x0", "0x0"]),
        alter(CALL, out=["0x10001", "0x0", "0x0", "0x3"]),
        alter(CALL, ret="exit"),
        alter(CALL, off=[0, 0]),
        alter(CALL, exit={"reason": 24, "type": 1, "flags": 0}),
        {"op": "get", "reg": "0x6030000000140000", "value": "0x10000"},
        {"op": "get", "reg": "0x6030000000140000", "errno": 2},
        {"op": "get", "reg": "0x6030000000140009", "value": "0x0"},
        {"op": "set", "reg": "0x6030000000140000", "value": "0x10001", "errno": 22},
        {"op": "set", "reg": "0x6030000000140000", "value": "0x10003", "errno": 0},
        {"op": "reg_list", "ids": ["0x6030000000140000"]},
        {"op": "enter", "cpu": 1, "reset": True, "pc": "0x0", "x0": "0x0", "pstate": "0x3c5"},
    ],
    ids=lambda step: json.dumps(step)[:90],
)
def test_an_altered_answer_is_a_difference(
    altered: dict[str, Any], vectors: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([vectors(CALL, altered, CALL)]) == 100

    out, err = capsys.readouterr()
    assert err == ""
    assert "1 sequences, 3 steps, 2 agree\n  a title: step 1 {" in out


def test_the_first_difference_of_a_sequence_is_named_once(vectors: Callable[..., str], capsys: pytest.CaptureFixture[str]) -> None:
    wrong = alter(CALL, ret="exit")

    assert main([vectors(CALL, CALL, wrong, wrong)]) == 100

    assert [line.split(" {")[0] for line in capsys.readouterr().out.splitlines()[1:]] == ["  a title: step 2"]


def test_a_difference_in_the_first_file_is_not_hidden_by_the_second(vectors: Callable[..., str], tmp_path: Path) -> None:
    good = tmp_path / "good.jsonl"
    good.write_text(json.dumps({**SEQUENCE, "steps": [CALL]}), encoding="utf-8")

    assert main([vectors(alter(CALL, ret="exit")), str(good)]) == 100
    assert main([str(good)]) == 0


STEP_CHANGES: Final[dict[str, Any]] = {
    "no op": {"cpu": 0},
    "an unknown op": alter(CALL, op="reboot"),
    "an op that is a number": alter(CALL, op=5),
    "an op that names a method of Python": alter(CALL, op="_class__"),
    "no such vCPU": {"op": "enter", "cpu": 9, "reset": False},
    "a vCPU that is a word": {"op": "enter", "cpu": "one", "reset": False},
    "three registers": alter(CALL, x=["0x0", "0x0", "0x0"]),
    "registers that are no numbers": alter(CALL, x=["zero", "0x0", "0x0", "0x0"]),
    "an unknown conduit": alter(CALL, conduit="svc"),
    "a register ID that is a number": {"op": "get", "reg": 5, "value": "0x0"},
}


@pytest.mark.parametrize("step", STEP_CHANGES.values(), ids=STEP_CHANGES)
def test_a_step_of_another_shape_is_a_bad_file(
    step: dict[str, Any], vectors: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = vectors(step)

    assert main([path]) == 103
    assert_one_sentence(capsys, f"{path}: sequence 1 is not in the vectors' format")


@pytest.mark.parametrize(
    "fields",
    [
        {"mpidr": []},
        {"mpidr": ["x"]},
        {"mpidr": 5},
        {"spectre_v2": 7},
        {"spectre_v2": "mitigated"},
        {"vcpus": "two"},
        {"vcpus": 9, "title": None},
    ],
    ids=str,
)
def test_a_sequence_of_another_shape_is_a_bad_file(
    fields: dict[str, Any], vectors: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([vectors(CALL, **fields)]) == 103
    assert_one_sentence(capsys, "is not in the vectors' format")


def truncated() -> bytes:
    return gzip.compress(json.dumps(SEQUENCE).encode())[:-12]


CONTENTS: Final[dict[str, tuple[str, bytes]]] = {
    "not gzip": ("x.gz", b"plainly not"),
    "empty gzip member": ("x.gz", b"\x1f\x8b"),
    "truncated gzip": ("x.gz", truncated()),
    "damaged gzip": ("x.gz", bytes((*truncated()[:20], 0xFF, 0xFF, 0xFF, *truncated()[23:]))),
    "not JSON": ("x.gz", gzip.compress(b"{]\n")),
    "not UTF-8": ("x.jsonl", b"\xff\xfe\n"),
    "a list": ("x.jsonl", b"[1, 2]\n"),
    "a number": ("x.jsonl", b"5\n"),
    "null": ("x.jsonl", b"null\n"),
    "an empty object": ("x.jsonl", b"{}\n"),
    "an empty line": ("x.jsonl", b"\n"),
    "a number too long to read": ("x.jsonl", b"1" * 5000 + b"\n"),
}


@pytest.mark.parametrize(("name", "content"), CONTENTS.values(), ids=CONTENTS)
def test_a_file_that_holds_no_vectors_is_refused_in_one_sentence(
    name: str, content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    path.write_bytes(content)

    assert main([str(path)]) == 103
    assert_one_sentence(capsys, str(path))


def test_json_that_is_nested_too_deep_is_refused_in_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"[" * 100_000)

    assert main([str(path)]) == 103
    assert_one_sentence(capsys, str(path))


@pytest.mark.parametrize("name", ["missing.jsonl.gz", "missing.jsonl", "."])
def test_a_path_that_cannot_be_read_is_refused_in_one_sentence(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / name)]) == 103
    assert_one_sentence(capsys, str(tmp_path))


@pytest.mark.parametrize(
    ("host", "sentence"),
    [("9.99", "host 'kvm-9.99' is not known; KVM/arm64 is known from kvm-3.11 to kvm-7.0"), ("", "unknown host 'kvm-'; did you mean")],
)
def test_a_release_that_is_not_modelled_is_refused(
    host: str, sentence: str, vectors: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([vectors(CALL, host=host)]) == 102
    assert_one_sentence(capsys, sentence)


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--strict", "x.gz"], ["x.gz", "-v"]], ids=str)
def test_a_wrong_call_gets_the_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 102
    assert_one_sentence(capsys, "usage: python -m tests.conformance FILE...")


def assert_one_sentence(capsys: pytest.CaptureFixture[str], part: str) -> None:
    out, err = capsys.readouterr()
    assert out == ""
    assert part in err
    assert err.count("\n") == 1
    assert "Traceback" not in err
