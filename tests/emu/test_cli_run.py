"""`psci-emu run` and the listings, in process: options, logs, points, limits, exit codes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import fdt
import pytest

from emu import cli
from emu.cli import main
from emu.outcome import ExitCode
from firmware.abi import Psci
from firmware.hosts import HOSTS
from guests import elf_path
from tests.emu.programs import (
    B_SELF,
    CPU_OFF,
    CPU_ON,
    ERET,
    HLT_SEMIHOSTING,
    NOP,
    NOWHERE,
    PSCI_VERSION,
    SCRATCH,
    SYSTEM_OFF,
    SYSTEM_RESET,
    TEXT,
    UDF,
    VECTORS,
    WFE,
    WFI,
    Bench,
    Label,
    Part,
    add,
    adr,
    b,
    b_ne,
    br,
    call,
    call_at,
    cbnz,
    cbz,
    copy,
    exits,
    exits_with,
    hvc,
    kept,
    ldr,
    minus,
    mov,
    movz,
    off,
    prints,
    smc,
    store,
    store8,
    subs,
    svc,
    vector,
    vectors_here,
)

FLAG: Final = SCRATCH + 0x100


class Ran(NamedTuple):
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], bench: Bench) -> Run:
    """Run a program with options."""

    def run(program: list[Part], *arguments: str) -> Ran:
        code = main(["run", "-kernel", str(bench.file(*program)), *arguments])
        return Ran(code, *capfd.readouterr())

    return run


def asks() -> list[Part]:
    """Ask for the version three times, around two calls of CPU_ON that are refused; keep the answers' sum for the exit code."""
    return [
        call(PSCI_VERSION),
        call(CPU_ON, 9),
        call(PSCI_VERSION),
        call(CPU_ON, 9),
        call(PSCI_VERSION),
        prints("done\n"),
        exits(0),
    ]


def spins() -> list[Part]:
    return [prints("go\n"), mov(9, FLAG), Label("spin"), ldr(10, 9), cbz(10, "spin")]


def versions(log: str) -> list[str]:
    return re.findall(r"PSCI_VERSION\(\) = .* \((.*)\)", log)


# ---- spellings


@pytest.mark.parametrize("spelling", [["-kernel", "{}"], ["--kernel", "{}"], ["-kernel={}"], ["--kernel={}"]], ids=" ".join)
@pytest.mark.parametrize("command", [[], ["run"]], ids=["without a command", "run"])
def test_options_have_one_dash_or_two(capfd: pytest.CaptureFixture[str], bench: Bench, command: list[str], spelling: list[str]) -> None:
    path = str(bench.file(prints("hello\n"), off()))

    assert main([*command, *(word.format(path) for word in spelling)]) == 0
    assert capfd.readouterr() == ("hello\n", "")


STATED: Final = "-accel tcg --accel tcg,thread=single -M virt -machine virt -display none -monitor none -net none -nographic -nodefaults"


def test_options_that_state_what_we_do_anyway_are_accepted(run: Run) -> None:
    assert run([prints("hello\n"), off()], *STATED.split()) == (0, "hello\n", "")


def test_a_successful_run_prints_the_console_and_nothing_else(run: Run) -> None:
    assert run([prints("a\nb"), off()]) == (0, "a\nb", "")


# ---- firmware options


@pytest.mark.parametrize(
    ("arguments", "version"),
    [
        ((), "1.3"),
        (("-psci", "0.2"), "0.2"),
        (("-host", "kvm-6.12"), "1.1"),
        (("-host", "kvm-6.12", "--psci", "1.0"), "1.0"),
        (("-host", "qemu-7"), "1.1"),
        (("-fwreg", "PSCI_VERSION=1.2"), "1.2"),
        (("-fwreg", "PSCI_VERSION=0x10001"), "1.1"),
        (("-fwreg", "PSCI_VERSION=65536"), "1.0"),
        (("-fwreg", "KVM_REG_ARM_PSCI_VERSION=0.2"), "0.2"),
        (("-fwreg", "0x6030000000140000=0x2"), "0.2"),
        (("-fwreg", "0X6030000000140000=0X2"), "0.2"),
        (("-psci", "1.0", "-fwreg", "PSCI_VERSION=1.1"), "1.1"),
    ],
)
def test_the_version_is_what_was_asked_for(run: Run, arguments: tuple[str, ...], version: str) -> None:
    assert versions(run(asks(), "-d", "psci", *arguments).err) == [version] * 3


