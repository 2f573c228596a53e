"""Faults as a user spells them: what is read, what is refused and how, and that a run with faults repeats, replays and is kept."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emu.cli import main
from emu.faultwords import parse_fault, parse_faults
from emu.machine import Machine
from emu.outcome import ExitCode
from emu.replay import Replay
from emu.setup import Choices, Setup, make
from emu.snapshot import parts, read
from emu.state import adopt, capture
from emu.words import CallPoint
from firmware.abi import Psci
from firmware.errors import UserError
from firmware.faults import (
    AnyFault,
    Delay,
    Drop,
    Exchange,
    Fault,
    Poison,
    Replace,
    TrustedOsOn,
    Undefined,
    UnknownUndefined,
    WrongConduit,
    ZeroExtend,
)
from guests import elf_path

SPELLED: dict[str, AnyFault] = {
    "CPU_ON#2: x0=INTERNAL_FAILURE": Fault("CPU_ON", Replace(((0, Psci.INTERNAL_FAILURE),)), nth=2),
    "PSCI_FEATURES(x1=0x84000012): x0=0x0": Fault("PSCI_FEATURES", Replace(((0, 0),)), x1=0x8400_0012),
    "PSCI_FEATURES(x1=0x84000012)#3: x0=0x0": Fault("PSCI_FEATURES", Replace(((0, 0),)), nth=3, x1=0x8400_0012),
    "AFFINITY_INFO: x1=0x5, x3=0xffffffffffffffff": Fault("AFFINITY_INFO", Replace(((1, 5), (3, (1 << 64) - 1)))),
    "PSCI_FEATURES: NOT_SUPPORTED=DENIED": Fault("PSCI_FEATURES", Exchange(Psci.NOT_SUPPORTED, Psci.DENIED)),
    "CPU_ON: zero-extend": Fault("CPU_ON", ZeroExtend()),
    "CPU_ON: drop": Fault("CPU_ON", Drop()),
    "SMCCC_VERSION: undef": Fault("SMCCC_VERSION", Undefined()),
    "CPU_ON: delay=3": Fault("CPU_ON", Delay(3)),
    "PSCI_VERSION: poison=x1-x3": Fault("PSCI_VERSION", Poison(1, 3)),
    "PSCI_VERSION: poison=x4-x17": Fault("PSCI_VERSION", Poison(4, 17)),
    "unknown=undef": UnknownUndefined(),
    "wrong-conduit": WrongConduit(),
    "trusted-os=cpu1": TrustedOsOn(1, migratable=False),
    "trusted-os=cpu0,migratable": TrustedOsOn(0, migratable=True),
}
OTHER_SPELLINGS = {
    "version=-1": "PSCI_VERSION: x0=NOT_SUPPORTED",
    "version=0.0": "PSCI_VERSION: x0=0x0",
    "version=2.0": "PSCI_VERSION: x0=0x20000",
    "version=65535.65535": "PSCI_VERSION: x0=0xffffffff",
    "features=yes": "PSCI_FEATURES: x0=0x0",
    "features=no": "PSCI_FEATURES: x0=NOT_SUPPORTED",
    "SMCCC_VERSION: x0=1.2": "SMCCC_VERSION: x0=0x10002",
    " CPU_ON #1:x0=-6 ": "CPU_ON#1: x0=INTERNAL_FAILURE",
    "TRNG_RND64: x0=NO_ENTROPY": "TRNG_RND64: x0=DENIED",
    "CPU_ON: x0=SUCCESS": "CPU_ON: x0=0x0",
}
REFUSED = {
    "": "it is neither FUNCTION#N: ACTION nor one of version=V",
    "everything": "it is neither FUNCTION#N: ACTION nor one of version=V",
    "CPU_NO: drop": "unknown function 'CPU_NO'; did you mean CPU_ON?",
    "cpu_on: drop": "unknown function 'cpu_on'; did you mean CPU_ON?",
    "CPU ON: drop": "'CPU ON' is not NAME, NAME#N or NAME(x1=VALUE)#N",
    "CPU_ON#0: drop": "the number of the reply is a number from 1 to 1000000000, not '0'",
    "CPU_ON#two: drop": "the number of the reply is a number from 1 to 1000000000, not 'two'",
    "CPU_ON(x2=1): drop": "'CPU_ON(x2=1)' is not NAME, NAME#N or NAME(x1=VALUE)#N",
    "CPU_ON(x1=): drop": "'' is not a code's name, a 64-bit number or a version",
    "CPU_ON:": "'' is no action; known: x0=VALUE, NOT_SUPPORTED=VALUE, zero-extend, drop, undef, delay=N",
    "CPU_ON: x4=1": "'x4=1' is no action",
    "CPU_ON: x0=1, x0=2": "x0 is there twice",
    "CPU_ON: x0=": "'' is not a code's name, a 64-bit number or a version",
    "CPU_ON: x0=0x1_0000": "'0x1_0000' is not a code's name, a 64-bit number or a version",
    "CPU_ON: x0=18446744073709551616": "'18446744073709551616' is not a code's name, a 64-bit number or a version",
    "CPU_ON: x0=INTERNAL_FALURE": "unknown code 'INTERNAL_FALURE'; did you mean INTERNAL_FAILURE?",
    "CPU_ON: poison=x18": "poison is for x1-x3 or x4-x17, not 'x18': the firmware keeps all others",
    "CPU_ON: delay=0": "delay is a number from 1 to 1000000000, not '0'",
    "CPU_OFF: delay=1": "delay is for CPU_ON and AFFINITY_INFO, which have an ON_PENDING to answer; CPU_OFF has none",
    "PSCI_VERSION: drop": "drop is for a function that answers SUCCESS, which PSCI_VERSION does not",
    "version=1": "'1' is not a version such as 2.0, nor -1",
    "version=70000.0": "70000.0 is no version: each part is at most 65535",
    "features=perhaps": "it is neither FUNCTION#N: ACTION nor one of version=V",
    "trusted-os=1": "'1' is not cpuN or cpuN,migratable, with N from 0 to 122",
    "trusted-os=cpu123": "'cpu123' is not cpuN or cpuN,migratable, with N from 0 to 122",
}
FAULTS = ("CPU_ON#1: x0=INTERNAL_FAILURE", "PSCI_VERSION: poison=x1-x3", "trusted-os=cpu1")


@pytest.mark.parametrize("word", SPELLED)
def test_a_fault_is_read_and_spelled_the_same(word: str) -> None:
    assert parse_fault(word) == SPELLED[word]
    assert str(SPELLED[word]) == word


@pytest.mark.parametrize("word", OTHER_SPELLINGS)
def test_another_spelling_is_the_same_fault(word: str) -> None:
    assert str(parse_fault(word)) == OTHER_SPELLINGS[word]
    assert parse_fault(OTHER_SPELLINGS[word]) == parse_fault(word)


@pytest.mark.parametrize("word", REFUSED)
def test_a_bad_spelling_is_one_sentence_that_says_what_is_wrong(word: str) -> None:
    with pytest.raises(UserError) as refused:
        parse_fault(word)

    assert str(refused.value).startswith(f"fault {word!r}: {REFUSED[word]}")
    assert "\n" not in str(refused.value)
    assert refused.value.exit_code == ExitCode.USAGE


def test_a_refusal_ends_the_command_with_102(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "-kernel", str(elf_path("prober")), "-fault", "CPU_NO: drop"]) == ExitCode.USAGE

    assert capsys.readouterr().err == "psci-emu: fault 'CPU_NO: drop': unknown function 'CPU_NO'; did you mean CPU_ON?\n"


def test_faults_come_from_a_file_too(tmp_path: Path) -> None:
    path = tmp_path / "faults.toml"
    path.write_text('faults = [\n  "CPU_ON: drop",  # nobody starts\n  "version=2.0",\n]\n')

    assert parse_faults([str(path), "wrong-conduit"]) == (*map(parse_fault, ("CPU_ON: drop", "version=2.0")), WrongConduit())


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("# none", "faults is missing; it is a list of what -fault takes"),
        ("fault = []", "unknown key 'fault'; did you mean faults?"),
        ("faults = 'CPU_ON: drop'", "faults: 'CPU_ON: drop' is not a list"),
        ("faults = [1]", "faults: 1 is not a string"),
        ("faults = ['CPU_NO: drop']", "faults: fault 'CPU_NO: drop': unknown function 'CPU_NO'; did you mean CPU_ON?"),
    ],
)
def test_a_bad_file_is_one_sentence_that_names_it(tmp_path: Path, content: str, sentence: str) -> None:
    path = tmp_path / "faults.toml"
    path.write_text(content)

    with pytest.raises(UserError) as refused:
        parse_faults([str(path)])

    assert str(refused.value) == f"{path}: {sentence}"
    assert refused.value.exit_code == ExitCode.INPUT


# ---- runs


def setup_of(guest: str, faults: tuple[str, ...], host: str = "spec", smp: int = 2) -> Setup:
    setup = make(Choices(host=host, faults=faults, mpidrs=tuple(range(smp))))
    return dataclasses.replace(setup, kernel=elf_path(guest), max_insns=20_000_000)


def run(setup: Setup) -> tuple[int, str]:
    console = bytearray()
    outcome = Machine(setup, output=console.extend).run()
    return outcome.code, console.decode("ascii")


def test_a_guest_meets_the_fault_and_a_second_run_is_the_same() -> None:
    first, second = (run(setup_of("rendezvous", FAULTS, "kvm-6.12")) for _ in range(2))

    assert first == (1, "rendezvous: 2 CPUs\nFAIL: CPU_ON of CPU 0x1: INTERNAL_FAILURE\n")
    assert second == first


def test_a_fault_reaches_registers_beyond_the_results() -> None:
    setup = setup_of("version-loop", ("PSCI_VERSION: poison=x4-x17",), "qemu-7")
    machine = Machine(setup)
    machine.run(CallPoint("PSCI_VERSION", 1))

    assert [machine.engine.x[number].get() & 0xFF for number in range(4, 18)] == list(range(4, 18))


def test_functions_without_a_fault_keep_their_ready_answers() -> None:
    plain, faulty = (Machine(setup_of("prober", faults)) for faults in ((), ("CPU_ON: drop",)))
    calls = [machine.firmware.tables.by_conduit for machine in (plain, faulty)]

    differing = {
        fid
        for conduit, table in calls[0].items()
        for fid, entry in table.entries.items()
        if type(entry) is not type(calls[1][conduit].entries[fid])
    }
    assert {fid & 0xBFFE_FFFF for fid in differing} == {0x8400_0003}


@pytest.mark.parametrize("host", ["spec", "kvm-6.12"])
def test_a_run_with_faults_replays(tmp_path: Path, host: str) -> None:
    trace = tmp_path / "trace"
    faults = [word for fault in FAULTS for word in ("-fault", fault)]
    main(["run", "-kernel", str(elf_path("rendezvous")), "-smp", "2", "-host", host, *faults, "--trace", str(trace)])

    assert list(Replay(trace).differences()) == []
    assert main(["replay", str(trace)]) == ExitCode.OK
    assert [str(fault) for fault in Replay(trace, "qemu-7").firmware.config.faults] == list(FAULTS)


def test_a_broken_fault_in_a_trace_is_refused_with_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "trace"
    main(["run", "-kernel", str(elf_path("prober")), "-smp", "2", "-fault", "CPU_ON: drop", "--trace", str(trace), "-serial", "none"])
    trace.write_text(trace.read_text().replace("CPU_ON: drop", "CPU_NO: drop"))
    capsys.readouterr()

    assert main(["replay", str(trace)]) == ExitCode.USAGE
    assert "unknown function 'CPU_NO'" in capsys.readouterr().err


def test_a_snapshot_keeps_the_faults_and_how_many_replies_there_were(tmp_path: Path) -> None:
    setup = setup_of("rendezvous", ("CPU_ON#2: x0=DISABLED",), smp=4)
    whole, console = bytearray(), bytearray()
    expected = Machine(setup, output=whole.extend).run()
    machine = Machine(setup, output=console.extend)
    machine.run(CallPoint("CPU_ON", 1))
    path = tmp_path / "snapshot"
    path.write_bytes(b"".join(parts(machine.setup_as_it_is, machine.board.boot, capture(machine))))

    kept = read(path)
    loaded = Machine(kept.setup, output=console.extend)
    adopt(loaded, kept.state)

    assert kept.setup.config.faults == setup.config.faults
    assert kept.state.firmware.replies == (("CPU_ON", 1),)
    assert (loaded.run().code, console) == (expected.code, whole)


def test_a_move_leaves_the_faults_behind(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    move = ["migrate", "-kernel", str(elf_path("version-loop")), "-append", "rounds=3", "-from", "kvm-6.12", "-to", "kvm-6.13"]
    main([*move, "-at", "call:PSCI_VERSION#1", "-fault", "version=2.0", "--trace", str(trace), "-serial", f"file:{tmp_path / 'console'}"])

    versions = [line.split()[3].rstrip(",") for line in (tmp_path / "console").read_text().splitlines() if line.startswith("round")]
    assert versions[0] == "2.0"
    assert versions[-1] == "1.1"
    assert main(["replay", str(trace)]) == ExitCode.OK


# ---- whatever is injected, the run ends with a verdict on the guest


_VALUES = ("0x0", "NOT_SUPPORTED", "ALREADY_ON", "0x8000000000000000", "1.0")
_FUNCTIONS = (
    "PSCI_VERSION",
    "CPU_ON",
    "CPU_OFF",
    "AFFINITY_INFO",
    "PSCI_FEATURES",
    "SMCCC_VERSION",
    "SYSTEM_OFF",
    "CPU_SUSPEND",
    "SYSTEM_RESET",
)
_SPELLINGS = st.one_of(
    st.builds("{}#{}: x0={}".format, st.sampled_from(_FUNCTIONS), st.integers(1, 4), st.sampled_from(_VALUES)),
    st.builds("{}: x1=0x1, x3={}".format, st.sampled_from(_FUNCTIONS), st.sampled_from(_VALUES)),
    st.builds("{}: {}".format, st.sampled_from(_FUNCTIONS), st.sampled_from(("zero-extend", "undef", "poison=x1-x3"))),
    st.builds("{}: drop".format, st.sampled_from(("CPU_ON", "CPU_OFF", "SYSTEM_OFF", "SYSTEM_RESET", "CPU_SUSPEND"))),
    st.builds("{}: delay={}".format, st.sampled_from(("CPU_ON", "AFFINITY_INFO")), st.integers(1, 5)),
    st.sampled_from(
        ("version=-1", "version=65535.65535", "features=yes", "features=no", "unknown=undef", "wrong-conduit", "trusted-os=cpu1")
    ),
)


@given(
    faults=st.lists(_SPELLINGS, min_size=1, max_size=3).map(tuple),
    host=st.sampled_from(("spec", "kvm-3.16", "kvm-4.15", "kvm-6.13", "qemu-7", "tf-a", "xen", "u-boot", "bao", "jailhouse")),
    guest=st.sampled_from(("prober", "rendezvous", "off-on-again", "suspend-powerdown", "reset")),
)
@settings(max_examples=60, deadline=None)
def test_no_fault_makes_us_fail_and_every_run_repeats(faults: tuple[str, ...], host: str, guest: str) -> None:
    setup = dataclasses.replace(setup_of(guest, faults, host), max_insns=300_000)

    first, second = run(setup), run(setup)

    assert first == second
    assert first[0] != ExitCode.OURS
