"""What a fuzz run leaves: a folder in AFL's layout, and findings that `psci-emu replay` reads.

    D/queue/id:000003,src:000001,op:faults,+cov.toml    a case of the corpus, and what it was made from
    D/crashes/id:000000,oracle:lost-vcpu,legal.toml     a finding; those that hang are in D/hangs
    D/fuzzer_stats                                      how far it came

Each of the first two is TOML and whole: the guest's options and files with their SHA-256, the case, and of a finding what was found and
a digest of the run.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from emu.faultwords import parse_fault
from emu.files import OF_A_MACHINE, replace
from emu.fuzz.campaign import Entry
from emu.fuzz.case import Case, parse_at
from emu.fuzz.guest import Guest, check_machine_words
from emu.fuzz.job import Found
from emu.fuzz.judge import DEADLOCK, HANG, Suspect
from emu.fuzz.mutate import MOST_SEED
from emu.tomlfile import check_keys, convert, listed, read_table, text
from firmware.errors import InputError, UserError

SCHEMA: Final = 1
_FOLDERS: Final = ("queue", "crashes", "hangs")
_NUMBERED: Final = re.compile(r"id:(\d{6,18}),")
_MOST_NUMBER: Final = 1 << 63
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


class Written(NamedTuple):
    """A finding as a file has it.

    paths  where the guest's files were, by option
    """

    guest: Guest
    paths: dict[str, Path]
    reference: Case
    case: Case
    suspect: Suspect
    is_legal: bool
    code: int
    sentence: str
    cpus_up: int
    digest: str


class Folder:
    """The folder of one run, made if it is not there; raises UserError where it cannot be written.

    What is there already, from a run before, is not written a second time.
    """

    def __init__(self, path: Path, guest: Guest, paths: Mapping[str, Path], reference: Case) -> None:
        self._path = path
        self._guest = _guest_table(guest, paths)
        self._reference = reference
        try:
            for name in _FOLDERS:
                (path / name).mkdir(parents=True, exist_ok=True)
            self._there = {name: _content_of(path / name) for name in _FOLDERS}
            self._next = {name: _next_number(path / name) for name in _FOLDERS}
        except OSError as error:
            raise UserError(f"--corpus {path} cannot be used: {error.strerror}") from None
        self._numbers: list[int] = []  # in the folder, of the corpus's cases by their position

    def keep(self, entries: Iterable[Entry]) -> None:
        """Write cases of the corpus."""
        for entry in entries:
            source = "" if entry.ran.parent is None else f"src:{self._numbers[entry.ran.parent]:06},"
            name = f"{source}op:{entry.ran.how or 'plain'},+cov".replace(" ", "-")
            path = self._write("queue", name, {"case": entry.ran.case.as_table()})
            self._numbers.append(_number_of(path.name))

    def tell(self, found: Found) -> Path:
        """Write a finding; return where."""
        folder = "hangs" if found.suspect.oracle in (HANG, DEADLOCK) else "crashes"
        name = f"oracle:{found.suspect.oracle.replace(':', '-')},{'legal' if found.is_legal else 'broken'}"
        tables = {
            "reference": self._reference.as_table(),
            "case": found.case.as_table(),
            "found": {**found.suspect._asdict(), "is_legal": found.is_legal},
            "run": {"code": found.code, "sentence": found.sentence, "cpus_up": found.cpus_up, "sha256": found.digest},
        }
        return self._write(folder, name, tables)

    def stats(self, lines: Mapping[str, object]) -> None:
        """Write how far it came, as afl-whatsup reads it."""
        replace(self._path / "fuzzer_stats", (f"{name:<18}: {value}\n".encode() for name, value in lines.items()))

    def _write(self, folder: str, name: str, tables: Mapping[str, object]) -> Path:
        import tomli_w  # noqa: PLC0415  for those who write

        content = tomli_w.dumps({"schema": SCHEMA, "guest": self._guest, **tables}).encode()
        there = self._there[folder].get(content)
        if there is not None:
            return there
        path = self._path / folder / f"id:{self._next[folder]:06},{name}.toml"
        self._next[folder] += 1
        replace(path, [content])  # an interrupted run leaves no half of a finding
        self._there[folder][content] = path
        return path


def _next_number(folder: Path) -> int:
    return max((_number_of(name) for name in os.listdir(folder)), default=-1) + 1


def _number_of(name: str) -> int:
    match = _NUMBERED.match(name)
    return -1 if match is None else int(match[1])


def _content_of(folder: Path) -> dict[bytes, Path]:
    return {path.read_bytes(): path for path in sorted(folder.iterdir()) if _NUMBERED.match(path.name) and path.is_file()}


def _guest_table(guest: Guest, paths: Mapping[str, Path]) -> dict[str, Any]:
    table: dict[str, Any] = {"options": list(guest.words), "max_insns": guest.max_insns, "max_calls": guest.max_calls}
    table |= {name: value for name, value in (("conduit", guest.conduit), ("until", guest.until)) if value is not None}
    table["files"] = [{"option": option, "path": os.path.abspath(paths[option]), "sha256": digest} for option, digest in guest.files]
    return table


# ---- reading


def cases_in(path: Path) -> Iterator[Case]:
    """Yield the cases of a folder that is there already: of its corpus, and of its findings."""
    for name in _FOLDERS:
        folder = path / name
        try:
            files = sorted(each for each in folder.iterdir() if each.suffix == ".toml" and not each.name.startswith("."))
        except FileNotFoundError:
            continue
        except OSError as error:
            raise UserError(f"--corpus {path} cannot be used: {error.strerror}") from None
        yield from (_case(file, "case", read_table(file)) for file in files)


def read_finding(path: Path) -> Written:
    """Read a finding; raise InputError for a file that is none."""
    table = read_table(path)
    check_keys(path, table, dict.fromkeys(("schema", "guest", "reference", "case", "found", "run")))
    if table.get("schema") != SCHEMA:
        raise InputError(f"{path}: schema {table.get('schema')!r} is not one that this version reads; it reads {SCHEMA}")
    if "found" not in table:
        raise InputError(f"{path}: it has a case and nothing that was found: a case of the corpus is not replayed")
    guest, paths = _guest(path, _table(path, table, "guest"))
    found = _fields(path, "found", table, {"oracle": str, "site": str, "function": str, "answer": str, "detail": str, "is_legal": bool})
    run = _fields(path, "run", table, {"code": int, "sentence": str, "cpus_up": int, "sha256": str})
    is_legal = found.pop("is_legal")
    return Written(
        guest,
        paths,
        _case(path, "reference", table),
        _case(path, "case", table),
        Suspect(**found),
        is_legal,
        run["code"],
        run["sentence"],
        run["cpus_up"],
        run["sha256"],
    )


def _case(path: Path, name: str, whole: Mapping[str, Any]) -> Case:
    table = _table(path, whole, name)
    check_keys(path, table, dict.fromkeys(Case._fields))
    for key in ("host", "psci"):
        if key not in table:
            raise InputError(f"{path}: {name}.{key} is missing")
    values = {key: convert(path, f"{name}.{key}", _FIELDS[key], value) for key, value in table.items()}
    return Case(**values)


def _point(value: Any) -> str:
    parse_at(text(value))
    return text(value)


def _fault(value: Any) -> str:
    parse_fault(text(value))
    return text(value)


def _spelled(pattern: str, what: str) -> Any:
    def convert_one(value: Any) -> str:
        if not re.fullmatch(pattern, text(value), re.ASCII):
            raise UserError(f"{value!r} is not {what}")
        return text(value)

    return convert_one


def _number(limit: int) -> Any:
    def convert_one(value: Any) -> int:
        if type(value) is not int or not 0 <= value < limit:
            raise UserError(f"{value!r} is not a number from 0 to {limit - 1}")
        return value

    return convert_one


_FIELDS: Final[dict[str, Any]] = {
    "host": _spelled(r"[\w.-]+(?<!\.toml)", "the name of a host"),
    "psci": _spelled(r"\d+\.\d+", "a version"),
    "conduit": _spelled("hvc|smc", "hvc or smc"),
    "compatible": listed(_spelled("[!-~]+", "a string for a device tree")),
    "faults": listed(_fault),
    **dict.fromkeys(("changes", "moves"), listed(_point)),
    "seed": _number(MOST_SEED),
    "call_ns": _number(10**9),
}


def _guest(path: Path, table: Mapping[str, Any]) -> tuple[Guest, dict[str, Path]]:
    check_keys(path, table, dict.fromkeys(("options", "conduit", "until", "max_insns", "max_calls", "files")))
    words = convert(path, "guest.options", _machine_words, table.get("options"))
    conduit, until = (None if name not in table else convert(path, f"guest.{name}", text, table[name]) for name in ("conduit", "until"))
    limits = [convert(path, f"guest.{name}", _number(_MOST_NUMBER), table.get(name)) for name in ("max_insns", "max_calls")]
    files, paths = [], {}
    entries = table.get("files")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(f"{path}: guest.files is not a list of tables")
    for entry in entries:
        fields = _fields(path, "files", {"files": entry}, {"option": str, "path": str, "sha256": str})
        if not _SHA256.fullmatch(fields["sha256"]):
            raise InputError(f"{path}: files.sha256 {fields['sha256']!r} is not 64 hexadecimal digits")
        if fields["option"] not in OF_A_MACHINE or fields["option"] in paths:
            raise InputError(f"{path}: files.option {fields['option']!r} is not one of {', '.join(OF_A_MACHINE)}, each once at most")
        files.append((fields["option"], fields["sha256"]))
        paths[fields["option"]] = Path(fields["path"])
    return Guest(words, conduit, tuple(files), until, limits[0], limits[1]), paths


def _machine_words(value: Any) -> tuple[str, ...]:
    words = listed(text)(value)
    check_machine_words(words)
    return words


def _table(path: Path, whole: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    table = whole.get(name)
    if not isinstance(table, dict):
        raise InputError(f"{path}: the table {name} is missing")
    return table


def _fields(path: Path, name: str, whole: Mapping[str, Any], kinds: Mapping[str, type]) -> dict[str, Any]:
    table = _table(path, whole, name)
    check_keys(path, table, kinds)
    for key, kind in kinds.items():
        if type(table.get(key)) is not kind:
            raise InputError(f"{path}: {name}.{key} is {'missing' if key not in table else f'{table[key]!r}, which is no {kind.__name__}'}")
    return dict(table)
