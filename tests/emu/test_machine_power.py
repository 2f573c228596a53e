"""vCPUs that go on, off, to sleep and back, and the machine's reset, as a guest sees them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Final

import pytest

from emu.machine import Machine
from emu.outcome import ExitCode
from emu.setup import Choices
from firmware.abi import MASK64, PowerState
from firmware.hosts import HOSTS
from tests.emu.programs import (
    AFFINITY_INFO,
    B_SELF,
    CPU_OFF,
    CPU_ON,
    CPU_SUSPEND,
    ISB,
    NOP,
    NOWHERE,
    SCRATCH,
    STACK,
    SYSTEM_RESET,
    SYSTEM_RESET2,
    SYSTEM_SUSPEND,
    TEXT,
    VECTORS,
    WFI,
    At,
    Bench,
    Label,
    Part,
    add,
    adr,
    b,
    b_ne,
    brk,
    call,
    call_at,
    cbnz,
    cbz,
    copy,
    exits,
    flat,
    get_sp,
    hvc,
    keeps_exception,
    kept,
    ldr,
    mov,
    movz,
    mrs,
    msr,
    off,
    set_sp,
    set_system,
    store,
    sub,
    subs,
    word_at,
)

CONTEXT: Final = 0x1122_3344_5566_7788
FLAG: Final = SCRATCH + 0x100  # where one vCPU tells another that it is done
ENTRY: Final = 0x3C5
SCTLR_EE: Final = 1 << 25
DENIED: Final = -3 & MASK64
ALREADY_ON: Final = -4 & MASK64
INVALID_PARAMETERS: Final = -2 & MASK64
INVALID_ADDRESS: Final = -9 & MASK64
TWO: Final = Choices(mpidrs=(0, 1))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def raises_flag() -> list[Part]:
    return [mov(9, FLAG), movz(10, 1), store(10, 9), Label("stay"), WFI, b("stay")]


def waits_for_flag(address: int = FLAG) -> list[Part]:
    return [mov(9, address), Label("wait"), ldr(10, 9), cbz(10, "wait")]


# ---- topology


@pytest.mark.parametrize(
    "mpidrs", [(0,), (0, 1, 2, 3, 4, 5, 6, 7), (0, 1, 0x100, 0x101), (0x12_0304_0506 & 0xFF_00FF_FFFF, 0xFF_00FF_FFFF)]
)
@pytest.mark.parametrize("cpu", ["cortex-a53", "cortex-a57", "cortex-a72", "max"])
def test_every_vcpu_reads_its_own_mpidr_and_starts_with_its_context_id(bench: Bench, mpidrs: tuple[int, ...], cpu: str) -> None:
    # Each vCPU stores MPIDR_EL1 and its x0 at SCRATCH + 16 * x0, then counts itself.
    starts: list[Part] = [
        [*mov(0, CPU_ON), *mov(1, mpidr), adr(2, "go"), *mov(3, index), hvc()] for index, mpidr in enumerate(mpidrs) if index
    ]
    body: list[Part] = [
        Label("go"),
        mrs(11, "MPIDR_EL1"),
        mov(9, SCRATCH),
        0xD37C_EC0A,  # lsl x10, x0, #4
        0x8B0A_0129,  # add x9, x9, x10
        store(11, 9),
        add(12, 0, 1),
        store(12, 9, 8),
        cbz(0, "boot"),
        Label("stay"),
        WFI,
        b("stay"),
        Label("boot"),
    ]
    waits: list[Part] = [
        [mov(9, SCRATCH + 16 * index + 8), Label(f"w{index}"), ldr(10, 9), cbz(10, f"w{index}")] for index in range(len(mpidrs))
    ]

    outcome, machine = bench.run(starts, mov(0, 0), body, waits, off(), choices=Choices(mpidrs=mpidrs), cpu=cpu)

    assert outcome.code == 0
    seen = [(word_at(machine, SCRATCH + 16 * index), word_at(machine, SCRATCH + 16 * index + 8)) for index in range(len(mpidrs))]
    assert seen == [(0x8000_0000 | mpidr, index + 1) for index, mpidr in enumerate(mpidrs)]


# ---- CPU_ON


def started(bench: Bench, *prelude: Part, host: str = "spec", entered: list[Part] | None = None) -> Machine:
    """Start vCPU 1 with CONTEXT; it keeps x0, PSTATE and SCTLR_EL1 behind FLAG."""
    keeps: list[Part] = [
        mov(9, FLAG + 8),
        store(0, 9),
        mrs(10, "DAIF"),
        store(10, 9, 8),
        mrs(10, "SCTLR_EL1"),
        store(10, 9, 16),
        mrs(10, "CURRENTEL"),
        store(10, 9, 24),
        get_sp(10),
        store(10, 9, 32),
        mrs(10, "VBAR_EL1"),
        store(10, 9, 40),
    ]
    program: list[Part] = [prelude, call_at(CPU_ON, 1, "second", CONTEXT), waits_for_flag(), off()]
    program += [Label("second"), entered or [], keeps, raises_flag()]
    _, machine = bench.run(*program, choices=Choices(host=host, mpidrs=(0, 1)))
    return machine


@pytest.mark.parametrize("host", ["spec", "kvm-6.12", "qemu-7"])
def test_a_started_vcpu_has_the_standards_initial_state(bench: Bench, host: str) -> None:
    machine = started(bench, host=host)

    x0, daif, sctlr, current_el, _sp, vbar = (word_at(machine, FLAG + 8 * index) for index in range(1, 7))
    assert (x0, daif, current_el, vbar) == (CONTEXT, 0x3C0, 1 << 2, 0)
    assert sctlr & (SCTLR_EE | 1) == 0


def big_endian() -> list[Part]:
    return [mrs(9, "SCTLR_EL1"), mov(10, SCTLR_EE), 0xAA0A_0129, msr("SCTLR_EL1", 9), ISB]  # orr x9, x9, x10


@pytest.mark.parametrize(("host", "inherits"), [("spec", True), ("kvm-6.12", True), ("qemu-7", False)])
def test_the_callers_endianness_is_inherited_where_the_column_says_so(bench: Bench, host: str, inherits: bool) -> None:
    program: list[Part] = [big_endian(), call_at(CPU_ON, 1, "second", CONTEXT), Label("stay"), b("stay")]
    program += [Label("second"), mrs(19, "SCTLR_EL1"), mov(9, FLAG), mov(10, 0x1122_3344_5566_7788), store(10, 9), brk()]

    outcome, machine = bench.run(*program, choices=Choices(host=host, mpidrs=(0, 1)))

    assert outcome.code == ExitCode.CRASH
    assert machine.engine.current == 1
    assert bool(kept(machine)[0] & SCTLR_EE) is inherits
    content = machine.memory.read(FLAG, 8)
    assert content == (0x1122_3344_5566_7788).to_bytes(8, "big" if inherits else "little")


def test_endianness_is_the_callers_at_the_call_and_not_the_machines(bench: Bench) -> None:
    # vCPU 1 is started little-endian; only afterwards vCPU 0 changes.
    machine = started(bench)

    assert word_at(machine, FLAG + 24) & SCTLR_EE == 0


def test_registers_of_an_earlier_life_are_gone(bench: Bench) -> None:
    spoils: list[Part] = [mov(9, STACK), set_sp(9), set_system("VBAR_EL1", VECTORS), mov(19, 0x77), mov(9, FLAG + 0x80), ldr(10, 9)]
    spoils += [cbnz(10, "again"), movz(10, 1), store(10, 9), call(CPU_OFF), Label("again")]
    program: list[Part] = [
        call_at(CPU_ON, 1, "second"),
        waits_for_flag(FLAG + 0x80),
        Label("off"),
        call(AFFINITY_INFO, 1),
        cbz(0, "off"),
        call_at(CPU_ON, 1, "second"),
        mov(9, FLAG),
        Label("done"),
        ldr(10, 9),
        cbz(10, "done"),
        off(),
        Label("second"),
        mrs(20, "VBAR_EL1"),
        mov(9, FLAG + 0x88),
        store(19, 9),
        store(20, 9, 8),
        spoils,
        raises_flag(),
    ]

    outcome, machine = bench.run(*program, choices=TWO)

    assert outcome.code == 0
    assert (word_at(machine, FLAG + 0x88), word_at(machine, FLAG + 0x90)) == (0, 0)


@pytest.mark.parametrize(
    ("host", "entry", "x0"),
    [
        ("spec", TEXT + 2, INVALID_ADDRESS),
        ("spec", NOWHERE, INVALID_ADDRESS),
        ("qemu-7", TEXT + 2, INVALID_PARAMETERS),
        ("kvm-6.12", TEXT + 2, 0),
        ("kvm-6.12", NOWHERE, 0),
    ],
)
def test_a_bad_entry_point_is_refused_where_the_host_checks(bench: Bench, host: str, entry: int, x0: int) -> None:
    _, machine = bench.run(call(CPU_ON, 1, entry), copy(19, 0), exits(0), choices=Choices(host=host, mpidrs=(0, 1)))

    assert kept(machine)[0] == x0


def test_an_entry_point_in_unmapped_memory_crashes_the_started_vcpu_on_kvm(bench: Bench) -> None:
    program: list[Part] = [call(CPU_ON, 1, NOWHERE), Label("stay"), b("stay")]

    outcome, machine = bench.run(*program, choices=Choices(host="kvm-6.12", mpidrs=(0, 1)))

    assert outcome.code == ExitCode.CRASH
    assert outcome.sentence.startswith(f"guest crash: instruction fetch from unmapped address {NOWHERE:#x}")
    assert machine.engine.current == 1


@pytest.mark.parametrize("misalignment", [1, 2, 3])
def test_a_misaligned_entry_point_on_kvm_is_a_pc_alignment_exception(tmp_path: Path, bench: Bench, misalignment: int) -> None:
    # VBAR_EL1 is 0 after CPU_ON, so the handler has to be at 0, in flash.
    bios = tmp_path / "bios.bin"
    program: list[Part] = [call(CPU_ON, 1, 0x1000 + misalignment), Label("stay"), b("stay"), At(0x200), keeps_exception(), At(0x1000)]
    bios.write_bytes(flat(*program, *([NOP] * 64), exits(3)))
    setup = dataclasses.replace(
        bench.setup(NOP, choices=Choices(host="kvm-6.12", mpidrs=(0, 1))), kernel=None, bios=bios, max_insns=100_000
    )
    machine = Machine(setup)

    outcome = machine.run()

    assert outcome.code == 7
    assert kept(machine)[:4] == (0x8A00_0000, 0x1000 + misalignment, ENTRY, 0x1000 + misalignment)


@pytest.mark.parametrize(("host", "second"), [("spec", -5 & MASK64), ("kvm-6.12", ALREADY_ON), ("qemu-7", ALREADY_ON)])
def test_a_second_cpu_on_before_the_first_has_run_gets_what_the_host_gives(bench: Bench, host: str, second: int) -> None:
    program: list[Part] = [call_at(CPU_ON, 1, "second"), copy(19, 0), call_at(CPU_ON, 1, "second"), copy(20, 0), exits(0)]

    _, machine = bench.run(*program, Label("second"), B_SELF, choices=Choices(host=host, mpidrs=(0, 1)))

    assert kept(machine)[:2] == (0, second)


def test_a_vcpu_may_not_start_itself(bench: Bench) -> None:
    _, machine = bench.run(call(CPU_ON, 0, TEXT), copy(19, 0), exits(0))

    assert kept(machine)[0] == ALREADY_ON


# ---- CPU_OFF


def test_cpu_off_does_not_return_and_affinity_info_tells(bench: Bench) -> None:
    program: list[Part] = [
        call_at(CPU_ON, 1, "second"),
        Label("on"),
        call(AFFINITY_INFO, 1),
        sub(9, 0, 1),
        cbnz(9, "on"),
        off(),
        Label("second"),
        call(CPU_OFF),
        exits(9),
    ]

    outcome, machine = bench.run(*program, choices=TWO)

    assert outcome.code == 0
    assert machine.firmware.power.states == [PowerState.OFF, PowerState.OFF]


def test_when_every_vcpu_is_off_the_machine_stands_still(bench: Bench) -> None:
    outcome, _ = bench.run(call(CPU_OFF), exits(9), choices=TWO)

    assert outcome == (ExitCode.DEADLOCK, "deadlock: cpu0 is OFF, cpu1 is OFF")


def test_the_boot_vcpu_may_go_off_and_be_started_again(bench: Bench) -> None:
    program: list[Part] = [
        call_at(CPU_ON, 1, "second"),
        call(CPU_OFF),
        exits(9),
        Label("second"),
        call(AFFINITY_INFO, 0),
        cbz(0, "second"),
        call_at(CPU_ON, 0, "first", CONTEXT),
        Label("stay"),
        WFI,
        b("stay"),
        Label("first"),
        copy(19, 0),
        exits(4),
    ]

    outcome, machine = bench.run(*program, choices=TWO)

    assert outcome.code == 4
    assert machine.engine.current == 0
    assert kept(machine)[0] == CONTEXT


# ---- CPU_SUSPEND


EXTENDED: Final = HOSTS["spec"].evolve(cite="a test", extended_state_id=True)
POWERDOWN: Final = {False: 0x0001_0000, True: 0x4000_0000}


def timer_in(ticks: int, control: int = 1) -> list[Part]:
    return [set_system("CNTV_TVAL_EL0", ticks), set_system("CNTV_CTL_EL0", control)]


def suspends(bench: Bench, extended: bool, power_state: int, *, host: str = "spec") -> tuple[int, Machine]:
    """Suspend with a timer running; return the exit code: 1 after standby, 2 at the entry point."""
    program: list[Part] = [
        timer_in(1000),
        mov(19, 0x1919),
        call_at(CPU_SUSPEND, power_state, "entry", CONTEXT),
        copy(20, 0),
        exits(1),
        Label("entry"),
        copy(20, 0),
        mrs(21, "CNTV_CTL_EL0"),
        exits(2),
    ]
    setup = bench.setup(*program, choices=Choices(host=host))
    if extended:
        setup = dataclasses.replace(setup, config=dataclasses.replace(setup.config, host=EXTENDED))
    machine = Machine(dataclasses.replace(setup, max_insns=100_000))
    return machine.run().code, machine


@pytest.mark.parametrize("extended", [False, True])
def test_a_standby_state_returns_success_with_registers_kept(bench: Bench, extended: bool) -> None:
    code, machine = suspends(bench, extended, 0x1)

    assert code == 1
    assert kept(machine)[:2] == (0x1919, 0)
    assert machine.firmware.power.states == [PowerState.ON]


@pytest.mark.parametrize("extended", [False, True])
def test_a_powerdown_state_resumes_at_its_entry_point_with_its_context(bench: Bench, extended: bool) -> None:
    code, machine = suspends(bench, extended, POWERDOWN[extended] | 1)

    assert code == 2
    assert kept(machine)[1] == CONTEXT
    assert kept(machine)[0] == 0  # all other state is lost
    assert kept(machine)[2] == 0b101  # but for the timer, which has woken it: ENABLE, ISTATUS


@pytest.mark.parametrize("extended", [False, True])
def test_the_other_formats_powerdown_bit_is_refused(bench: Bench, extended: bool) -> None:
    code, machine = suspends(bench, extended, 0x8000_0000)

    assert code == 1
    assert kept(machine)[1] == INVALID_PARAMETERS


def test_a_powerdown_state_with_a_bad_entry_point_is_refused(bench: Bench) -> None:
    _, machine = bench.run(call(CPU_SUSPEND, 0x1_0000, NOWHERE), copy(19, 0), exits(0))

    assert kept(machine)[0] == INVALID_ADDRESS


@pytest.mark.parametrize("host", ["kvm-6.12", "qemu-7"])
def test_hosts_that_only_wait_return_success_from_a_state_of_theirs(bench: Bench, host: str) -> None:
    code, machine = suspends(bench, False, 0x1_0000 if host == "kvm-6.12" else 0, host=host)

    assert code == 1
    assert kept(machine)[:2] == (0x1919, 0)


def test_a_suspended_vcpu_without_a_timer_is_a_deadlock(bench: Bench) -> None:
    outcome, _ = bench.run(call(CPU_SUSPEND), exits(1))

    assert outcome.code == ExitCode.DEADLOCK
    assert outcome.sentence == "deadlock: cpu0 is SUSPENDED and waits for an interrupt, in CPU_SUSPEND"


def test_a_suspended_vcpu_is_on_for_affinity_info(bench: Bench) -> None:
    program: list[Part] = [
        call_at(CPU_ON, 1, "second"),
        mov(24, 2000),
        Label("ask"),
        call(AFFINITY_INFO, 1),
        subs(24, 24, 1),
        b_ne("ask"),
        copy(19, 0),
        exits(0),
        Label("second"),
        call(CPU_SUSPEND),
    ]

    outcome, machine = bench.run(*program, choices=TWO)

    assert outcome.code == 0
    assert kept(machine)[0] == 0


# ---- SYSTEM_SUSPEND


def system_suspends(bench: Bench, host: str, *prelude: Part) -> tuple[int, Machine]:
    program: list[Part] = [
        timer_in(1000),
        prelude,
        mov(0, SYSTEM_SUSPEND),
        adr(1, "entry"),
        mov(2, CONTEXT),
        mov(3, 0),
        hvc(),
        copy(20, 0),
        exits(1),
        Label("entry"),
        copy(20, 0),
        mrs(21, "CNTV_CTL_EL0"),
        exits(2),
        Label("second"),
        WFI,
        b("second"),
    ]
    cap = ("system-suspend",) if host == "kvm-6.12" else ()
    outcome, machine = bench.run(*program, choices=Choices(host=host, mpidrs=(0, 1), cap=cap), max_insns=200_000)
    return outcome.code, machine


@pytest.mark.parametrize("host", ["spec", "kvm-6.12"])
def test_system_suspend_wakes_up_by_timer_at_the_entry_point_with_its_context(bench: Bench, host: str) -> None:
    code, machine = system_suspends(bench, host)

    assert code == 2
    assert kept(machine)[1] == CONTEXT
    assert machine.firmware.power.states[0] is PowerState.ON


def test_system_suspend_is_denied_while_another_cpu_is_on(bench: Bench) -> None:
    code, machine = system_suspends(bench, "spec", call_at(CPU_ON, 1, "second"))

    assert code == 1
    assert kept(machine)[1] == DENIED


def test_system_suspend_without_the_capability_is_not_supported_on_kvm(bench: Bench) -> None:
    _, machine = bench.run(call(SYSTEM_SUSPEND, TEXT), copy(19, 0), exits(0), choices=Choices(host="kvm-6.12"))

    assert kept(machine)[0] == -1 & MASK64


def test_an_smc32_system_suspend_resumes_at_the_low_half_of_its_entry_point(bench: Bench) -> None:
    junk = 0xDEAD_0000_0000_0000
    program: list[Part] = [
        set_system("CNTV_TVAL_EL0", 1000),
        set_system("CNTV_CTL_EL0", 1),
        adr(1, "resumed"),
        mov(2, junk),
        0xAA02_0021,  # orr x1, x1, x2
        mov(2, junk | CONTEXT & 0xFFFF_FFFF),
        mov(0, SYSTEM_SUSPEND & ~0x4000_0000),
        hvc(),
        exits(1),
        Label("resumed"),
        copy(19, 0),
        exits(2),
    ]

    outcome, machine = bench.run(*program)

    assert outcome.code == 2
    assert kept(machine)[0] == CONTEXT & 0xFFFF_FFFF


def test_a_vcpu_that_is_off_stays_off_over_system_suspend(bench: Bench) -> None:
    _, machine = system_suspends(bench, "kvm-6.12")

    assert machine.firmware.power.states[1] is PowerState.OFF


# ---- SYSTEM_OFF, SYSTEM_RESET


@pytest.mark.parametrize("fid", [0x8400_0008, 0x8400_0015])
def test_system_off_ends_well(bench: Bench, fid: int) -> None:
    outcome, _ = bench.run(call(fid, 1), exits(9), choices=TWO)

    assert outcome == (ExitCode.OK, "system off")


def resets(fid: int) -> list[Part]:
    """Reset once: initialised data is 0 in the image; FLAG is zeroed RAM that nothing restores."""
    return [
        copy(24, 0),
        mrs(25, "VBAR_EL1"),
        copy(26, 19),
        mov(9, FLAG),
        ldr(11, 9),
        add(12, 11, 1),
        store(12, 9),
        adr(9, "data"),
        ldr(27, 9),
        cbnz(11, "again"),
        mov(19, 0x1919),
        store(19, 9),
        set_system("VBAR_EL1", VECTORS),
        set_system("CNTV_CVAL_EL0", 1),
        set_system("CNTV_CTL_EL0", 1),
        call_at(CPU_ON, 1, "second"),
        call(fid),
        exits(9),
        Label("again"),
        mrs(28, "CNTV_CTL_EL0"),
        copy(21, 10),
        call(AFFINITY_INFO, 1),
        copy(20, 0),
        exits(5),
        Label("second"),
        b("second"),
        At(0x800),
        Label("data"),
        0,
        0,
    ]


@pytest.mark.parametrize("fid", [SYSTEM_RESET, SYSTEM_RESET2])
def test_a_reset_restores_memory_registers_and_power_states_and_starts_again(bench: Bench, fid: int) -> None:
    machine = bench.machine(resets(fid), choices=TWO)
    tree = machine.engine.x[0].get()

    outcome = machine.run()

    assert outcome.code == 5
    x24, x25, x26, x27, x28 = (machine.engine.x[number].get() for number in range(24, 29))
    assert (x24, x25, x26) == (tree, 0, 0)
    assert x27 == 0  # the image's own data is as in the file again
    assert x28 & 1 == 0
    assert kept(machine)[1] == 1  # vCPU 1 is OFF
    assert word_at(machine, FLAG) == 2  # RAM outside the image is not


def test_no_reboot_ends_with_its_own_code(bench: Bench) -> None:
    outcome, _ = bench.run(resets(SYSTEM_RESET), choices=TWO, no_reboot=True)

    assert outcome == (ExitCode.RESET, "system reset, and -no-reboot")


def test_a_guest_that_resets_for_ever_meets_its_limit(bench: Bench) -> None:
    outcome, _ = bench.run(call(SYSTEM_RESET), max_insns=200_000)

    assert outcome.code == ExitCode.LIMIT


def test_virtual_time_and_the_firmwares_registers_go_on_over_a_reset(bench: Bench) -> None:
    machine = bench.machine(resets(SYSTEM_RESET), choices=Choices(mpidrs=(0, 1), fwreg=("STD_BMAP=0",)))

    machine.run()

    assert machine.config.bitmap("STD_BMAP") == 0
    assert machine.clock.now_ns > 10_000


def test_a_device_tree_that_the_guest_overwrote_is_whole_after_a_reset(bench: Bench) -> None:
    program: list[Part] = [mov(9, FLAG), ldr(11, 9), ldr(19, 0), store(0, 9), cbnz(11, "again"), store(11, 0), call(SYSTEM_RESET)]

    outcome, machine = bench.run(*program, Label("again"), exits(5))

    assert outcome.code == 5
    assert kept(machine)[0] == int.from_bytes(machine.board.device_tree[:8], "little")
