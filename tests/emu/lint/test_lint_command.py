"""`psci-emu lint`: what it prints, how it ends, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest

from emu.cli import main
from emu.lint.rules import RULES
from emu.outcome import ExitCode
from guests import elf_path
from guests.gallery import gallery

G05: Final = str(gallery()["G05"].elf)
G29: Final = str(gallery()["G29"].elf)
G37: Final = str(gallery()["G37"].elf)
LINES: Final = str(Path(__file__).parents[2] / "images" / "bin" / "lines.elf")
# Enough for them, and soon over for those that never end.
LIMIT: Final = ("-max-insns", "400000")


def _document(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    main(["lint", *arguments])
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


# ---- text


def test_a_finding_is_told_with_its_place_its_reason_and_the_calls(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lint", "-kernel", G05, "-host", "kvm-6.13", *LIMIT]) == ExitCode.CHECK_FAILED

    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "version-ceiling: newer versions are refused"
    assert lines[1] == "  at    offered_version+0x38, PSCI_VERSION"
    assert lines[2] == "  how   fine up to 1.1 and not with 1.2: the guest ended with exit code 1, 1 CPU up"
    assert lines[4:7] == [
        "  see   DEN 0022, PSCI_VERSION",
        "  on    -host kvm-6.13 -psci 1.2",
        "  calls cpu0 hvc offered_version+0x38: PSCI_VERSION() = 0x10002 (1.2)",
    ]
    assert lines[-1].endswith(f", {len(RULES)} rules: 1 finding")


def test_a_guest_without_a_mistake_ends_with_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lint", "-kernel", str(elf_path("version-loop")), "-host", "kvm-6.12"]) == ExitCode.OK
    assert capsys.readouterr().out.endswith(" rules: no findings\n")


def test_what_is_for_information_is_told_and_ends_with_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lint", "-kernel", G29, "-host", "kvm-6.12", *LIMIT]) == ExitCode.OK
    assert capsys.readouterr().out.startswith("cpu-off-arg: CPU_OFF has an argument (for information)\n")


def test_a_disabled_rule_does_not_fire(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["lint", "-kernel", G05, "-host", "kvm-6.13", "--disable", "version-ceiling", "--disable", "off2-type", *LIMIT]

    assert main(arguments) == ExitCode.OK
    assert capsys.readouterr().out.endswith(f", {len(RULES) - 2} rules: no findings\n")


def test_a_file_and_a_line_are_told_where_dwarf_has_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lint", "-kernel", LINES, "-host", "kvm-6.12", *LIMIT]) == ExitCode.CHECK_FAILED
    assert "  at    _start+0x10, lines.c:7, SYSTEM_SUSPEND\n" in capsys.readouterr().out


def test_a_guest_that_calls_nothing_is_told_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "flat").write_bytes(bytes(4096))

    assert main(["lint", "-kernel", str(tmp_path / "flat"), *LIMIT]) == ExitCode.OK
    assert capsys.readouterr().out.splitlines()[-1].startswith("the guest made no call: guest crash: ")


def test_a_finding_without_a_call_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lint", "-kernel", G37, "-host", "kvm-6.12", *LIMIT]) == ExitCode.CHECK_FAILED
    assert "  at    no call at all\n" in capsys.readouterr().out


def test_two_runs_print_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    printed = []
    for _ in range(2):
        main(["lint", "-kernel", LINES, "--json", *LIMIT])
        printed.append(capsys.readouterr().out)

    assert printed[0] == printed[1]


# ---- JSON and SARIF


def test_json_has_every_run_and_every_finding_once(capsys: pytest.CaptureFixture[str]) -> None:
    document = _document(capsys, "-kernel", LINES, "--json", *LIMIT)

    firmware = [run["firmware"] for run in document["runs"]]
    assert len(set(firmware)) == len(firmware)
    assert {"-host spec -psci 1.3", "-host tf-a", "-host spec -psci 1.3 -fault version=-1"} <= set(firmware)
    places = [(finding["rule"], finding["address"]) for finding in document["findings"]]
    assert len(set(places)) == len(places)
    (finding,) = [each for each in document["findings"] if each["rule"] == "optional-without-features"]
    assert (finding["file"], finding["line"], finding["symbol"], finding["address"]) == ("lines.c", 7, "_start+0x10", "0x40200010")
    assert finding["firmware"][0] == "-host spec -psci 1.3"
    assert len(finding["firmware"]) > 5
    assert finding["calls"][-1].startswith("cpu0 hvc _start+0x10: SYSTEM_SUSPEND(")


def test_sarif_has_what_2_1_0_requires(capsys: pytest.CaptureFixture[str]) -> None:
    log = _document(capsys, "-kernel", LINES, "-host", "kvm-6.12", "--sarif", *LIMIT)

    assert (log["version"], log["$schema"]) == ("2.1.0", "https://json.schemastore.org/sarif-2.1.0.json")
    (run,) = log["runs"]
    driver = run["tool"]["driver"]
    assert driver["name"] == "psci-emu"
    assert [rule["id"] for rule in driver["rules"]] == [rule.id for rule in RULES]
    for rule in driver["rules"]:
        assert set(rule) == {"id", "shortDescription", "fullDescription", "help", "defaultConfiguration"}
        assert all(rule[name]["text"] for name in ("shortDescription", "fullDescription", "help"))
        assert rule["defaultConfiguration"]["level"] in ("error", "note")
    assert run["results"]
    for result in run["results"]:
        assert driver["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["level"] in ("error", "note")
        assert result["message"]["text"]
        for location in result["locations"]:
            physical = location["physicalLocation"]
            assert physical["artifactLocation"]["uri"]
            assert physical["region"]["startLine"] >= 1
            assert physical["address"]["absoluteAddress"] >= 0
        for flow in result["codeFlows"]:
            assert all(step["location"]["message"]["text"] for thread in flow["threadFlows"] for step in thread["locations"])


def test_sarif_places_a_finding_without_dwarf_in_the_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = tmp_path / "my guest.elf"
    image.write_bytes(Path(G37).read_bytes())

    log = _document(capsys, "-kernel", str(image), "-host", "kvm-6.12", "--sarif", *LIMIT)

    (result,) = log["runs"][0]["results"]
    (location,) = result["locations"]
    assert location["physicalLocation"]["artifactLocation"]["uri"] == str(image).replace(" ", "%20")
    assert location["message"]["text"] == "no call at all"


# ---- which firmware


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["-host", "qemu-7"], ["-host qemu-7"]),
        (["-host", "qemu-7,kvm-6.12"], ["-host qemu-7", "-host kvm-6.12"]),
        (["-host", "kvm-6.12", "-psci", "0.2"], ["-host kvm-6.12 -psci 0.2"]),
        (["-psci", "0.2"], ["-host spec -psci 0.2", "-host kvm-4.15 -psci 0.2", "-host kvm-6.12 -psci 0.2"]),
        (["-host", "spec", "-conduit", "smc"], ["-host spec -conduit smc"]),
        (["-host", "kvm-6.12", "-cap", "system-suspend"], ["-host kvm-6.12 -cap system-suspend"]),
    ],
)
def test_options_narrow_the_firmware(options: list[str], expected: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    document = _document(capsys, "-kernel", G37, "--json", *options, *LIMIT)

    plain = [run["firmware"] for run in document["runs"] if ", and the psci node has" not in run["firmware"]]
    assert plain == expected


def test_broken_firmware_is_run_where_it_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    def firmware(*options: str) -> set[str]:
        return {run["firmware"] for run in _document(capsys, "-kernel", G05, "-host", "spec", "--json", *options, *LIMIT)["runs"]}

    assert "-host spec -fault version=2.0" not in firmware()
    assert firmware("--broken") - firmware() >= {"-host spec -fault version=2.0", "-host spec -fault version=0.0"}


def test_a_fault_of_the_user_s_is_compared_with_none(capsys: pytest.CaptureFixture[str]) -> None:
    g36 = str(gallery()["G36"].elf)
    document = _document(capsys, "-kernel", g36, "-host", "spec", "-fault", "CPU_ON: drop", "--json", *LIMIT)

    assert {"-host spec", "-host spec -fault 'CPU_ON: drop'"} <= {run["firmware"] for run in document["runs"]}
    assert [finding["rule"] for finding in document["findings"]] == ["no-timeout"]


# ---- refusals


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        ([], ExitCode.USAGE, "nothing to lint; give -kernel F, or --trace F for a recorded run"),
        (["-kernel", "/nonexistent"], ExitCode.INPUT, "/nonexistent"),
        (["-kernel", G05, "-host", "kvm-6"], ExitCode.USAGE, "unknown host 'kvm-6'"),
        (["-kernel", G05, "-psci", "7"], ExitCode.USAGE, "unknown PSCI version '7'"),
        (["-kernel", G05, "-psci", "none"], ExitCode.USAGE, "-psci none: without firmware"),
        (["-kernel", G05, "-max-insns", "0"], ExitCode.USAGE, "--max-insns"),
        (["-kernel", G05, "--until", "call:CPU_UN"], ExitCode.USAGE, "did you mean CPU_ON"),
        (["-kernel", G05, "-fault", "CPU_ON: frop"], ExitCode.USAGE, "fault 'CPU_ON: frop'"),
        (["-kernel", G05, "--json", "--sarif"], ExitCode.USAGE, "not allowed with"),
        (["-kernel", G05, "-symbols", LINES + "x"], ExitCode.INPUT, "lines.elfx"),
        (["--trace", "/nonexistent"], ExitCode.INPUT, "/nonexistent"),
        (["--trace", LINES, "-host", "spec"], ExitCode.USAGE, "--trace F is a run that has been: -host is for one to come"),
        (["--trace", LINES, "--broken"], ExitCode.USAGE, "-broken is for one to come"),
        (["-kernal", G05], ExitCode.USAGE, "did you mean -kernel?"),
    ],
    ids=lambda value: " ".join(Path(word).name for word in value) if isinstance(value, list) else None,
)
def test_a_refusal_is_one_sentence(arguments: list[str], code: int, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lint", *arguments]) == code

    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("psci-emu: ")
    assert sentence in captured.err
    assert captured.err.count("\n") == 1
