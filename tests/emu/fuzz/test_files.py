"""What a fuzz run leaves in its folder, and what of it is read again: whole, and refused in one sentence where it is not."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emu.fuzz.again import again
from emu.fuzz.campaign import Entry
from emu.fuzz.case import Case
from emu.fuzz.files import Folder, Written, cases_in, read_finding
from emu.fuzz.guest import Guest, digest_of
from emu.fuzz.job import Found, Ran
from emu.fuzz.judge import Suspect
from firmware.errors import InputError, UserError
from guests.gallery import gallery

KERNEL: Final = gallery()["G01"].elf
GUEST: Final = Guest(
    ("-smp", "2", "-append", "a 'b' \"c\" \\"), "hvc", (("kernel", digest_of(KERNEL.read_bytes())),), "console:PASS", 10_000, 200
)
REFERENCE: Final = Case("spec", "0.2")
CASE: Final = Case(
    "kvm-6.12",
    "1.0",
    conduit="smc",
    compatible=("arm,psci-1.0",),
    faults=("CPU_ON#2: drop", "version=2.0"),
    changes=("0.2@call:CPU_ON#1",),
    moves=("xen@call:CPU_OFF#3",),
    seed=7,
    call_ns=100,
)
SUSPECT: Final = Suspect("lost-vcpu", "cpu_on+0x40", "CPU_ON", "error", "1 vCPU up, on the reference 2; 'quoted' \"twice\" \\ \u00e9")
FOUND: Final = Found(CASE, SUSPECT, is_legal=True, code=1, sentence="how it ended", cpus_up=1, calls=("a call",), digest=64 * "a")
WRITTEN: Final = Written(GUEST, {"kernel": KERNEL}, REFERENCE, CASE, SUSPECT, True, 1, "how it ended", 1, 64 * "a")


def folder(path: Path, guest: Guest = GUEST) -> Folder:
    return Folder(path, guest, {"kernel": KERNEL}, REFERENCE)


def entry(case: Case, parent: int | None = None, how: str = "") -> Entry:
    return Entry(Ran(case, parent, how, (), (1,), 0, 1, 1), 1)


def names(path: Path) -> list[str]:
    return sorted(str(each.relative_to(path)) for each in path.rglob("*") if each.is_file())


# ---- a folder


def test_a_finding_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert read_finding(folder(tmp_path).tell(FOUND)) == WRITTEN


@pytest.mark.parametrize(
    ("oracle", "legal", "name"),
    [
        ("crash", True, "crashes/id:000000,oracle:crash,legal.toml"),
        ("result", False, "crashes/id:000000,oracle:result,broken.toml"),
        ("rule:imm-nonzero", True, "crashes/id:000000,oracle:rule-imm-nonzero,legal.toml"),
        ("hang", False, "hangs/id:000000,oracle:hang,broken.toml"),
        ("deadlock", True, "hangs/id:000000,oracle:deadlock,legal.toml"),
    ],
)
def test_what_hangs_is_in_hangs_and_all_else_in_crashes(tmp_path: Path, oracle: str, legal: bool, name: str) -> None:
    path = folder(tmp_path).tell(FOUND._replace(suspect=SUSPECT._replace(oracle=oracle), is_legal=legal))

    assert path == tmp_path / name
    assert names(tmp_path) == [name]


def test_the_queue_names_what_a_case_was_made_from_and_by_what(tmp_path: Path) -> None:
    one = folder(tmp_path)

    one.keep([entry(REFERENCE), entry(CASE, 0, "faults")])
    one.keep([entry(Case("xen", "1.1"), 1, "version change")])

    assert names(tmp_path) == [
        "queue/id:000000,op:plain,+cov.toml",
        "queue/id:000001,src:000000,op:faults,+cov.toml",
        "queue/id:000002,src:000001,op:version-change,+cov.toml",
    ]


def test_a_second_run_goes_on_with_the_numbers_and_writes_nothing_twice(tmp_path: Path) -> None:
    first = folder(tmp_path)
    first.keep([entry(REFERENCE), entry(CASE, 0, "faults")])
    told = first.tell(FOUND)
    before = names(tmp_path)

    second = folder(tmp_path)
    second.keep([entry(CASE), entry(Case("xen", "1.1"), 0, "host")])

    assert second.tell(FOUND) == told
    assert second.tell(FOUND._replace(code=2)).name.startswith("id:000001,")
    assert names(tmp_path) == sorted(
        [*before, "crashes/id:000001,oracle:lost-vcpu,legal.toml", "queue/id:000002,src:000001,op:host,+cov.toml"]
    )


def test_another_kernel_s_finding_is_another_file(tmp_path: Path) -> None:
    other = GUEST._replace(files=(("kernel", 64 * "0"),))

    paths = {folder(tmp_path).tell(FOUND), folder(tmp_path, other).tell(FOUND)}

    assert len(paths) == 2


def test_numbers_go_on_beyond_what_the_name_has_room_for(tmp_path: Path) -> None:
    folder(tmp_path)
    for number in ("999999", "1000000"):
        (tmp_path / "queue" / f"id:{number},op:plain,+cov.toml").write_text("x = 1")

    folder(tmp_path).keep([entry(REFERENCE)])

    assert (tmp_path / "queue" / "id:1000001,op:plain,+cov.toml").exists()


def test_the_cases_of_a_folder_are_its_queue_and_its_findings(tmp_path: Path) -> None:
    one = folder(tmp_path)
    one.tell(FOUND)
    one.keep([entry(Case("xen", "1.1")), entry(REFERENCE)])
    (tmp_path / "queue" / ".id:000009,op:plain.toml").write_text("left behind")
    (tmp_path / "queue" / "notes").write_text("a user's own")

    assert list(cases_in(tmp_path)) == [Case("xen", "1.1"), REFERENCE, CASE]


def test_a_folder_that_is_not_there_has_no_cases(tmp_path: Path) -> None:
    assert list(cases_in(tmp_path / "nowhere")) == []
    assert not (tmp_path / "nowhere").exists()


def test_a_broken_case_in_a_folder_is_refused_by_its_file(tmp_path: Path) -> None:
    folder(tmp_path).keep([entry(REFERENCE)])
    broken = tmp_path / "queue" / "id:000000,op:plain,+cov.toml"
    broken.write_text(broken.read_text().replace("0.2", "zero"))

    with pytest.raises(InputError) as refusal:
        list(cases_in(tmp_path))

    assert str(refusal.value) == f"{broken}: case.psci: 'zero' is not a version"


def test_a_write_that_fails_leaves_no_half_of_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = folder(tmp_path)

    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fails)

    with pytest.raises(UserError, match="cannot be written: No space left on device"):
        one.tell(FOUND)
    assert [name for name in names(tmp_path) if not Path(name).name.startswith(".")] == []


def test_stats_are_lines_as_afl_writes_them(tmp_path: Path) -> None:
    folder(tmp_path).stats({"run_time": 3, "execs_per_sec": "2.50"})

    assert (tmp_path / "fuzzer_stats").read_text() == "run_time          : 3\nexecs_per_sec     : 2.50\n"


# ---- hostile findings


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    return folder(tmp_path_factory.mktemp("fuzz")).tell(FOUND).read_text()


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch") / "finding.toml"


def refused(path: Path, content: bytes) -> str | None:
    """Read a finding; return the sentence of its refusal, None where it was read. Any other exception is a failure."""
    path.write_bytes(content)
    try:
        read_finding(path)
    except UserError as error:
        sentence = str(error)
        assert "\n" not in sentence
        assert sentence.startswith(str(path))
        return sentence
    return None


@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 1 << 16), value=st.integers(0, 255))
def test_with_any_byte_changed_a_finding_is_read_or_refused_in_a_sentence(text: str, scratch: Path, at: int, value: int) -> None:
    content = bytearray(text.encode())
    content[at % len(content)] = value

    refused(scratch, bytes(content))


def test_cut_off_anywhere_a_finding_is_refused_unless_nothing_but_the_end_of_a_line_is_gone(text: str, scratch: Path) -> None:
    content = text.encode()

    for length in range(len(content) - 1):
        assert refused(scratch, content[:length]) is not None, content[:length][-40:]


def leaves(table: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the way to every key and every item there is."""
    keys: list[Any] = list(table) if isinstance(table, dict) else list(range(len(table))) if isinstance(table, list) else []
    return [way for key in keys for way in ((*path, key), *leaves(table[key], (*path, key)))]