@pytest.mark.parametrize("arguments", [("-psci", "0.1"), ("-fwreg", "PSCI_VERSION=0.1")])
def test_0_1_answers_nothing_under_the_standard_ids(run: Run, arguments: tuple[str, ...]) -> None:
    ran = run(asks(), "-d", "psci", *arguments)

    assert re.findall(r"PSCI_VERSION\(\) = (.*)", ran.err) == ["NOT_SUPPORTED"] * 3


@pytest.mark.parametrize(
    ("spelling", "x0"), [("STD_BMAP=0", Psci.NOT_SUPPORTED), ("STD_BMAP=0x1", 0x1_0000), ("KVM_REG_ARM_STD_BMAP=0", -1)]
)
def test_a_feature_bitmap_gates_its_service(run: Run, spelling: str, x0: int) -> None:
    # TRNG_VERSION; the exit code is 5 where x0 is what it should be.
    program: list[Part] = [
        call(0x8400_0050),
        mov(9, x0 & (1 << 64) - 1),
        minus(9, 0, 9),
        cbnz(9, "wrong"),
        exits(5),
        Label("wrong"),
        exits(6),
    ]

    assert run(program, "-fwreg", spelling).code == 5


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("-psci", "0.2@call:CPU_ON#1"), ["1.3", "0.2", "0.2"]),
        (("-psci", "0.2@call:CPU_ON"), ["1.3", "0.2", "0.2"]),
        (("-psci", "0.2@call:CPU_ON#2"), ["1.3", "1.3", "0.2"]),
        (("-psci", "0.2@call:CPU_ON#3"), ["1.3", "1.3", "1.3"]),
        (("-psci", "1.1,0.2@call:CPU_ON#2"), ["1.1", "1.1", "0.2"]),
        (("-psci", "1.0@call:PSCI_VERSION#1,0.2@call:PSCI_VERSION#2"), ["1.3", "1.0", "0.2"]),
        (("-host", "kvm-6.12", "-psci", "0.2@call:CPU_ON#1"), ["1.1", "0.2", "0.2"]),
    ],
)
@pytest.mark.parametrize("watched", [True, False])
def test_a_version_change_takes_effect_exactly_after_its_call(
    run: Run, arguments: tuple[str, ...], expected: list[str], watched: bool
) -> None:
    words = {"1.3": 0x1_0003, "1.1": 0x1_0001, "1.0": 0x1_0000, "0.2": 2}
    program: list[Part] = [call(PSCI_VERSION), copy(24, 0), call(CPU_ON, 9), call(PSCI_VERSION), copy(25, 0), call(CPU_ON, 9)]
    program += [call(PSCI_VERSION), copy(26, 0)]
    for register, version in zip((24, 25, 26), expected, strict=True):
        program += [mov(9, words[version]), minus(9, 9, register), cbnz(9, "wrong")]

    ran = run([*program, exits(0), Label("wrong"), exits(1)], *arguments, *(["-d", "psci"] if watched else []))

    assert ran.code == 0
    assert not watched or versions(ran.err) == expected


def test_a_version_change_counts_smc32_and_smc64_and_all_vcpus(run: Run) -> None:
    program: list[Part] = [
        call_at(CPU_ON, 1, "second"),
        Label("wait"),
        mov(9, FLAG),
        ldr(10, 9),
        cbz(10, "wait"),
        call(PSCI_VERSION),
        exits_with(0),
        Label("second"),
        call(0x8400_0003, 9),
        mov(9, FLAG),
        movz(10, 1),
        store(10, 9),
        B_SELF,
    ]

    assert run(program, "-smp", "2", "-psci", "0.2@call:CPU_ON#2").code == 2


