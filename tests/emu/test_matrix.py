"""The matrix and the commands around it: cells, classes, live moves, policies of the user's own, the demos of the mail."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emu.cli import main
from emu.livemove import check
from emu.matrix import Case, Matrix, cases, class_of, guests_of
from emu.policyfile import policy_of, read_policy
from firmware.abi import Version
from firmware.errors import InputError
from firmware.host import Mitigations
from firmware.hosts import HOSTS
from firmware.policy import POLICIES, Asks, MachineType, Missing, Unknown, Withheld

SAME: Final = (Mitigations(), Mitigations())
KVM: Final = [name for name in HOSTS if name.startswith("kvm-")]


def symbol(source: str, destination: str, guest: str = "default", policy: str = "pseudo-register") -> str:
    return Matrix().answer(Case(source, destination, guest, policy, *SAME)).symbol


@pytest.mark.parametrize(
    ("source", "destination", "guest", "policy", "expected"),
    [
        # (1) of the mail: the version changes silently.
        ("kvm-4.15", "kvm-4.16", "default", "do-nothing", "v"),
        ("kvm-4.15", "kvm-4.17", "default", "pseudo-register", "v"),
        # (2): the mitigation is lost silently; with the register the move is refused.
        ("kvm-4.16", "kvm-4.15", "default", "do-nothing", "b"),
        ("kvm-4.17", "kvm-4.15", "default", "pseudo-register", "x"),
        # (3): a guest set to 0.2 keeps it, and an old host takes it where the VMM keeps the register back.
        ("kvm-4.17", "kvm-7.0", "0.2", "pseudo-register", "="),
        ("kvm-4.17", "kvm-4.15", "0.2", "pseudo-register", "x"),
        ("kvm-4.17", "kvm-4.15", "0.2", "filter-0.2", "="),
        # Maydell's: old guests stay at 0.2 everywhere that has the register, new ones are refused where it is not known.
        ("kvm-4.15", "kvm-4.17", "virt-2.11", "straightforward", "="),
        ("kvm-4.17", "kvm-4.15", "virt-2.11", "straightforward", "="),
        ("kvm-4.17", "kvm-4.15", "virt-2.12", "straightforward", "c"),
        ("kvm-4.15", "kvm-4.17", "virt-2.12", "straightforward", "."),
        # QEMU: a list that the destination does not know fails; the version is on both command lines since 11.
        ("kvm-6.15", "kvm-6.12", "default", "qemu-10", "x"),
        ("kvm-6.15", "kvm-6.14", "virt-11.0", "qemu-11", "x"),
        ("kvm-6.15", "kvm-6.14", "virt-10.1", "qemu-11", "="),
        ("kvm-6.13", "kvm-6.12", "1.1", "qemu-11", "="),
        ("kvm-6.13", "kvm-6.12", "1.3", "qemu-11", "c"),
        ("kvm-3.16", "kvm-4.17", "1.0", "pseudo-register", "."),
    ],
)
def test_a_cell_is_what_the_thread_asked_for(source: str, destination: str, guest: str, policy: str, expected: str) -> None:
    assert symbol(source, destination, guest, policy) == expected


@pytest.mark.parametrize("policy", POLICIES)
def test_every_class_of_all_kvm_releases_goes_live_as_it_was_worked_out(policy: str) -> None:
    work = Matrix()
    classes: dict[object, Case] = {}
    for case in cases(KVM, KVM, [policy], None, SAME):
        answer = work.answer(case)
        if answer.migration is not None:
            classes.setdefault(class_of(answer), case)

    assert len(classes) > 30
    assert {case: wrong for case in list(classes.values())[::7] if (wrong := check(case))} == {}


def test_cells_of_one_class_have_the_same_symbol() -> None:
    work = Matrix()
    symbols: dict[object, set[str]] = {}
    for case in cases(KVM, KVM, list(POLICIES), None, SAME):
        answer = work.answer(case)
        if answer.migration is not None:
            symbols.setdefault(class_of(answer), set()).add(answer.symbol)

    assert all(len(found) == 1 for found in symbols.values())


def test_what_a_policy_can_tell_apart_is_what_its_users_may_ask_for() -> None:
    assert guests_of(POLICIES["do-nothing"]) == ("default", "0.1")
    assert guests_of(POLICIES["straightforward"]) == ("virt-2.12", "virt-2.11", "0.1")
    assert guests_of(POLICIES["pseudo-register"]) == ("default", "0.1", "0.2", "1.0", "1.1", "1.2", "1.3")


# ---- the command


def test_it_prints_a_legend_the_grid_and_how_many_classes_were_moved(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["matrix", "-sources", "kvm-4.15,kvm-4.16,kvm-4.17", "-guests", "default", "-j", "1"]) == 0
    out, err = capfd.readouterr()

    assert err == ""
    assert out.startswith("=  moved, and the guest sees the version and the mitigations it had\n")
    assert "policy pseudo-register, guest default\n" in out
    assert re.search(r"^kvm-4\.16 +b +=  +=$", out, re.MULTILINE)
    assert out.endswith("9 cells in 8 classes; a guest was moved live for each class: all as the table says\n")


def test_two_processes_find_what_one_finds(capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ["matrix", "-sources", "kvm-4.16,kvm-6.12,kvm-7.0", "-policy", "all"]

    outputs = []
    for jobs in ("1", "2"):
        assert main([*arguments, "-j", jobs]) == 0
        outputs.append(capfd.readouterr())
    assert outputs[0] == outputs[1]


def test_json_has_every_cell_whole(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["matrix", "-sources", "kvm-6.13", "-destinations", "kvm-6.12", "-guests", "default", "-json", "-no-live"]) == 0
    (cell,) = json.loads(capfd.readouterr().out)["cells"]

    assert (cell["source"], cell["destination"], cell["outcome"]) == ("kvm-6.13", "kvm-6.12", "x")
    assert cell["registers"][0]["register"] == "PSCI_VERSION"
    assert cell["registers"][0]["errno"] == "EINVAL"
    assert (cell["version_before"], cell["version_after"]) == ("1.3", None)


@pytest.mark.parametrize(
    ("sources", "guest", "said"),
    [
        ("kvm-6.12", "1.3", "1 cell in 0 classes; no guest was there to move live: "),
        ("kvm-6.12", "default", "1 cell in 1 class; a guest was moved live for it: "),
        ("kvm-4.15,kvm-4.16", "default", "4 cells in 4 classes; a guest was moved live for each class: "),
    ],
)
def test_cells_and_classes_are_counted_in_good_english(sources: str, guest: str, said: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["matrix", "-sources", sources, "-guests", guest, "-policy", "pseudo-register", "-j", "1"]) == 0

    assert capfd.readouterr().out.splitlines()[-1] == f"{said}all as the table says"


def test_markdown_is_made_of_tables(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["matrix", "-sources", "kvm-6.12", "-guests", "default,1.0", "-markdown", "-no-live"]) == 0
    out = capfd.readouterr().out

    assert "### Policy `pseudo-register`, guest 1.0\n\n| from \\ to | kvm-6.12 |\n|---|---|\n| kvm-6.12 | `=` |\n" in out


def test_a_pair_is_explained_register_by_register_with_the_rules_source(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["matrix", "-explain", "kvm-6.13", "kvm-6.12"]) == 0
    out = capfd.readouterr().out

    assert out.startswith("kvm-6.13 to kvm-6.12, guest default, policy pseudo-register: what was merged")
    assert re.search(r"PSCI_VERSION +0x10003 +sent +\[1\] +EINVAL", out)
    rules = {"PSCI_VERSION": "512865d83fd9", "WORKAROUND_1": "99adb567632b", "WORKAROUND_3": "a5905d6af492", "STD_BMAP": "05714cab7d63"}
    for register, commit in rules.items():
        rule = re.search(rf"{register} .* sent +\[(\d)\] ", out)
        assert rule is not None, register
        assert re.search(rf"^\[{rule[1]}\] Linux commit {commit} ", out, re.MULTILINE)
    assert all(len(line) <= 80 for line in out.splitlines() if line.endswith(" accepted") or re.match(r"\[\d\]|    ", line))
    assert "refused: PSCI_VERSION EINVAL" in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("-sources", "kvm-9.99"), "host 'kvm-9.99' is not known"),
        (("-policy", "none"), "unknown policy 'none'"),
        (("-guests", "1.7"), "unknown guest version '1.7'"),
        *((("-j", jobs), f"-j '{jobs}' is not a number from 1 to 256") for jobs in ("0", "-1", "257", "two")),
        (("-source-cpu", "slow"), "unknown CPU property 'slow'"),
        (("-explain", "kvm-6.12"), "-explain needs 2 values"),
        (("-json", "-markdown"), "not allowed with argument"),
        (("-explain", "kvm-6.12", "kvm-6.13", "-json"), "--explain is about one pair, and in words: it does not go with --json"),
        (("-explain", "kvm-6.12", "kvm-6.13", "-sources", "xen"), "it does not go with --sources"),
    ],
)
def test_a_wrong_word_is_refused_in_one_sentence(arguments: tuple[str, ...], sentence: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["matrix", *arguments]) == 102
    out, err = capfd.readouterr()

    assert (out, err.count("\n")) == ("", 1)
    assert sentence in err


# ---- policies of the user's own

MINE: Final = """
name = "mine"
based-on = "pseudo-register"
summary = "for a test"
kernel-default = "0.2"
asks = "both"
machine-types = { "new" = "1.1", "old" = { hides = ["VENDOR_HYP_BMAP_2"] } }
withholds = ["PSCI_VERSION=0.2", "STD_BMAP=0x1", "VENDOR_HYP_BMAP_2"]
unknown = "ignore"
missing = "refuse"
safe-missing = ["VENDOR_HYP_BMAP"]
absent-version = "0.2"
"""


def test_a_policy_is_read_column_by_column(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(MINE)
    policy = policy_of(str(path))

    assert (policy.name, policy.summary, policy.cite) == ("mine", "for a test", str(path))
    assert (str(policy.kernel_default), str(policy.absent_version)) == ("0.2", "0.2")
    assert policy.machine_types == (MachineType("new", Version(1, 1)), MachineType("old", None, frozenset({"VENDOR_HYP_BMAP_2"})))
    assert policy.withholds == (Withheld("PSCI_VERSION", 2), Withheld("STD_BMAP", 1), Withheld("VENDOR_HYP_BMAP_2"))
    assert (policy.asks, policy.unknown, policy.missing) == (Asks.BOTH, Unknown.IGNORE, Missing.REFUSE)
    assert policy.safe_missing == {"VENDOR_HYP_BMAP"}


def test_a_policy_from_a_file_is_moved_live_too(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(MINE)

    assert main(["matrix", "-sources", "kvm-4.17,kvm-6.15", "-policy", str(path), "-j", "1"]) == 0
    assert "policy " + str(path) in capfd.readouterr().out


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "based-on is missing"),
        ("based-on = 'pseudo-registre'", "based-on: unknown policy 'pseudo-registre'; did you mean pseudo-register?"),
        ("based-on = 'qemu-10'\ncolour = 'red'", "unknown key 'colour'"),
        ("based-on = 'qemu-10'\nunknwon = 'refuse'", "unknown key 'unknwon'; did you mean unknown?"),
        ("based-on = 'qemu-11'\nmachine-types = { v = 1 }", "1 is neither a version nor a table of asks-for and hides"),
        ("based-on = 'qemu-11'\nmachine-types = { v = { hide = [] } }", "v: unknown key 'hide'; known: asks-for, hides"),
        ("based-on = 'qemu-11'\nmachine-types = { v = { hides = ['BMAP'] } }", "unknown firmware register 'BMAP'"),
        ("based-on = 'qemu-10'\nunknown = 'shrug'", "unknown: 'shrug' is not one of refuse, ignore"),
        (
            "based-on = 'qemu-10'\nwithholds = ['PSCI_VERSON']",
            "withholds: unknown firmware register 'PSCI_VERSON'; did you mean PSCI_VERSION?",
        ),
        ("based-on = 'qemu-10'\nwithholds = 'PSCI_VERSION'", "withholds: 'PSCI_VERSION' is not a list"),
        ("based-on = 'qemu-10'\nkernel-default = 2", "kernel-default: 2 is not a string"),
        ("based-on = 'qemu-10'\nname = ''", "name: '' is not a line of printable characters"),
        ("based-on = 'qemu-10'\nsummary = \"a\\nb\"", "summary: 'a\\nb' is not a line"),
        ("based-on = 'qemu-10'\nmachine-types = {}", "machine-types: {} is not a table"),
        ("based-on = 'qemu-10", "is not TOML"),
    ],
)
def test_a_broken_policy_is_refused_by_name(text: str, sentence: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "broken.toml"
    path.write_text(text or "# nothing\n")

    assert main(["matrix", "-policy", str(path), "-no-live"]) == 103
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert sentence in err


@given(at=st.integers(0, len(MINE) - 1), byte=st.integers(0, 255), cut=st.booleans())
@settings(derandomize=True, database=None, deadline=None, max_examples=300)
def test_whatever_is_in_a_file_it_is_a_policy_or_one_sentence(
    at: int, byte: int, cut: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "mutated.toml"
    content = MINE.encode()
    path.write_bytes(content[:at] + bytes([byte]) + (b"" if cut else content[at + 1 :]))
    try:
        read_policy(path)
    except InputError as error:
        sentence = str(error)
        if "\n" in sentence:
            pytest.fail(sentence)


# ---- the mail


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("silent-upgrade", "The first guest was at PSCI 0.2 and found itself at 1.0: nobody had asked it."),
        ("lost-mitigation", "The first guest lost ARCH_WORKAROUND_1 and was not told."),
        ("catches-fire", "The first guest found PSCI 1.0 and caught fire (exit code 120)."),
    ],
)
def test_each_case_of_the_mail_ends_with_what_happened_and_what_would_have_saved_the_guest(
    name: str, sentence: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", name]) == 0
    last = capfd.readouterr().out.splitlines()[-1]

    assert last.startswith(sentence)
    assert "What would have saved it is the register" in last
