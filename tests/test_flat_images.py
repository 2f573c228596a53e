"""Flat test images in kvm-unit-tests' style, on the emulator and on QEMU: exceptions, the MMU, CPUs that start and race.

1. An image is built by tests/images/Makefile, prints PASS and FAIL lines and a summary, and ends with 0 if nothing failed.
2. QEMU runs single-threaded, as in tests/guests/test_against_qemu.py.
3. What the engine leaves out is listed by name below; a line that goes away there is good news, and has to be crossed out.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final, NamedTuple, NoReturn

import pytest

from emu.engine import CPU_MODELS
from emu.machine import Machine
from emu.setup import Choices, make
from guests import toolchain
from tests import real

FOLDER: Final = Path(__file__).parent / "images"
IMAGES: Final = ("exceptions", "external-aborts", "left-out", "smp", "race")
SMALL_BYTES: Final = 32 * 1024
QEMU_TIMEOUT_S: Final = 30
ENOUGH_INSTRUCTIONS: Final = 100_000_000

# Why a test is skipped, or None to run it.

HOSTS: Final = ("spec", "kvm-6.12", "qemu-7")
CONDUITS: Final = ("hvc", "smc")
PLACES: Final = (("spec", "0.2"), ("spec", "1.3"), ("kvm-6.12", "0.2"), ("kvm-6.12", "1.1"))
SEEDS: Final = range(41)

every_host = pytest.mark.parametrize("host", HOSTS)
every_conduit = pytest.mark.parametrize("conduit", CONDUITS)


class Run(NamedTuple):
    """The end of a run: its exit code, and what the image printed, line by line."""

    code: int
    lines: list[str]


def image(name: str) -> Path:
    return FOLDER / "bin" / f"{name}.bin"


def on_emulator(name: str, choices: Choices | None = None, *, append: str = "", cpu: str = "cortex-a57", seed: int = 0) -> Run:
    """Run an image in this process."""
    setup = make(choices or Choices(host="qemu-7"))
    setup = dataclasses.replace(setup, kernel=image(name), append=append, cpu=cpu, seed=seed, max_insns=ENOUGH_INSTRUCTIONS)
    console = bytearray()
    outcome = Machine(setup, output=console.extend).run()
    return Run(outcome.code, console.decode("ascii").splitlines())


def on_qemu(name: str, *, smp: int = 1, append: str = "", cpu: str = "cortex-a57") -> Run:
    """Run an image on QEMU's machine virt."""
    machine = ["-M", "virt", "-accel", "tcg,thread=single", "-cpu", cpu, "-smp", str(smp), "-nographic", "-semihosting", "-nic", "none"]
    command = [real.qemu(), *machine, "-kernel", str(image(name)), "-append", append]
    done = subprocess.run(command, check=False, stdin=subprocess.DEVNULL, capture_output=True, timeout=QEMU_TIMEOUT_S)
    assert done.stderr == b""
    return Run(done.returncode, done.stdout.decode("ascii").splitlines())


def vcpus(count: int, host: str = "qemu-7", version: str | None = None, conduit: str | None = None) -> Choices:
    return Choices(host=host, psci=version, conduit=conduit, mpidrs=tuple(range(count)))


def assert_all_passed(run: Run) -> None:
    assert [line for line in run.lines if not line.startswith(("PASS: ", "INFO: ", "smp: ", "race: "))] == run.lines[-1:]
    assert run.lines[-1] == f"SUMMARY: {sum(line.startswith('PASS: ') for line in run.lines)} tests"
    assert run.code == 0


def failed(run: Run) -> list[str]:
    """Return the names of the checks that failed, in order."""
    return [line.removeprefix("FAIL: ").split(": esr ")[0] for line in run.lines if line.startswith("FAIL: ")]


# ---- the images themselves


