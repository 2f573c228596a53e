"""The trap path: conduits, immediates, truncation, and one answer whichever way it is found."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Final

import pytest

from emu.machine import Machine
from emu.outcome import ExitCode
from emu.setup import Choices
from emu.trap import Record
from firmware.abi import MASK64, Version
from firmware.dispatch import rows
from firmware.trap import Conduit, Reply, Resume
from tests.emu.programs import (
    AFFINITY_INFO,
    CPU_OFF,
    CPU_ON,
    PSCI_FEATURES,
    PSCI_VERSION,
    SCRATCH,
    SYSTEM_OFF,
    TEXT,
    WFI,
    At,
    Bench,
    Label,
    Part,
    add,
    b,
    b_ne,
    brk,
    call,
    call_at,
    copy,
    exits,
    hvc,
    keeps_exception,
    kept,
    ldr,
    mov,
    off,
    prints,
    skips,
    smc,
    store,
    subs,
    to_el,
    vector,
    vectors_here,
)

NOT_SUPPORTED: Final = -1 & MASK64
INVALID_PARAMETERS: Final = -2 & MASK64
UNDEFINED: Final = 0x200_0000  # ESR_EL1: EC 0, IL
JUNK: Final = 0xDEAD_BEEF_0000_0000
PARKED: Final = TEXT + 0x4000  # where a vCPU that a question starts can do no harm
UNANSWERED: Final = 0x5151_5151_5151_5151  # what x0 to x3 never get as an answer
HOSTS: Final = {"spec": ("0.1", "0.2", "1.0", "1.1", "1.2", "1.3"), "kvm-6.12": ("0.1", "0.2", "1.0", "1.1"), "qemu-7": ("1.1",)}
HOST_VERSIONS: Final = tuple((host, version) for host, versions in HOSTS.items() for version in versions)
CONDUITS: Final = {Conduit.HVC: hvc(), Conduit.SMC: smc()}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def keeps_results() -> list[Part]:
    """Keep x0 to x3 in x19 to x22 and end."""
    return [*(copy(19 + number, number) for number in range(4)), exits(0)]


def answer(bench: Bench, host: str, conduit: str, instruction: int, *, fid: int = PSCI_VERSION) -> tuple[int, ...]:
    """Make one call; return x0 to x3 after it, or (ESR, ELR, SPSR, FAR) where it was undefined."""
    program: list[Part] = [vectors_here(), call(fid, conduit=instruction), keeps_results(), vector(0x200), keeps_exception()]
    _, machine = bench.run(*program, choices=Choices(host=host, conduit=conduit))
    return kept(machine)[:4]


# ---- conduits

V1_3, V1_1 = Version(1, 3).word, Version(1, 1).word
CALL_SITE: Final = TEXT + 4 * 21  # after vectors_here() and the four constants


@pytest.mark.parametrize(
    ("host", "conduit", "hvc_version", "smc_version"),
    [
        ("spec", "hvc", V1_3, None),
        ("spec", "smc", None, V1_3),
        ("spec", "both", V1_3, V1_3),
        ("spec", "none", None, None),
        ("qemu-7", "hvc", V1_1, None),
        ("qemu-7", "smc", None, V1_1),
        ("qemu-7", "both", V1_1, V1_1),
        ("qemu-7", "none", None, None),
        # KVM serves whatever it serves: the conduit is what the node says.
        ("kvm-6.12", "hvc", V1_1, V1_1),
        ("kvm-6.12", "smc", V1_1, V1_1),
        ("kvm-6.12", "both", V1_1, V1_1),
        ("kvm-6.12", "none", None, None),
    ],
)
def test_a_conduit_is_served_or_undefined_at_its_own_instruction(
    bench: Bench, host: str, conduit: str, hvc_version: int | None, smc_version: int | None
) -> None:
    for instruction, version in ((hvc(), hvc_version), (smc(), smc_version)):
        x19, x20, x21, x22 = answer(bench, host, conduit, instruction)

        if version is None:
            assert (x19, x20, x21) == (UNDEFINED, CALL_SITE, 0x3C5)
        else:
            assert (x19, x20, x21, x22) == (version, 0, 0, 0)


def test_without_firmware_both_conduits_are_undefined(bench: Bench) -> None:
    for instruction in CONDUITS.values():
        program: list[Part] = [vectors_here(), call(PSCI_VERSION, conduit=instruction), exits(1), vector(0x200), keeps_exception()]

        outcome, machine = bench.run(*program, choices=Choices(psci="none"))

        assert outcome.code == 7
        assert kept(machine)[:2] == (UNDEFINED, CALL_SITE)


def test_an_undefined_conduit_without_a_usable_vector_is_a_guest_crash(bench: Bench) -> None:
    outcome, _ = bench.run(call(PSCI_VERSION, conduit=smc()), off())

    assert outcome.code == ExitCode.CRASH


@pytest.mark.parametrize(
    ("host", "conduit", "instruction", "x0"),
    [
        ("spec", "both", hvc(0xFFFF), V1_3),
        ("spec", "both", smc(1), V1_3),
        ("qemu-7", "both", hvc(1), V1_1),
        ("qemu-7", "both", smc(0x8000), V1_1),
        ("kvm-6.12", "hvc", hvc(1), V1_1),
        ("kvm-6.12", "hvc", smc(1), NOT_SUPPORTED),
        ("kvm-6.12", "hvc", smc(0xFFFF), NOT_SUPPORTED),
        ("kvm-6.12", "hvc", smc(0), V1_1),
    ],
)
def test_the_immediate_counts_where_the_host_looks_at_it(bench: Bench, host: str, conduit: str, instruction: int, x0: int) -> None:
    assert answer(bench, host, conduit, instruction)[0] == x0


@pytest.mark.parametrize("instruction", [hvc(0x1234), smc(0x1234)])
def test_a_record_holds_the_immediate_the_call_site_and_the_registers(bench: Bench, instruction: int) -> None:
    records: list[Record] = []
    machine = bench.machine(call(PSCI_VERSION, 1, 2, 3, conduit=instruction), exits(0), choices=Choices(conduit="both"))
    machine.trap_path.watch(records.append)

    machine.run()

    (record,) = records
    conduit = Conduit.HVC if instruction == hvc(0x1234) else Conduit.SMC
    assert (record.trap.vcpu, record.trap.conduit, record.trap.imm) == (0, conduit, 0x1234)
    assert record.trap.regs == (PSCI_VERSION, 1, 2, 3)
    assert record.pc == TEXT + 4 * 16
    assert record.reply == Reply(((0, V1_3),))
    assert record.function is not None
    assert record.function.name == "PSCI_VERSION"


def test_every_other_register_survives_a_call(bench: Bench) -> None:
    program: list[Part] = [*(mov(number, 0x1000 + number) for number in range(4, 31)), call(PSCI_VERSION), mov(0, SYSTEM_OFF), hvc()]

    _, machine = bench.run(*program)

    assert [machine.engine.x[number].get() for number in range(4, 31)] == [0x1000 + number for number in range(4, 31)]


def test_a_call_does_not_change_pstate(bench: Bench) -> None:
    machine = bench.machine(0xD51B_4200 | 9, mov(9, 0), call(PSCI_VERSION), brk())  # msr nzcv, x9
    machine.engine.x[9].set(0xF000_0000)

    machine.run()

    assert machine.engine.system_register((3, 0, 4, 0, 0)) >> 28 == 0xF  # SPSR_EL1 of the BRK


# ---- SMC32


@pytest.mark.parametrize(
    ("host", "fid", "arguments", "x0"),
    [
        # Hosts that truncate see vCPU 1 in the low half; QEMU sees a CPU that does not exist.
        ("spec", 0x8400_0004, (JUNK | 1, JUNK), 1),
        ("kvm-6.12", 0x8400_0004, (JUNK | 1, JUNK), 1),
        ("qemu-7", 0x8400_0004, (JUNK | 1, 0), INVALID_PARAMETERS),
        ("spec", 0xC400_0004, (JUNK | 1, 0), INVALID_PARAMETERS),
        ("kvm-6.12", 0xC400_0004, (JUNK | 1, 0), INVALID_PARAMETERS),
        ("spec", 0x8400_0003, (JUNK | 1, JUNK | TEXT, JUNK), 0),
        ("kvm-6.12", 0x8400_0003, (JUNK | 1, JUNK | TEXT, JUNK), 0),
        ("qemu-7", 0x8400_0003, (JUNK | 1, TEXT, 0), INVALID_PARAMETERS),
        ("spec", 0xC400_0003, (JUNK | 1, TEXT, 0), INVALID_PARAMETERS),
        ("kvm-6.12", 0xC400_0003, (JUNK | 1, TEXT, 0), INVALID_PARAMETERS),
    ],
)
def test_the_smc32_form_is_truncated_where_the_column_says_so(
    bench: Bench, host: str, fid: int, arguments: tuple[int, ...], x0: int
) -> None:
    _, machine = bench.run(call(fid, *arguments), keeps_results(), choices=Choices(host=host, mpidrs=(0, 1)))

    assert kept(machine)[0] == x0


@pytest.mark.parametrize(("host", "x0"), [("spec", V1_3), ("kvm-6.12", V1_1), ("qemu-7", NOT_SUPPORTED)])
def test_the_upper_half_of_x0_counts_only_where_the_host_looks_at_it(bench: Bench, host: str, x0: int) -> None:
    assert answer(bench, host, "hvc", hvc(), fid=JUNK | PSCI_VERSION)[0] == x0


# ---- both ways


def observed_ids(machine: Machine) -> list[int]:
    """Every function ID with a name, and some without: other owners, hints, yielding calls, junk."""
    named = {fid for _, function in rows(machine.config) for fid in function.fids}
    strange = {0, 1, 0x7FFF_FFFF, 0x8000_FFFF, 0x8401_0000, 0xC401_0003, 0x8400_001F, 0xBF00_FF01, 0xFFFF_FFFF, 0x84FF_0000, 0x0400_0000}
    return sorted(named | strange)


# Calls whose effect ends the guest's turn are compared by themselves, below.
SYSTEM: Final = frozenset({"SYSTEM_OFF", "SYSTEM_RESET", "SYSTEM_SUSPEND", "SYSTEM_RESET2", "SYSTEM_OFF2"})
LEAVING: Final = SYSTEM | {"CPU_SUSPEND", "CPU_DEFAULT_SUSPEND", "CPU_OFF", "CPU_FREEZE"}


def asked(machine: Machine) -> list[tuple[int, int]]:
    """(x0, x1) of the calls to compare: every ID plain and with junk, and every discovery call about every ID."""
    names = machine.trap_path.names
    returning = [fid for fid in observed_ids(machine) if fid not in names or names[fid].name not in LEAVING]
    plain = [(fid | high, x1) for fid in returning for high, x1 in itertools.product((0, JUNK, 1 << 32), (0, JUNK | 1))]
    queries = [
        (query, fid | high)
        for query in (0x8400_000A, 0x8000_0001, 0x8400_0051, 0xC500_0020)
        for fid in observed_ids(machine)
        for high in (0, JUNK, 1 << 32)
    ]
    return plain + queries


def answers(bench: Bench, choices: Choices, instruction: int, questions: list[tuple[int, int]], *, watched: bool) -> list[tuple[int, ...]]:
    """Ask in a loop: pairs at SCRATCH, replies behind them, 4 words each; undefined calls answer with UNANSWERED."""
    replies_at = SCRATCH + 16 * len(questions) + 16
    asks: list[Part] = [
        vectors_here(),
        mov(24, SCRATCH),
        mov(25, replies_at),
        mov(26, len(questions)),
        Label("next"),
        mov(2, PARKED),
        mov(3, 2),
        ldr(0, 24),
        ldr(1, 24, 8),
        instruction,
        *(store(number, 25, 8 * number) for number in range(4)),
        add(24, 24, 16),
        add(25, 25, 32),
        subs(26, 26, 1),
        b_ne("next"),
        exits(0),
        At(PARKED - TEXT),
        Label("parked"),
        WFI,
        b("parked"),
        vector(0x200),
        mov(0, UNANSWERED),
        skips(),
    ]
    machine = bench.machine(*asks, choices=choices)
    machine.memory.write(SCRATCH, b"".join(x.to_bytes(8, "little") for pair in questions for x in pair))
    if watched:
        machine.trap_path.watch(lambda _record: None)
    outcome = machine.run()
    assert outcome.code == 0, outcome
    content = machine.memory.read(replies_at, 32 * len(questions))
    assert content is not None
    words = [int.from_bytes(content[start : start + 8], "little") for start in range(0, len(content), 8)]
    return [tuple(words[start : start + 4]) for start in range(0, len(words), 4)]


@pytest.mark.parametrize("conduit", CONDUITS, ids=lambda conduit: conduit.value)
@pytest.mark.parametrize(("host", "version"), HOST_VERSIONS)
def test_the_fast_and_the_long_way_give_the_same_registers(bench: Bench, host: str, version: str, conduit: Conduit) -> None:
    choices = Choices(host=host, psci=version, conduit="both", mpidrs=(0, 1))
    questions = asked(bench.machine(exits(0), choices=choices))

    fast = answers(bench, choices, CONDUITS[conduit], questions, watched=False)
    slow = answers(bench, choices, CONDUITS[conduit], questions, watched=True)

    assert dict(zip(questions, fast, strict=True)) == dict(zip(questions, slow, strict=True))


def test_both_ways_say_what_the_firmware_says(bench: Bench) -> None:
    choices = Choices(host="kvm-6.12", conduit="both", mpidrs=(0, 1))
    machine = bench.machine(exits(0), choices=choices)
    questions = [(fid, x1) for fid, x1 in asked(machine) if (fid & 0xFFFF_FFFF) >> 16 == 0x8400 and fid & 0xFFFF in (0, 6, 10)]
    expected = []
    for question in questions:
        found = machine.firmware.tables.by_conduit[Conduit.HVC].find(*question, 0)
        assert isinstance(found, Reply)
        assert found.resume is Resume.NEXT
        expected.append(tuple({**dict(enumerate((*question, PARKED, 2))), **dict(found.regs)}[number] for number in range(4)))

    assert answers(bench, choices, hvc(), questions, watched=False) == expected


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("x0", [0x8400_0002, 0x8400_0008, 0xC400_0001, 0x8400_0001], ids=hex)
def test_calls_that_leave_end_alike_watched_or_not(bench: Bench, host: str, x0: int) -> None:
    ends = []
    for watched in (False, True):
        machine = bench.machine(call(x0, JUNK, TEXT), exits(3), choices=Choices(host=host))
        if watched:
            machine.trap_path.watch(lambda _record: None)
        outcome = machine.run()
        ends.append((outcome, [register.get() for register in machine.engine.x], machine.engine.pc.get(), machine.clock.now_ns))

    assert ends[0] == ends[1]


def test_watching_one_function_leaves_the_others_alone(bench: Bench) -> None:
    seen: list[str] = []
    machine = bench.machine(call(PSCI_VERSION), call(PSCI_FEATURES, PSCI_VERSION), call(AFFINITY_INFO), call(0x8400_9999), exits(0))
    machine.trap_path.watch(lambda record: seen.append(record.function.name if record.function else "?"), frozenset({"PSCI_FEATURES"}))

    machine.run()

    assert seen == ["PSCI_FEATURES"]


def test_two_observers_both_see_a_call_in_the_order_they_came(bench: Bench) -> None:
    seen: list[str] = []
    machine = bench.machine(call(PSCI_VERSION), exits(0))
    machine.trap_path.watch(lambda _record: seen.append("first"))
    machine.trap_path.watch(lambda _record: seen.append("second"), frozenset({"PSCI_VERSION"}))

    machine.run()

    assert seen == ["first", "second"]


def test_a_watched_call_is_seen_after_it_is_applied(bench: Bench) -> None:
    seen: list[tuple[int, str, str]] = []
    machine = bench.machine(call(CPU_ON, 1, TEXT), exits(0), choices=Choices(mpidrs=(0, 1)))
    machine.trap_path.watch(lambda record: seen.append((machine.engine.x[0].get(), record.before[1].name, record.after[1].name)))

    machine.run()

    assert seen[0] == (0, "OFF", "ON_PENDING")


def test_the_last_calls_are_kept_the_fast_way_too(bench: Bench) -> None:
    _, machine = bench.run(*(call(PSCI_FEATURES, number) for number in range(12)), call(CPU_ON, 9), exits(0))

    recent = machine.trap_path.recent()

    assert [record.trap.regs[1] for record in recent] == [*range(3, 12), 9]
    assert recent[-1].reply == Reply(((0, INVALID_PARAMETERS),))
    assert recent[0].pc == TEXT + 4 * (17 * 3 + 16)


# ---- changes while it runs


def test_a_register_write_is_in_force_at_the_next_call(bench: Bench) -> None:
    machine = bench.machine(call(PSCI_VERSION), copy(19, 0), call(PSCI_VERSION), copy(20, 0), exits(0))
    machine.trap_path.watch(lambda _record: machine.set_one_reg(0x6030_0000_0014_0000, 2), frozenset({"PSCI_VERSION"}))

    machine.run()

    assert kept(machine)[:2] == (V1_3, 2)


# ---- our own mistakes


@pytest.mark.parametrize("watched", [False, True])
def test_a_mistake_in_the_firmware_stops_the_run_and_is_no_answer(bench: Bench, monkeypatch: pytest.MonkeyPatch, watched: bool) -> None:
    machine = bench.machine(call(CPU_ON, 1), prints("went on"), exits(0))
    if watched:
        machine.trap_path.watch(lambda _record: None)

    def fails(_target_cpu: int) -> int:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(machine.firmware.power, "find", fails)

    with pytest.raises(ZeroDivisionError, match="ours"):
        machine.run()
    assert machine.engine.x[0].get() == CPU_ON
    assert not machine.console.uart.tx


@pytest.mark.parametrize("names", [None, frozenset({"PSCI_VERSION"})])
def test_a_mistake_in_an_observer_stops_the_run(bench: Bench, names: frozenset[str] | None) -> None:
    machine = bench.machine(call(PSCI_VERSION), prints("went on"), exits(0))

    def fails(_record: Record) -> None:
        raise LookupError("ours")

    machine.trap_path.watch(fails, names)

    with pytest.raises(LookupError, match="ours"):
        machine.run()
    assert not machine.console.uart.tx


def test_a_mistake_in_a_device_stops_the_run(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = bench.machine(prints("x"), exits(0))

    def fails(*_anything: object) -> None:
        raise LookupError("ours")

    monkeypatch.setattr(type(machine.console.uart), "write", fails)
    machine.console.front.serve(0, notes=False)

    with pytest.raises(LookupError, match="ours"):
        machine.run()


# ---- where calls come from


def test_a_call_from_el0_is_undefined_at_el1(bench: Bench) -> None:
    for instruction in CONDUITS.values():
        program: list[Part] = [vectors_here(), to_el(0, "el0"), At(0x1000), Label("el0"), instruction, vector(0x400), keeps_exception()]

        _, machine = bench.run(*program, choices=Choices(conduit="both"))

        assert kept(machine)[:3] == (UNDEFINED, TEXT + 0x1000, 0)


def test_a_vcpu_that_is_off_never_traps(bench: Bench) -> None:
    seen: list[int] = []
    program: list[Part] = [
        call_at(CPU_ON, 1, "second"),
        Label("ask"),
        call(AFFINITY_INFO, 1),
        b("ask"),
        Label("second"),
        call(CPU_OFF),
        exits(9),
    ]
    machine = bench.machine(*program, choices=Choices(mpidrs=(0, 1, 2)), max_insns=100_000)
    machine.trap_path.watch(lambda record: seen.append(record.trap.vcpu))

    outcome = machine.run()

    assert outcome.code == ExitCode.LIMIT
    assert seen.count(1) == 1
    assert 2 not in seen


@pytest.mark.parametrize("hint", [0, 0x1_0000])
def test_a_call_with_the_sve_hint_is_a_call_of_its_row(bench: Bench, hint: int) -> None:
    seen: list[int] = []
    machine = bench.machine(call(PSCI_VERSION | hint), copy(19, 0), exits(0))
    machine.trap_path.watch(lambda record: seen.append(record.reply.regs[0][1]), frozenset({"PSCI_VERSION"}))

    machine.run()

    assert kept(machine)[0] == V1_3
    assert seen == [V1_3]


@pytest.mark.parametrize("everything", [False, True])
def test_what_an_observer_of_one_function_sees_does_not_depend_on_who_else_looks_on(bench: Bench, everything: bool) -> None:
    # QEMU compares all of x0, so this is an unknown ID there, whoever looks.
    seen: list[int] = []
    machine = bench.machine(call(JUNK | PSCI_VERSION), call(PSCI_VERSION), exits(0), choices=Choices(host="qemu-7"))
    if everything:
        machine.trap_path.watch(lambda _record: None)
    machine.trap_path.watch(lambda record: seen.append(record.trap.regs[0]), frozenset({"PSCI_VERSION"}))

    machine.run()

    assert seen == [PSCI_VERSION]