@pytest.mark.parametrize(("conduit", "instruction"), [("hvc", hvc()), ("smc", smc()), ("both", hvc()), ("both", smc())])
def test_the_conduit_option_decides_what_is_served(run: Run, conduit: str, instruction: int) -> None:
    assert run([call(SYSTEM_OFF, conduit=instruction)], "-conduit", conduit).code == 0


# ---- points


@pytest.mark.parametrize(
    "point", ["call:CPU_ON#1", "call:CPU_ON", "call:CPU_ON#2", "call:PSCI_VERSION#3", "console:do.e", "console:^done$"]
)
def test_until_ends_well_when_its_point_comes(run: Run, point: str) -> None:
    assert run([asks(), spins()], "--until", point, "--max-insns", "1000000").code == 0


def test_until_ends_at_the_very_call(run: Run) -> None:
    ran = run(asks(), "--until", "call:CPU_ON#2", "-d", "psci")

    assert len(ran.err.splitlines()) == 4
    assert "CPU_ON" in ran.err.splitlines()[-1]
    assert ran.out == ""


def test_until_counts_a_call_that_never_returns_after_its_effect(run: Run) -> None:
    assert run([call(CPU_OFF), exits(9)], "--until", "call:CPU_OFF#1").code == 0
    assert run([call(SYSTEM_RESET)], "--until", "call:SYSTEM_RESET#3").code == 0


@pytest.mark.parametrize("point", ["call:CPU_ON#3", "console:never"])
def test_until_that_is_not_met_within_a_limit_is_a_failed_check(run: Run, point: str) -> None:
    ran = run([asks()[:-1], spins()], "--until", point, "--max-insns", "100000")

    assert ran.code == ExitCode.CHECK_FAILED
    assert ran.err.startswith("psci-emu: --until was not met: ")


@pytest.mark.parametrize("end", [off(), exits(0)], ids=["SYSTEM_OFF", "exit 0"])
@pytest.mark.parametrize("point", ["call:CPU_ON#3", "console:never"])
def test_until_that_is_not_met_when_the_guest_ends_is_a_failed_check(run: Run, point: str, end: list[Part]) -> None:
    assert run([asks()[:-1], end], "--until", point).code == ExitCode.CHECK_FAILED


def test_until_on_the_console_sees_semihosting_too(run: Run) -> None:
    program: list[Part] = [mov(0, 4), adr(1, "text"), HLT_SEMIHOSTING, spins(), Label("text"), int.from_bytes(b"hey\0", "little")]

    assert run(program, "--until", "console:hey", "--max-insns", "100000").code == 0


# ---- limits


@pytest.mark.parametrize(
    ("option", "value"), [("--max-insns", "100000"), ("--timeout", "100us"), ("--timeout", "0.1ms"), ("--timeout", "0.0001")]
)
def test_a_guest_that_loops_for_ever_makes_no_progress(run: Run, option: str, value: str) -> None:
    ran = run(spins(), option, value)

    assert ran.code == ExitCode.NO_PROGRESS
    assert ran.out == "go\n"
    words = (
        "no progress: no interrupt possible: every CPU that runs spins with interrupts masked; neither a call nor output in the second half"
    )
    assert ran.err.startswith(f"psci-emu: {words} of {option} ")


@pytest.mark.parametrize(("body", "words"), [(call(PSCI_VERSION), ""), (prints("x"), ", without a single call")], ids=["calls", "prints"])
def test_a_guest_that_still_does_something_reaches_its_limit(run: Run, body: list[Part], words: str) -> None:
    ran = run([Label("again"), body, b("again")], "--max-insns", "100000", "-serial", "none")

    assert ran.code == ExitCode.LIMIT
    assert ran.err.startswith(f"psci-emu: limit reached: --max-insns 100000{words} (after ")