def altered(text: str, way: tuple[Any, ...], change: Callable[[Any, Any], None]) -> bytes:
    table = tomllib.loads(text)
    place: Any = table
    for key in way[:-1]:
        place = place[key]
    change(place, way[-1])
    return tomli_w.dumps(table).encode()


OPTIONAL: Final = {"conduit", "until", "compatible", "faults", "changes", "moves", "seed", "call_ns"}


def test_without_any_one_field_a_finding_is_refused_by_the_field_s_name_unless_it_may_be_left_out(text: str, scratch: Path) -> None:
    for way in leaves(tomllib.loads(text)):
        sentence = refused(scratch, altered(text, way, lambda place, key: place.pop(key)))
        if isinstance(way[-1], str) and way[-1] not in OPTIONAL:
            assert sentence is not None, way
            assert way[-1] in sentence, (way, sentence)


WRONG: Final[list[Any]] = [True, 1.5, -1, 1 << 70, "", "\x00", "x" * 1000, [], [[]], {}, [{"a": 1}], ["-h"], ["x.toml"]]


@pytest.mark.parametrize("value", WRONG, ids=lambda value: repr(value)[:20])
def test_with_any_field_of_another_kind_a_finding_is_read_or_refused_in_a_sentence(text: str, scratch: Path, value: Any) -> None:
    for way in leaves(tomllib.loads(text)):
        refused(scratch, altered(text, way, lambda place, key: place.__setitem__(key, value)))


