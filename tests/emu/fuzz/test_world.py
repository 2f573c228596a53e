"""A run from the first call on is the run that a boot gives: in this process, in a fork, and as `psci-emu run` does it."""

from __future__ import annotations

import shlex
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from emu.commands.run import add_firmware_options, add_machine_options, setup_of
from emu.fuzz.campaign import REFERENCE
from emu.fuzz.case import Case
from emu.fuzz.judge import CRASH, Suspect
from emu.fuzz.world import Execution
from emu.fuzz.worlds import Worlds
from emu.machine import Machine
from emu.options import Parser, whole_words
from emu.outcome import ExitCode
from emu.scheduler import TRAP_NS
from firmware.errors import UserError
from guests import catalogue, elf_path
from guests.gallery import gallery
from tests.emu.fuzz.fuzzing import ENOUGH_INSTRUCTIONS, Subject, drawn
from tests.emu.programs import PSCI_VERSION, WFI, Bench, Label, Part, b, call, cbz, exits, off, prints, subs, tbnz

GUESTS: Final = ("rendezvous", "suspend-powerdown", "trng", "G01", "G24")
CASES: Final = 100
# An unallocated half-precision encoding, at which the engine aborts the process under -cpu max (tests/emu/test_machine_fuzz.py).
ABORTS: Final = 0x4ED6_2CD9


def options_of(name: str) -> str:
    machine = f"-smp {catalogue()[name].smp_option}" if name in catalogue() else gallery()[name].machine
    return f"{machine} -m 16M"


@cache
def subject(name: str) -> Subject:
    path = elf_path(name) if name in catalogue() else gallery()[name].elf
    return Subject(path, options_of(name))


class Seen(NamedTuple):
    """What of a run must not depend on how it was run."""

    code: int
    sentence: str
    cpus_up: int
    console: bytes
    profile: tuple[tuple[str, int], ...]
    instructions: int
    harmful: bool
    suspects: tuple[Suspect, ...]


def seen(worlds: Worlds, case: Case) -> Seen | None:
    run = worlds.run(case)
    return None if run is None else Seen(*_of(run), worlds.suspects(case, run))


def _of(run: Execution) -> tuple[int, str, int, bytes, tuple[tuple[str, int], ...], int, bool]:
    return run.code, run.sentence, run.cpus_up, run.console, run.profile, run.instructions, run.harmful


@pytest.mark.parametrize("name", GUESTS)
def test_a_run_from_the_checkpoint_is_the_run_in_a_fork_whatever_ran_before(name: str) -> None:
    fast, careful = subject(name).worlds(), subject(name).worlds(careful=True)
    usual = seen(careful, REFERENCE)

    for case in drawn(fast, CASES, seed=GUESTS.index(name)):
        assert seen(fast, case) == seen(careful, case), case
        assert seen(fast, REFERENCE) == usual, f"after {case}"


@pytest.mark.parametrize("name", ["suspend-powerdown", "G24"])
def test_a_run_looks_the_same_whatever_ran_before(name: str) -> None:
    worlds, others = subject(name).worlds(), subject(name).worlds()
    cases = drawn(worlds, 25, seed=7)
    looks = [_looks(worlds, case) for case in cases]

    assert [_looks(others, case) for case in reversed(cases)] == looks[::-1]


def _looks(worlds: Worlds, case: Case) -> object:
    run = worlds.run(case)
    return None if run is None else run._replace(blocks=())


@pytest.mark.parametrize("name", GUESTS)
def test_a_case_that_can_be_typed_is_what_run_does_with_its_words(name: str) -> None:
    worlds = subject(name).worlds()

    for drawn_case in drawn(worlds, 25, seed=GUESTS.index(name)):
        case = drawn_case._replace(compatible=(), moves=(), seed=0, call_ns=TRAP_NS)
        run = worlds.run(case)
        try:
            typed = typed_run(name, str(case))
        except UserError:
            # There a write to the version register is refused at once, here when it comes.
            assert run is None or case.changes
            continue
        assert run is not None, case
        assert (run.code, run.sentence, run.console) == typed, case


def typed_run(name: str, words: str) -> tuple[int, str, bytes]:
    parser = Parser(prog="psci-emu run")
    add_machine_options(parser)
    add_firmware_options(parser)
    words = f"-kernel {subject(name).path} {options_of(name)} {words} -no-reboot -max-insns {ENOUGH_INSTRUCTIONS}"
    setup = setup_of(parser.parse_args(whole_words(shlex.split(words), parser, "a test")))
    console = bytearray()
    outcome = Machine(setup, output=console.extend).run()
    return outcome.code, outcome.sentence, bytes(console[-4096:])


def test_observing_a_case_tells_of_the_same_run() -> None:
    worlds = subject("off-on-again").worlds()

    for case in drawn(worlds, 30, seed=3):
        run = worlds.run(case)
        if run is not None:
            trace = worlds.observe(case)
            assert trace is not None
            assert (trace.code, trace.sentence, trace.cpus_up) == (run.code, run.sentence, run.cpus_up)
            assert trace.console.encode()[-4096:] == run.console
            assert len(trace.calls) >= sum(count for _, count in run.profile)


def test_firmware_that_cannot_be_is_no_run() -> None:
    worlds = subject("G01").worlds()

    for case in (
        Case("no-such-host", "1.0"),
        Case("qemu-7", "1.0"),  # which has 1.1 alone
        REFERENCE._replace(psci="9.9"),
        REFERENCE._replace(conduit="sideways"),
        REFERENCE._replace(faults=("CPU_ON: sing",)),
        REFERENCE._replace(faults=("trusted-os=cpu7",)),  # of two
        REFERENCE._replace(changes=("1.0@call:NO_SUCH#1",)),
        REFERENCE._replace(moves=("xen@call:CPU_ON#0",)),
    ):
        assert worlds.run(case) is None, case