def test_the_images_are_what_their_sources_say(tmp_path: Path) -> None:
    real.cross_compiler()
    _need_the_same_toolchain()
    command = ["make", "-s", "-C", str(FOLDER), "all", f"CROSS={real.CROSS}", f"BUILD={tmp_path / 'build'}", f"BIN={tmp_path / 'bin'}"]

    subprocess.run(command, check=True)

    for name in IMAGES:
        assert (tmp_path / "bin" / f"{name}.bin").read_bytes() == image(name).read_bytes(), f"{name}: `make -C tests/images` was forgotten"
    assert (tmp_path / "bin" / "lines.elf").read_bytes() == (FOLDER / "bin" / "lines.elf").read_bytes()


def test_every_image_is_built_and_every_built_image_has_a_test() -> None:
    line = re.search(r"^IMAGES := (.*)$", (FOLDER / "Makefile").read_text(), re.MULTILINE)

    assert line is not None
    assert tuple(line[1].split()) == IMAGES
    assert {path.name for path in (FOLDER / "bin").iterdir()} == {"lines.elf", *(f"{name}.bin" for name in IMAGES)}


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_is_small(name: str) -> None:
    assert image(name).stat().st_size < SMALL_BYTES


def _need_the_same_toolchain() -> None:
    if shutil.which("make") is None:
        _cannot("make is not installed")
    wanted = toolchain()
    gcc = _output(f"{real.CROSS}gcc", "-dumpfullversion").strip()
    binutils = _output(f"{real.CROSS}ld", "--version").splitlines()[0].split()[-1]
    if (gcc, binutils) != (wanted["gcc"], wanted["binutils"]):
        _cannot(f"the images were built by gcc {wanted['gcc']} and binutils {wanted['binutils']}, here are {gcc} and {binutils}")


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _cannot(why: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(why)
    pytest.skip(why)


# ---- exceptions


@every_host
@pytest.mark.parametrize("cpu", CPU_MODELS)
def test_exceptions_are_the_architectures_on_every_host_and_cpu_model(host: str, cpu: str) -> None:
    assert_all_passed(on_emulator("exceptions", Choices(host=host), cpu=cpu))


@every_conduit
def test_exceptions_at_el0_do_not_depend_on_the_conduit(conduit: str) -> None:
    assert on_emulator("exceptions", Choices(conduit=conduit)) == on_emulator("exceptions")


def test_exceptions_need_no_firmware() -> None:
    assert on_emulator("exceptions", Choices(psci="none")) == on_emulator("exceptions")


@pytest.mark.parametrize("cpu", CPU_MODELS)
def test_exceptions_print_the_same_on_qemu(cpu: str) -> None:
    assert on_emulator("exceptions", cpu=cpu) == on_qemu("exceptions", cpu=cpu)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_exceptions_do_not_depend_on_where_a_slice_ends(seed: int) -> None:
    assert on_emulator("exceptions", seed=seed) == on_emulator("exceptions")


def test_qemu_traps_wfi_at_el0() -> None:
    assert_all_passed(on_qemu("exceptions", append="wfi"))


def test_wfi_at_el0_traps_as_on_qemu() -> None:
    assert on_emulator("exceptions", append="wfi") == on_qemu("exceptions", append="wfi")


# ---- external aborts


@every_host
@pytest.mark.parametrize("cpu", CPU_MODELS)
def test_memory_that_is_not_there_gives_external_aborts_on_every_host_and_cpu_model(host: str, cpu: str) -> None:
    assert_all_passed(on_emulator("external-aborts", Choices(host=host), cpu=cpu))


def test_external_aborts_print_the_same_on_qemu() -> None:
    assert on_emulator("external-aborts") == on_qemu("external-aborts")


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_external_aborts_do_not_depend_on_where_a_slice_ends(seed: int) -> None:
    assert on_emulator("external-aborts", seed=seed) == on_emulator("external-aborts")


@pytest.mark.parametrize("append", ["", "walk"])
def test_memory_that_is_not_there_gives_external_aborts_on_qemu(append: str) -> None:
    assert_all_passed(on_qemu("external-aborts", append=append))


# The engine reads a translation table that is not there as zeroes: a translation fault.
NO_TABLE: Final = [
    f"MMU on: {level}: {access} through a table that is not there"
    for access in ("read", "write", "fetch")
    for level in ("EL0", "EL1t", "EL1h")
]


def test_of_external_aborts_the_engine_leaves_out_those_of_a_table_walk() -> None:
    run = on_emulator("external-aborts", append="walk")

    assert (run.code, failed(run)) == (1, NO_TABLE)


# ---- what emulators leave out


def at(place: str, checks: str, levels: str = "EL0 EL1t EL1h") -> list[str]:
    """Name checks, separated by commas, from each of some exception levels."""
    return [f"{place}: {level}: {check}" for check in checks.split(", ") for level in levels.split()]


PLAIN: Final = ", ".join(f"misaligned {name}" for name in ("LDR x", "LDR w", "LDRH", "LDP", "STR x", "STR w", "STRH", "STP"))
DEVICE_MEMORY: Final = [*at("MMU off", PLAIN), *at("MMU off", "DC ZVA", "EL1t EL1h")]
# QEMU 7.2 has op1 and op2 exchanged in the syndrome of MSR DAIFSet and DAIFClr; Unicorn loses all of it.
DAIF_SYNDROME: Final = at("MMU off", "MSR DAIFSet, MSR DAIFClr", "EL0")
LEFT_OUT_BY_QEMU: Final = [*DAIF_SYNDROME, *at("MMU off", "misaligned STXR"), *DEVICE_MEMORY, *at("MMU on", "misaligned STXR")]
LEFT_OUT_BY_THE_ENGINE: Final = [
    *at("MMU off", "FMOV"),
    *(f"MMU off: EL1h: ERET to PSTATE {pstate}" for pstate in ("0x3c9", "0x3c1", "0x3c6")),
    *at("MMU off", "misaligned STXR, misaligned LDAR, misaligned STLR"),
    *DEVICE_MEMORY,
    *at("MMU on", "misaligned STXR, misaligned LDAR, misaligned STLR"),
    *at("SCTLR_EL1.A", PLAIN),
]


def test_what_the_engine_leaves_out_is_known() -> None:
    run = on_emulator("left-out")

    assert (run.code, failed(run)) == (1, LEFT_OUT_BY_THE_ENGINE)


def test_what_qemu_leaves_out_is_known() -> None:
    run = on_qemu("left-out")

    assert (run.code, failed(run)) == (1, LEFT_OUT_BY_QEMU)


# ---- several CPUs

INCREMENTS: Final = 40


def smp_lines(count: int, *, mmu: bool) -> list[str]:
    """Spell what `smp` prints where all is well."""
    lines = [f"smp: {count} CPUs"]
    for time in (1, 2):
        others = range(1, count)
        lines += [f"PASS: CPU {cpu}, time {time}: CPU_ON SUCCESS" for cpu in others]
        lines += [f"PASS: CPU {cpu}, time {time}: CPU_ON again is refused" for cpu in others]
        for cpu in range(count):
            lines += [
                f"PASS: CPU {cpu}, time {time}: runs as itself, with its context_id",
                f"PASS: CPU {cpu}, time {time}: MMU {'off, then on' if mmu else 'off'}",
                f"PASS: CPU {cpu}, time {time}: takes an exception of its own",
                *([f"PASS: CPU {cpu}, time {time}: OFF"] if cpu else []),
            ]
        lines += [
            f"PASS: time {time}: the ticket lock lost none of {time * count * INCREMENTS}",
            f"PASS: time {time}: exclusives lost none of {time * count * INCREMENTS}",
        ]
    return [*lines, "PASS: CPU_ON of no CPU is INVALID_PARAMETERS", f"SUMMARY: {len(lines)} tests"]


every_count = pytest.mark.parametrize("count", range(1, 9))
mmu_off_and_on = pytest.mark.parametrize("append", ["", "mmu=on"])


@every_count
@mmu_off_and_on
@every_conduit
@pytest.mark.parametrize(("host", "version"), PLACES)
def test_every_cpu_comes_up_works_and_goes_off_twice(count: int, append: str, conduit: str, host: str, version: str) -> None:
    run = on_emulator("smp", vcpus(count, host, version, conduit), append=append)

    assert run == (0, smp_lines(count, mmu=append != ""))


@every_count
@mmu_off_and_on
def test_every_cpu_comes_up_works_and_goes_off_on_qemu_as_on_its_model(count: int, append: str) -> None:
    assert on_qemu("smp", smp=count, append=append) == on_emulator("smp", vcpus(count), append=append)


@mmu_off_and_on
@pytest.mark.parametrize("seed", range(1, 11))
def test_locks_and_exclusives_hold_in_whatever_order_the_cpus_run(append: str, seed: int) -> None:
    assert on_emulator("smp", vcpus(4), append=append, seed=seed) == (0, smp_lines(4, mmu=append != ""))


def test_an_image_that_needs_firmware_says_so_where_there_is_none() -> None:
    run = on_emulator("smp", Choices(psci="none"))

    assert run == (2, ["FAIL: this image wants PSCI 0.2 and at most 8 CPUs, of which it boots on the first"])


# ---- CPUs that race

ROUNDS: Final = 3
ROUND: Final = re.compile(r"INFO: round \d: winners (\d), the last is CPU (\d); ALREADY_ON (\d), ON_PENDING (\d), other (\d)")


class Round(NamedTuple):
    """How one race ended: who won, and how many callers were told what."""

    winners: int
    winner: int
    already_on: int
    on_pending: int
    other: int


def race_rounds(run: Run) -> list[Round]:
    return [Round(*map(int, match.groups())) for line in run.lines if (match := ROUND.fullmatch(line))]


@pytest.mark.parametrize("count", [2, 4, 8])
@pytest.mark.parametrize(("host", "version"), PLACES)
def test_a_race_for_one_cpu_has_one_winner_under_every_seed(count: int, host: str, version: str) -> None:
    rounds: list[Round] = []
    for seed in SEEDS:
        run = on_emulator("race", vcpus(count, host, version), seed=seed)
        assert_all_passed(run)
        rounds += race_rounds(run)

    callers = count - 1
    assert len(rounds) == ROUNDS * len(SEEDS)
    assert {(each.winners, each.already_on + each.on_pending, each.other) for each in rounds} == {(1, callers - 1, 0)}
    # All that may win do, or it would be no race.
    assert {each.winner for each in rounds} == {0, *range(2, count)}
    # KVM tells no ON_PENDING: its vCPU is on from the call on.
    assert any(each.on_pending for each in rounds) == (host == "spec" and callers > 1)


@every_conduit
@pytest.mark.parametrize("seed", [0, 1, 40])
def test_a_race_is_the_same_over_both_conduits_and_when_repeated(conduit: str, seed: int) -> None:
    run = on_emulator("race", vcpus(4, "spec", "1.3", conduit), seed=seed)

    assert run == on_emulator("race", vcpus(4, "spec", "1.3"), seed=seed)


@pytest.mark.parametrize("count", [2, 4, 8])
def test_a_race_has_one_winner_on_qemu_as_on_its_model(count: int) -> None:
    for run in (on_qemu("race", smp=count), on_emulator("race", vcpus(count))):
        assert_all_passed(run)
        assert [each._replace(winner=0) for each in race_rounds(run)] == [Round(1, 0, count - 2, 0, 0)] * ROUNDS


def test_a_race_needs_a_second_cpu() -> None:
    assert on_emulator("race", vcpus(1)) == (2, ["FAIL: this image wants a second CPU"])
