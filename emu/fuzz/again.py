"""A finding again: the run that its file tells of, and whether it is the same to the byte."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from emu.fuzz.files import Written
from emu.fuzz.guest import Store, digest_of
from emu.fuzz.job import digest_of_run
from emu.fuzz.judge import Suspect
from emu.fuzz.world import Execution
from emu.fuzz.worlds import Worlds
from emu.loader import MAX_ELF_BYTES, read_file
from firmware.errors import InputError, UserError


class Again(NamedTuple):
    """What came of it.

    differences  from what was recorded, each in a clause
    """

    execution: Execution
    suspects: tuple[Suspect, ...]
    differences: tuple[str, ...]


def again(written: Written, elsewhere: Mapping[str, Path]) -> Again:
    """Run a finding again, each run in a fork; `elsewhere` are the files that are no longer where they were.

    Raises InputError for a file that is not the one that was fuzzed, UserError for a case that is none.
    """
    store = Store()
    for option, digest in written.guest.files:
        path = elsewhere.get(option, written.paths[option])
        content = read_file(path, MAX_ELF_BYTES).content
        if digest_of(content) != digest:
            raise InputError(f"{path} is not the file that was fuzzed: its SHA-256 is {digest_of(content)[:16]}..., not {digest[:16]}...")
        store.add(content)
    worlds = Worlds(written.guest, written.reference, store.paths, careful=True)
    execution = worlds.run(written.case)
    if execution is None:
        raise UserError(f"there is no such firmware here: {written.case}")
    suspects = worlds.suspects(written.case, execution)
    return Again(execution, suspects, tuple(_differences(written, execution, suspects)))


def _differences(written: Written, execution: Execution, suspects: tuple[Suspect, ...]) -> Iterator[str]:
    for what, before, now in (
        ("exit code", written.code, execution.code),
        ("end", written.sentence, execution.sentence),
        ("vCPUs up", written.cpus_up, execution.cpus_up),
    ):
        if before != now:
            yield f"{what}: recorded {before}, now {now}"
    if written.suspect not in suspects:
        yield f"{written.suspect.oracle} at {written.suspect.site or 'no call'} is not found any more"
    if written.digest != digest_of_run(execution.trace):
        yield "calls, replies or console differ"