def test_a_write_that_the_host_refuses_and_a_move_that_is_refused_change_nothing() -> None:
    worlds = subject("rendezvous").worlds()
    usual = seen(worlds, REFERENCE)

    assert seen(worlds, REFERENCE._replace(changes=("9.9@call:CPU_ON#1",))) == usual
    assert seen(worlds, REFERENCE._replace(moves=("no-such-host@call:CPU_ON#1",))) == usual


# ---- what a move takes from a guest


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def is_legal(worlds: Worlds, case: Case) -> bool:
    run = worlds.run(case)
    assert run is not None
    return worlds.is_legal(case, run)


@pytest.mark.parametrize(
    ("source", "psci", "destination", "legal"),
    [
        ("kvm-6.12", "1.0", "kvm-6.15", True),
        ("kvm-6.12", "1.1", "xen", True),
        ("xen", "1.1", "hafnium-primary", False),  # the version stays, and what is mandatory does not
        ("xen", "1.1", "jailhouse", False),
        ("xen", "1.1", "u-boot", False),
    ],
)
def test_a_move_is_legal_that_leaves_a_guest_its_version_and_correct_firmware(
    source: str, psci: str, destination: str, legal: bool
) -> None:
    worlds = subject("rendezvous").worlds()

    assert is_legal(worlds, Case(source, psci))
    assert is_legal(worlds, Case(source, psci, moves=(f"{destination}@call:CPU_ON#1",))) == legal


def test_what_a_move_does_is_not_a_matter_of_the_faults_that_come_along_nor_of_which_case_was_first() -> None:
    move = Case("kvm-6.12", "1.1", moves=("xen@call:PSCI_VERSION#1",))
    blinded = move._replace(faults=("PSCI_VERSION: undef", "features=no"))

    for order in ((move, blinded), (blinded, move)):
        worlds = subject("G01").worlds()
        runs = {case: worlds.run(case) for case in order}
        assert {case: run is not None and run.harmful for case, run in runs.items()} == {move: False, blinded: False}


# ---- a guest at which the engine aborts


def aborting(bench: Bench) -> Subject:
    """Return a guest that meets such an instruction when PSCI_VERSION answers an error, in the turn of that call."""
    program: list[Part] = [call(PSCI_VERSION), tbnz(0, 31, "fell"), prints("fine"), off(), exits(0), Label("fell"), ABORTS, exits(1)]
    return Subject(bench.file(*program), "-smp 1 -m 16M -cpu max")


FELL: Final = "guest crash: the engine gave up at an instruction"


def test_where_the_engine_aborts_is_a_crash_when_run_carefully_and_all_else_is_as_it_is(bench: Bench) -> None:
    guest = aborting(bench)
    worlds = guest.worlds(careful=True)

    broken = REFERENCE._replace(faults=("PSCI_VERSION: x0=NOT_SUPPORTED",))
    run = worlds.run(broken)
    after = worlds.run(REFERENCE)

    assert run is not None
    assert (run.code, run.sentence) == (ExitCode.CRASH, FELL)
    assert worlds.suspects(broken, run) == (Suspect(CRASH, "", "", "", FELL),)
    assert worlds.observe(broken) is None
    assert after is not None
    assert (after.code, after.console) == (ExitCode.OK, b"fine")


def test_a_world_whose_first_case_aborts_the_engine_in_its_first_turn_is_there_all_the_same(bench: Bench) -> None:
    """What is run to find the first call ends with the turn, and may abort in it."""
    program: list[Part] = [call(PSCI_VERSION), subs(1, 0, 2), cbz(1, "fine"), ABORTS, Label("fine"), off(), b("fine")]
    guest = Subject(bench.file(*program), "-smp 1 -m 16M -cpu max")
    worlds = guest.worlds(careful=True)

    run = worlds.run(Case("spec", "1.3"))  # another device tree, so another world, and there it aborts

    assert run is not None
    assert (run.code, run.sentence) == (ExitCode.CRASH, FELL)


@pytest.mark.parametrize("before", [[], call(PSCI_VERSION)], ids=["before a call", "after one"])
def test_a_reference_on_which_the_engine_aborts_is_a_crash_like_others(bench: Bench, before: list[Part]) -> None:
    worlds = Subject(bench.file(before, ABORTS, off()), "-smp 1 -m 16M -cpu max").worlds(careful=True)

    run = worlds.run(REFERENCE)

    assert run is not None
    assert (run.code, run.sentence, run.profile) == (ExitCode.CRASH, FELL, ())
    assert worlds.suspects(REFERENCE, run) == (Suspect(CRASH, "", "", "", FELL),)


# ---- a guest that makes no call


ENDS: Final[dict[str, tuple[list[Part], int]]] = {
    "ends with 0": (exits(0), 0),
    "ends with 3": (exits(3), 3),
    "waits for ever": ([Label("here"), WFI, b("here")], ExitCode.DEADLOCK),
}


@pytest.mark.parametrize("careful", [False, True])
@pytest.mark.parametrize("end", ENDS)
def test_a_guest_that_makes_no_call_ends_the_same_whatever_is_done_to_the_firmware(bench: Bench, careful: bool, end: str) -> None:
    program, code = ENDS[end]
    worlds = Subject(bench.file(prints("hello"), program), "-smp 1 -m 16M").worlds(careful=careful)

    runs = [worlds.run(case) for case in (REFERENCE, REFERENCE._replace(faults=("version=2.0",)), REFERENCE._replace(seed=3))]

    for run in runs:
        assert run is not None
        assert (run.code, run.console, run.profile, run.blocks, run.harmful) == (code, b"hello", (), (), False)