@pytest.mark.parametrize("where", ["", "guest", "reference", "case", "found", "run"])
def test_a_key_that_means_nothing_is_refused(text: str, scratch: Path, where: str) -> None:
    def change(place: Any, key: str) -> None:
        (place[key] if key else place)["shedule"] = 1

    sentence = refused(scratch, altered(text, (where,), change))

    assert sentence is not None
    assert sentence.startswith(f"{scratch}: unknown key 'shedule'")


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("schema = 1", "schema = 2", "schema 2 is not one that this version reads; it reads 1"),
        ('"-smp"', '"-h"', "guest.options: '-h' is not one of -append, -machine, -smp, -mpidr, -m, -cpu, -psci-node, -timeout"),
        ('"-smp",\n', "", "guest.options: '2' is not one of -append, -machine, -smp, -mpidr, -m, -cpu, -psci-node, -timeout"),
        ('option = "kernel"', 'option = "host"', "files.option 'host' is not one of kernel, bios, initrd, dtb, symbols, each once at most"),
        ('host = "kvm-6.12"', 'host = "my.toml"', "case.host: 'my.toml' is not the name of a host"),
        ('psci = "1.0"', 'psci = "1.0@call:CPU_ON#1"', "case.psci: '1.0@call:CPU_ON#1' is not a version"),
        ('conduit = "smc"', 'conduit = "both"', "case.conduit: 'both' is not hvc or smc"),
        ('"arm,psci-1.0"', '"\u00e9"', "case.compatible: '\u00e9' is not a string for a device tree"),
        ('"arm,psci-1.0"', '""', "case.compatible: '' is not a string for a device tree"),
        ("call:CPU_OFF#3", "call:CPU_OFF", "case.moves: 'xen@call:CPU_OFF' is not WHAT@call:NAME#N"),
        ("seed = 7", "seed = 65536", "case.seed: 65536 is not a number from 0 to 65535"),
        ('sha256 = "', 'sha256 = "0', None),
        ("is_legal = true", "is_legal = 1", "found.is_legal is 1, which is no bool"),
    ],
)
def test_what_no_fuzz_run_writes_is_refused_by_name(text: str, scratch: Path, old: str, new: str, sentence: str | None) -> None:
    assert old in text

    refusal = refused(scratch, text.replace(old, new, 1).encode())

    assert refusal is not None
    assert refusal.endswith("is not 64 hexadecimal digits") if sentence is None else refusal == f"{scratch}: {sentence}"


def test_a_case_of_the_corpus_is_no_finding(tmp_path: Path) -> None:
    folder(tmp_path).keep([entry(REFERENCE)])
    path = tmp_path / "queue" / "id:000000,op:plain,+cov.toml"

    with pytest.raises(InputError) as refusal:
        read_finding(path)

    assert str(refusal.value) == f"{path}: it has a case and nothing that was found: a case of the corpus is not replayed"


# ---- again

FIELDS: Final = ("guest", "reference", "case")


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 1 << 16), value=st.sampled_from(b'09aZ-_.,:#@="\x7f'))
def test_with_any_byte_changed_a_finding_runs_again_or_is_refused_in_a_sentence(scratch: Path, at: int, value: int) -> None:
    content = bytearray(_plain_finding(scratch.parent / "plain"))
    content[at % len(content)] = value
    scratch.write_bytes(content)

    try:
        said = again(read_finding(scratch), {}).differences
    except UserError as error:
        said = (str(error),)
    assert all("\n" not in each for each in said)


def _plain_finding(path: Path) -> bytes:
    guest = GUEST._replace(words=("-smp", "2", "-m", "16M"), conduit=None, until=None)
    case = Case("kvm-6.12", "1.0", faults=("CPU_ON: x0=DENIED",), changes=("0.2@call:CPU_ON#1",), moves=("xen@call:CPU_ON#1",), seed=3)
    return folder(path, guest).tell(FOUND._replace(case=case)).read_bytes()


def test_another_file_than_was_fuzzed_is_refused(tmp_path: Path) -> None:
    written = read_finding(folder(tmp_path).tell(FOUND))
    other = tmp_path / "other.elf"
    other.write_bytes(KERNEL.read_bytes() + b"\0")

    with pytest.raises(InputError, match="is not the file that was fuzzed: its SHA-256 is"):
        again(written, {"kernel": other})


def test_a_case_that_is_no_firmware_here_is_refused(tmp_path: Path) -> None:
    nowhere = Case("kvm-99", "1.0")

    with pytest.raises(UserError, match=r"there is no such firmware here: -host kvm-99 -psci 1\.0"):
        again(read_finding(folder(tmp_path / "case").tell(FOUND._replace(case=nowhere))), {})
    with pytest.raises(UserError, match="kvm-99"):
        again(read_finding(Folder(tmp_path / "reference", GUEST, {"kernel": KERNEL}, nowhere).tell(FOUND)), {})