@pytest.mark.parametrize("limit", [1, 2, 9, 10_001])
def test_a_limit_in_instructions_is_exact(bench: Bench, limit: int) -> None:
    machine = bench.machine(Label("loop"), *([0x9100_0400 | 19 << 5 | 19] * 3), b("loop"), max_insns=limit)  # add x19, x19, #1

    machine.run()

    assert machine.clock.now_ns == limit
    assert kept(machine)[0] == limit - limit // 4


# ---- ends


@pytest.mark.parametrize(("code", "expected"), [(0, 0), (1, 1), (42, 42), (99, 99), (100, 99), (255, 99), (0xFFFF_FFFF, 99)])
def test_the_guests_own_code_is_the_exit_code(run: Run, code: int, expected: int) -> None:
    ran = run([exits(code)])

    assert ran.code == expected
    assert ran.err == ("" if not expected else f"{ran.err.splitlines()[0]}\n")
    assert not expected or ran.err.startswith(f"psci-emu: the guest ended with exit code {expected} (")


@pytest.mark.parametrize(
    ("program", "code", "sentence"),
    [
        ([call(SYSTEM_RESET)], ExitCode.RESET, "system reset, and -no-reboot"),
        ([UDF], ExitCode.CRASH, "guest crash: "),
        ([mov(1, NOWHERE), br(1)], ExitCode.CRASH, "guest crash: instruction fetch from unmapped address 0x30000000"),
        ([mov(1, NOWHERE), store(1, 1)], ExitCode.CRASH, "guest crash: write to unmapped address 0x30000000"),
        ([WFI], ExitCode.DEADLOCK, "deadlock: cpu0 is ON and waits for an interrupt"),
        ([call(CPU_OFF)], ExitCode.DEADLOCK, "deadlock: cpu0 is OFF"),
        ([Label("park"), WFE, b("park")], ExitCode.DEADLOCK, "deadlock: cpu0 is ON and waits for nothing"),
    ],
)
def test_every_end_has_its_code_and_its_sentence_last(run: Run, program: list[Part], code: int, sentence: str) -> None:
    ran = run(program, "-no-reboot", "--max-insns", "1000000")

    assert ran.code == code
    *before, last = ran.err.splitlines()
    assert last.startswith(f"psci-emu: {sentence}")
    assert last.endswith(f"exit code {code:d}")
    assert not any(line.startswith("psci-emu: ") for line in before)
    assert bool(before) == (code == ExitCode.CRASH)


def test_a_crash_prints_registers_code_and_calls(run: Run) -> None:
    program: list[Part] = [vectors_here(), call(PSCI_VERSION), mov(7, 0x7777), UDF, vector(0x200), UDF, NOP]

    ran = run(program)

    assert ran.code == ExitCode.CRASH
    assert f"PC {VECTORS + 0x200:016x}" in ran.err
    assert "X7 0000000000007777" in ran.err
    assert "ESR_EL1 0000000002000000" in ran.err
    assert f"-> {VECTORS + 0x200:#014x}  00000000  udf" in ran.err
    assert "PSCI_VERSION() = 0x10003 (1.3)" in ran.err


def test_a_crash_without_a_vector_shows_the_instruction_that_took_the_exception(run: Run) -> None:
    ran = run([NOP, UDF, NOP])

    assert f"-> {TEXT + 4:#014x}  00000000  udf" in ran.err


def test_a_mistake_of_ours_is_reported_as_ours(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("firmware.power.Power.find", lambda _power, _target_cpu: 1 // 0)

    ran = run(asks())

    assert ran.code == ExitCode.OURS
    assert "ZeroDivisionError" in ran.err
    assert ran.err.splitlines()[-1].startswith("psci-emu: this is a mistake of ours")
    assert ran.out == ""


# ---- machine options


def test_dumpdtb_writes_the_tree_and_runs_nothing(run: Run, tmp_path: Path) -> None:
    blob = tmp_path / "virt.dtb"

    ran = run([prints("ran"), off()], "-machine", f"virt,dumpdtb={blob}", "-smp", "cpus=4,clusters=2", "-m", "256M", "-append", "hello")

    assert ran == (0, "", "")
    tree = fdt.parse_dtb(blob.read_bytes())
    assert [tree.get_property("reg", f"/cpus/cpu@{index}") is not None for index in ("0", "1", "100", "101")] == [True] * 4
    assert tree.get_property("bootargs", "/chosen").value == "hello"
    assert tree.get_property("method", "/psci").value == "hvc"


@pytest.mark.parametrize(("host", "powerdown"), [("spec", 0x0001_0000), ("kvm-6.12", 0x0001_0000), ("hafnium-secondary", 0x4000_0000)])
def test_idle_states_have_the_hosts_format_of_power_state(run: Run, tmp_path: Path, host: str, powerdown: int) -> None:
    blob = tmp_path / "virt.dtb"

    assert run([off()], "-machine", f"virt,idle-states=on,dumpdtb={blob}", "-host", host, "-conduit", "hvc").code == 0

    tree = fdt.parse_dtb(blob.read_bytes())
    states = [tree.get_property("arm,psci-suspend-param", f"/cpus/idle-states/{name}").value for name in ("cpu-retention", "cpu-sleep")]
    assert states == [0, powerdown]


@pytest.mark.parametrize(("conduit", "method"), [("smc", "smc"), ("both", "hvc"), ("none", "hvc")])
def test_the_conduit_option_decides_the_nodes_method(run: Run, tmp_path: Path, conduit: str, method: str) -> None:
    blob = tmp_path / "virt.dtb"

    run([off()], "-machine", f"virt,dumpdtb={blob}", "-conduit", conduit)

    assert fdt.parse_dtb(blob.read_bytes()).get_property("method", "/psci").value == method


def test_without_firmware_there_is_no_node(run: Run, tmp_path: Path) -> None:
    blob = tmp_path / "virt.dtb"

    run([off()], "-machine", f"virt,dumpdtb={blob}", "-psci", "none")

    assert not fdt.parse_dtb(blob.read_bytes()).exist_node("/psci")


@pytest.mark.parametrize(
    ("arguments", "mpidr"), [("-smp 2", 1), ("-smp cpus=2,clusters=2", 0x100), ("--mpidr 0,0x1200000003", 0x12_0000_0003)]
)
def test_vcpus_are_started_by_the_affinity_asked_for(run: Run, arguments: str, mpidr: int) -> None:
    program: list[Part] = [call_at(CPU_ON, mpidr, "second"), Label("stay"), WFI, b("stay"), Label("second"), exits(4)]

    assert run(program, *arguments.split()).code == 4


def test_ram_is_as_large_as_asked_for_and_no_larger(run: Run) -> None:
    program: list[Part] = [mov(9, 0x4000_0000 + (16 << 20) - 8), store(9, 9), ldr(10, 9, 8), exits(0)]

    ran = run(program, "-m", "16M")

    assert ran.code == ExitCode.CRASH
    assert "read from unmapped address 0x41000000" in ran.err
    assert run(program, "-m", "17").code == 0


def test_a_bios_starts_at_zero_with_writable_flash(capfd: pytest.CaptureFixture[str], bench: Bench) -> None:
    path = bench.file(mov(9, 0x2000), store(9, 9), ldr(10, 9), prints("bios\n"), off())

    assert main(["run", "-bios", str(path)]) == 0
    assert capfd.readouterr() == ("bios\n", "")


# ---- serial and logs


def test_the_console_may_go_to_a_file_or_nowhere(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "console"

    assert run([prints("hello\n"), off()], "-serial", f"file:{path}") == (0, "", "")
    assert path.read_bytes() == b"hello\n"
    assert run([prints("hello\n"), off()], "-serial", "none") == (0, "", "")


def test_the_psci_log_tells_calls_and_entries(run: Run) -> None:
    program: list[Part] = [call_at(CPU_ON, 1, "second", 5), Label("stay"), WFI, b("stay"), Label("second"), call(CPU_OFF)]

    ran = run(program, "-smp", "2", "-d", "psci")

    lines = ran.err.splitlines()
    assert len(lines) == 4
    assert re.search(
        r"cpu0 hvc  0x4008\w+ +CPU_ON\(target_cpu=0x1, entry_point_address=0x4008\w+, context_id=0x5\) = SUCCESS; cpu1 OFF -> ON_PENDING$",
        lines[0],
    )
    assert re.search(r"cpu1 +0x4008\w+ +enters with x0=0x5; cpu1 ON_PENDING -> ON$", lines[1])
    assert re.search(r"cpu1 hvc  0x4008\w+ +CPU_OFF\(\) = does not return; cpu1 ON -> OFF$", lines[2])
    assert lines[3].startswith("psci-emu: deadlock: ")


def test_the_int_log_tells_exceptions(run: Run) -> None:
    ran = run([vectors_here(), svc(3), off(), vector(0x200), ERET], "-d", "int")

    assert re.fullmatch(r"\[    0\.0{9}\] cpu0 SVC at 0x40080014, ESR_EL1 0x56000003, enters 0x40090200\n", ran.err)


def test_the_in_asm_log_tells_instructions(run: Run) -> None:
    ran = run([movz(5, 0x123), off()], "-d", "in_asm")

    assert f"IN: {TEXT:#x}" in ran.err
    assert "mov" in ran.err
    assert "hvc" in ran.err


def test_the_engine_log_tells_slices(run: Run) -> None:
    ran = run([spins()], "-d", "engine", "--max-insns", "25000")

    assert [int(count) for count in re.findall(r"slice of (\d+) instructions", ran.err)] == [10_000, 10_000, 5_000]


def test_a_log_may_go_to_a_file(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "log"

    ran = run([vectors_here(), svc(), asks(), vector(0x200), ERET], "-d", "psci,int", "-D", str(path))

    assert ran == (0, "done\n", "")
    assert len(path.read_text().splitlines()) == 6


def test_a_log_does_not_change_the_run(run: Run) -> None:
    program = [vectors_here(), svc(), asks(), vector(0x200), ERET]

    assert len({run(program, *log)[:2] for log in ((), ("-d", "psci"), ("-d", "int"), ("-d", "engine"), ("-d", "in_asm"))}) == 1


# ---- the same again


@pytest.mark.parametrize("guest", ["race", "rendezvous", "off-on-again", "prober"])
@pytest.mark.parametrize("seed", ["0", "1", "0xffffffffffffffff"])
@pytest.mark.parametrize("host", ["spec", "kvm-6.12"])
def test_two_runs_with_the_same_options_are_identical(capfd: pytest.CaptureFixture[str], guest: str, seed: str, host: str) -> None:
    runs = []
    for _ in range(2):
        arguments = ["run", "-kernel", str(elf_path(guest)), "-smp", "5", "-d", "psci,int,engine", "--seed", seed, "-host", host]
        runs.append((main(arguments), *capfd.readouterr()))

    assert runs[0] == runs[1]
    assert runs[0][0] == 0


def test_another_seed_is_another_schedule(capfd: pytest.CaptureFixture[str]) -> None:
    logs = set()
    for seed in range(4):
        main(["run", "-kernel", str(elf_path("race")), "-smp", "5", "-d", "engine", "--seed", str(seed)])
        logs.add(capfd.readouterr().err)

    assert len(logs) == 4


def test_the_seed_decides_the_entropy(run: Run) -> None:
    program: list[Part] = [call(0xC400_0053, 64), mov(9, FLAG), store(3, 9), prints(""), mov(24, 8), mov(25, FLAG)]
    program += [
        mov(9, 0x0900_0000),
        Label("next"),
        0x3940_0000 | 25 << 5 | 10,
        store8(10, 9),
        add(25, 25, 1),
        subs(24, 24, 1),
        b_ne("next"),
        off(),
    ]

    outputs = [run(program, "--seed", seed, "-serial", "stdio").out for seed in ("0", "0", "7", "7")]

    assert outputs[0] == outputs[1]
    assert outputs[2] == outputs[3]
    assert outputs[0] != outputs[2]


def test_no_cpu_model_reads_the_hosts_randomness(bench: Bench) -> None:
    # Where FEAT_RNG is hidden this is undefined, and both runs end alike.
    program: list[Part] = [vectors_here(), 0xD53B_2400 | 19, 0xD53B_2400 | 20, exits(0), vector(0x200), exits(1)]  # mrs x19, rndr

    first, second = (kept(bench.run(*program, cpu="max")[1])[:2] for _ in range(2))

    assert first == second


# ---- listings


def test_hosts_lists_every_host(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["hosts"]) == 0
    out, err = capfd.readouterr()
    assert [line.split()[0] for line in out.splitlines()] == ["host", *HOSTS]
    assert err == ""


@pytest.mark.parametrize(("host", "count"), [("spec", 8), ("kvm-6.12", 7)])
def test_regs_lists_id_size_value_and_what_is_allowed(capfd: pytest.CaptureFixture[str], host: str, count: int) -> None:
    assert main(["regs", "-host", host]) == 0
    out = capfd.readouterr().out
    rows = out.split("\n\n")[0].splitlines()
    assert len(rows) == count + 1
    assert rows[1].split()[:3] == ["PSCI_VERSION", "0x6030000000140000", "64"]
    assert "EBUSY" in out


def test_regs_shows_what_other_options_made_of_them(capfd: pytest.CaptureFixture[str]) -> None:
    main(["regs", "-psci", "0.2", "-fwreg", "STD_BMAP=0"])
    rows = {line.split()[0]: line.split()[3] for line in capfd.readouterr().out.splitlines() if "0x6030" in line}
    assert (rows["PSCI_VERSION"], rows["STD_BMAP"]) == ("0x2", "0x0")


def test_regs_of_a_host_without_any_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["regs", "-host", "qemu-7"]) == 0
    assert "has no firmware registers" in capfd.readouterr().out


def test_functions_says_who_serves_what(capfd: pytest.CaptureFixture[str]) -> None:
    served = {}
    for host in ("spec", "qemu-7"):
        assert main(["functions", "-host", host]) == 0
        rows = [line.split() for line in capfd.readouterr().out.splitlines() if "SYSTEM_OFF2" in line]
        served[host] = "yes" in rows[0]
    assert served == {"spec": True, "qemu-7": False}


def test_functions_follows_the_version(capfd: pytest.CaptureFixture[str]) -> None:
    main(["functions", "-psci", "0.2"])
    row = next(line for line in capfd.readouterr().out.splitlines() if line.startswith("PSCI_FEATURES"))
    assert "no" in row.split()


def test_guests_lists_the_catalogue_and_tells_one(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["guests"]) == 0
    assert "rendezvous" in capfd.readouterr().out
    assert main(["guests", "race"]) == 0
    assert str(elf_path("race")) in capfd.readouterr().out


@pytest.mark.parametrize("host", ["spec", "kvm-6.12", "qemu-7"])
def test_the_demo_runs_on_every_host(capfd: pytest.CaptureFixture[str], host: str) -> None:
    assert main(["demo", "versions", "-host", host]) == 0
    out, err = capfd.readouterr()
    assert "What the guest concluded:" in out
    assert err == ""


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"], ["help"]])
def test_help_lists_the_commands(capfd: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert main(arguments) == 0
    out = capfd.readouterr().out
    assert all(name in out for name in cli._COMMANDS)


@pytest.mark.parametrize("command", ["run", "regs", "functions", "hosts", "guests", "demo"])
def test_every_command_has_help(capfd: pytest.CaptureFixture[str], command: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "-h"])
    assert ended.value.code == 0
    assert f"usage: psci-emu {command}" in capfd.readouterr().out


@pytest.mark.parametrize("cpu", ["cortex-a57", "max"])
def test_no_cpu_model_says_that_it_has_random_numbers(bench: Bench, cpu: str) -> None:
    _, machine = bench.run(0xD538_0600 | 19, exits(0), cpu=cpu)  # mrs x19, id_aa64isar0_el1

    assert kept(machine)[0] >> 60 == 0
