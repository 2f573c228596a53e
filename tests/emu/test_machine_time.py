"""Virtual time as a guest sees it: counters, timers, waiting, standstill, stolen time."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from emu.outcome import ExitCode
from emu.scheduler import NS_PER_TICK
from emu.setup import Choices, make
from emu.vcpu import Wait
from firmware.vendor_hyp import COUNTER_HZ
from tests.emu.programs import (
    B_SELF,
    CPU_OFF,
    CPU_ON,
    CPU_SUSPEND,
    DAIF_CLEAR_ALL,
    DAIF_SET_ALL,
    DSB,
    ISB,
    NOP,
    PV_TIME_ST,
    SCRATCH,
    SEV,
    SEVL,
    UDF,
    WFE,
    WFI,
    YIELD,
    Bench,
    Label,
    Part,
    adr,
    b,
    b_lo,
    b_ne,
    call,
    call_at,
    cbz,
    copy,
    exits,
    keeps_exception,
    kept,
    ldr,
    mov,
    movz,
    mrs,
    set_system,
    smc,
    store,
    store32,
    subs,
    svc,
    to_el,
    vector,
    vectors_here,
)

FLAG: Final = SCRATCH + 0x100
TWO: Final = Choices(mpidrs=(0, 1))
MODELS: Final = ("cortex-a53", "cortex-a57", "cortex-a72", "max")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


# ---- counters


@pytest.mark.parametrize("cpu", MODELS)
def test_the_counter_frequency_is_qemus(bench: Bench, cpu: str) -> None:
    _, machine = bench.run(mrs(19, "CNTFRQ_EL0"), exits(0), cpu=cpu)

    assert kept(machine)[0] == COUNTER_HZ == 62_500_000


@pytest.mark.parametrize("counter", ["CNTVCT_EL0", "CNTPCT_EL0"])
@pytest.mark.parametrize("cpu", MODELS)
def test_the_counter_is_virtual_time_and_never_stands_still(bench: Bench, counter: str, cpu: str) -> None:
    _, machine = bench.run(mrs(19, counter), mrs(20, counter), mrs(21, counter), exits(0), cpu=cpu)

    first, second, third = kept(machine)[:3]
    assert 0 < first < second < third < 1_000


def test_both_counters_are_the_same(bench: Bench) -> None:
    _, machine = bench.run(mrs(19, "CNTVCT_EL0"), mrs(20, "CNTPCT_EL0"), mrs(21, "CNTVCT_EL0"), exits(0))

    virtual, physical, later = kept(machine)[:3]
    assert virtual < physical < later


def test_a_delay_loop_on_the_counter_ends(bench: Bench) -> None:
    program: list[Part] = [
        mrs(19, "CNTVCT_EL0"),
        mov(9, COUNTER_HZ // 1000),
        0x8B13_0129,  # add x9, x9, x19
        Label("wait"),
        mrs(10, "CNTVCT_EL0"),
        0xEB09_015F,  # cmp x10, x9
        b_lo("wait"),
        exits(0),
    ]

    outcome, machine = bench.run(*program)

    assert outcome.code == 0
    assert 1_000_000 < machine.clock.now_ns < 1_500_000


@pytest.mark.parametrize("counter", ["CNTVCT_EL0", "CNTV_CTL_EL0", "CNTV_TVAL_EL0"])
def test_el0_reads_what_the_kernel_lets_it(bench: Bench, counter: str) -> None:
    allowed: list[Part] = [vectors_here(), set_system("CNTKCTL_EL1", 0x303), to_el(0, "el0"), Label("el0"), mrs(19, counter), svc(1)]
    refused: list[Part] = [vectors_here(), set_system("CNTKCTL_EL1", 0), to_el(0, "el0"), Label("el0"), mrs(19, counter), svc(1)]

    _, may = bench.run(*allowed, vector(0x400), keeps_exception())
    _, may_not = bench.run(*refused, vector(0x400), keeps_exception())

    assert kept(may)[0] == 0x5600_0001
    assert kept(may_not)[0] >> 26 == 0x18  # a trapped MRS


# ---- timers


@pytest.mark.parametrize("timer", ["CNTV", "CNTP"])
@pytest.mark.parametrize("cpu", MODELS)
def test_a_timer_reads_back_what_was_written(bench: Bench, timer: str, cpu: str) -> None:
    program: list[Part] = [
        mrs(19, f"{timer}_CTL_EL0"),
        set_system(f"{timer}_CVAL_EL0", 0x1234_5678_9ABC_DEF0),
        mrs(20, f"{timer}_CVAL_EL0"),
        set_system(f"{timer}_CTL_EL0", 0xFFFF_FFFF_FFFF_FFFE),
        mrs(21, f"{timer}_CTL_EL0"),
        set_system(f"{timer}_CTL_EL0", 3),
        mrs(22, f"{timer}_CTL_EL0"),
        set_system(f"{timer}_CVAL_EL0", 0),
        mrs(23, f"{timer}_CTL_EL0"),
        set_system(f"{timer}_CTL_EL0", 0),
        mrs(24, f"{timer}_CTL_EL0"),
        exits(0),
    ]

    _, machine = bench.run(*program, cpu=cpu)

    # CTL: bit 0 ENABLE, bit 1 IMASK, bit 2 ISTATUS, which is read-only and 0 while the timer is off.
    assert kept(machine)[:6] == (0, 0x1234_5678_9ABC_DEF0, 2, 3, 7, 0)


@pytest.mark.parametrize("timer", ["CNTV", "CNTP"])
@pytest.mark.parametrize("ticks", [0, 1, 1000, 0x7FFF_FFFF, -1, -1000])
def test_tval_is_signed_and_counts_from_now(bench: Bench, timer: str, ticks: int) -> None:
    program: list[Part] = [
        mrs(19, "CNTVCT_EL0"),
        set_system(f"{timer}_TVAL_EL0", ticks & 0xFFFF_FFFF),
        mrs(20, f"{timer}_CVAL_EL0"),
        mrs(21, f"{timer}_TVAL_EL0"),
        mrs(22, "CNTVCT_EL0"),
        exits(0),
    ]

    _, machine = bench.run(*program)

    before, cval, tval, after = kept(machine)[:4]
    assert before <= cval - ticks & (1 << 64) - 1 <= after or before <= cval - ticks <= after
    assert 0 <= (ticks - tval) & 0xFFFF_FFFF <= after - before


def test_writing_cval_moves_tval(bench: Bench) -> None:
    program: list[Part] = [set_system("CNTV_CVAL_EL0", 1 << 20), mrs(19, "CNTV_TVAL_EL0"), mrs(20, "CNTVCT_EL0"), exits(0)]

    _, machine = bench.run(*program)

    tval, now = kept(machine)[:2]
    assert 0 <= now - ((1 << 20) - tval) < 100


def test_the_two_timers_and_the_two_vcpus_do_not_share(bench: Bench) -> None:
    program: list[Part] = [
        set_system("CNTV_CVAL_EL0", 0x111),
        set_system("CNTP_CVAL_EL0", 0x222),
        call_at(CPU_ON, 1, "second"),
        mov(9, FLAG),
        Label("wait"),
        ldr(10, 9),
        cbz(10, "wait"),
        mrs(19, "CNTV_CVAL_EL0"),
        mrs(20, "CNTP_CVAL_EL0"),
        ldr(21, 9, 8),
        exits(0),
        Label("second"),
        mov(9, FLAG),
        mrs(10, "CNTV_CVAL_EL0"),
        store(10, 9, 8),
        set_system("CNTV_CVAL_EL0", 0x333),
        mov(9, FLAG),
        movz(10, 1),
        store(10, 9),
        Label("stay"),
        WFI,
        b("stay"),
    ]

    _, machine = bench.run(*program, choices=TWO)

    assert kept(machine)[:3] == (0x111, 0x222, 0)


# ---- waiting


def sets_timer(timer: str, ticks: int, control: int) -> list[Part]:
    return [set_system(f"{timer}_TVAL_EL0", ticks), set_system(f"{timer}_CTL_EL0", control)]


@pytest.mark.parametrize("wait", [[WFI], call(CPU_SUSPEND)], ids=["WFI", "CPU_SUSPEND"])
@pytest.mark.parametrize("daif", [[DAIF_SET_ALL], [DAIF_CLEAR_ALL]], ids=["masked", "unmasked"])
@pytest.mark.parametrize("timer", ["CNTV", "CNTP"])
def test_an_unmasked_timer_ends_a_wait_whatever_pstate_i(bench: Bench, timer: str, daif: list[Part], wait: list[Part]) -> None:
    program: list[Part] = [daif, sets_timer(timer, 1_000_000, 1), wait, mrs(19, f"{timer}_CTL_EL0"), mrs(20, "CNTVCT_EL0"), exits(0)]

    outcome, machine = bench.run(*program, max_insns=100_000)  # time jumps: a million ticks are not executed

    assert outcome.code == 0
    assert kept(machine)[0] == 5  # ENABLE, ISTATUS
    assert 1_000_000 <= kept(machine)[1] < 1_002_000


@pytest.mark.parametrize("wait", [[WFI], call(CPU_SUSPEND)], ids=["WFI", "CPU_SUSPEND"])
@pytest.mark.parametrize("control", [0, 2, 3], ids=["off", "off and masked", "masked"])
def test_a_timer_that_is_off_or_masked_does_not_end_a_wait(bench: Bench, control: int, wait: list[Part]) -> None:
    outcome, _ = bench.run(sets_timer("CNTV", 1000, control), wait, exits(9))

    assert outcome.code == ExitCode.DEADLOCK


def test_a_timer_that_fired_already_lets_a_wait_fall_through(bench: Bench) -> None:
    program: list[Part] = [sets_timer("CNTV", 0, 1), mrs(19, "CNTVCT_EL0"), WFI, WFI, WFI, mrs(20, "CNTVCT_EL0"), exits(0)]

    outcome, machine = bench.run(*program)

    assert outcome.code == 0
    assert kept(machine)[1] - kept(machine)[0] < 100


def test_a_wait_ends_at_the_earlier_of_two_timers(bench: Bench) -> None:
    program: list[Part] = [sets_timer("CNTV", 900_000, 1), sets_timer("CNTP", 500_000, 1), WFI, mrs(19, "CNTVCT_EL0"), exits(0)]

    _, machine = bench.run(*program)

    assert 500_000 <= kept(machine)[0] < 502_000


def test_one_sleeper_does_not_stop_the_others(bench: Bench) -> None:
    program: list[Part] = [call_at(CPU_ON, 1, "second"), WFI, exits(9), Label("second"), mov(24, 30_000), Label("spin"), subs(24, 24, 1)]

    outcome, _ = bench.run(*program, b_ne("spin"), exits(3), choices=TWO)

    assert outcome.code == 3


def test_time_stops_at_a_limit_that_comes_before_the_timer(bench: Bench) -> None:
    outcome, machine = bench.run(sets_timer("CNTV", 0x7FFF_FFFF, 1), WFI, exits(9), timeout_ns=1_000_000)

    assert outcome.code in (ExitCode.LIMIT, ExitCode.NO_PROGRESS)
    assert machine.clock.now_ns >= 1_000_000


def test_wfe_and_sev_and_yield_go_on(bench: Bench) -> None:
    outcome, _ = bench.run(WFE, SEV, SEVL, WFE, YIELD, exits(4))

    assert outcome.code == 4


def test_wfe_polling_sees_what_another_vcpu_stores(bench: Bench) -> None:
    program: list[Part] = [
        call_at(CPU_ON, 1, "second"),
        mov(9, FLAG),
        Label("wait"),
        WFE,
        ldr(10, 9),
        cbz(10, "wait"),
        exits(6),
        Label("second"),
        mov(9, FLAG),
        movz(10, 1),
        store(10, 9),
        SEV,
        Label("stay"),
        WFI,
        b("stay"),
    ]

    outcome, _ = bench.run(*program, choices=TWO)

    assert outcome.code == 6


def test_wfi_at_el0_waits_too_or_traps_but_does_not_hang(bench: Bench) -> None:
    program: list[Part] = [vectors_here(), to_el(0, "el0"), Label("el0"), WFI, svc(1), vector(0x400), keeps_exception()]

    outcome, _ = bench.run(*program)

    # SCTLR_EL1.nTWI is 0 after reset on a real CPU, which traps; the engine's reset value has it set.
    assert outcome.code in (7, ExitCode.DEADLOCK)


# ---- standstill


@pytest.mark.parametrize(
    "loop",
    [
        [WFI, b("loop")],
        [WFE, b("loop")],
        [b("loop")],
        [YIELD, NOP, b("loop")],
        [DSB, ISB, WFE, b("loop")],
        [b("over"), UDF, Label("over"), b("loop")],
    ],
    ids=["wfi", "wfe", "b .", "yield", "barriers", "two branches"],
)
def test_a_loop_that_only_an_interrupt_could_leave_is_a_deadlock(bench: Bench, loop: list[Part]) -> None:
    outcome, _ = bench.run(Label("loop"), loop, max_insns=60_000)

    assert outcome.code == ExitCode.DEADLOCK
    assert outcome.sentence.startswith("deadlock: cpu0 is ON and waits for ")


def test_all_kinds_of_standing_still_together_are_a_deadlock(bench: Bench) -> None:
    program: list[Part] = [
        call_at(CPU_ON, 1, "waits"),
        call_at(CPU_ON, 2, "spins"),
        call_at(CPU_ON, 3, "suspends"),
        call_at(CPU_ON, 4, "off"),
        call_at(CPU_OFF, 0, "off"),
        Label("waits"),
        WFI,
        Label("spins"),
        WFE,
        b("spins"),
        Label("suspends"),
        call(CPU_SUSPEND),
        Label("off"),
        call(CPU_OFF),
    ]

    outcome, _ = bench.run(*program, choices=Choices(mpidrs=(0, 1, 2, 3, 4)))

    assert outcome.code == ExitCode.DEADLOCK
    assert "cpu0 is OFF, cpu1 is ON and waits for an interrupt, cpu2 is ON and waits for nothing" in outcome.sentence
    assert "cpu3 is SUSPENDED" in outcome.sentence


def test_a_parked_vcpu_does_not_end_the_run_of_the_others(bench: Bench) -> None:
    program: list[Part] = [call_at(CPU_ON, 1, "second"), B_SELF, Label("second"), mov(24, 100_000), Label("spin"), subs(24, 24, 1)]

    outcome, _ = bench.run(*program, b_ne("spin"), exits(3), choices=TWO)

    assert outcome.code == 3


def test_a_loop_that_reads_memory_is_not_parked(bench: Bench) -> None:
    outcome, _ = bench.run(mov(9, FLAG), Label("wait"), ldr(10, 9), cbz(10, "wait"), exits(1), max_insns=200_000)

    assert outcome.code == ExitCode.NO_PROGRESS


def test_a_spinning_vcpu_with_a_timer_running_is_no_deadlock_for_a_sleeper(bench: Bench) -> None:
    program: list[Part] = [
        call_at(CPU_ON, 1, "second"),
        sets_timer("CNTV", 100_000, 1),
        WFI,
        exits(3),
        Label("second"),
        B_SELF,
    ]

    outcome, _ = bench.run(*program, choices=TWO)

    assert outcome.code == 3


def test_a_call_that_is_answered_by_itself_again_is_parked_until_another_firmware_answers(bench: Bench) -> None:
    # KVM of Linux 4.15 writes -1 and does not advance over SMC.
    machine = bench.machine(call(0, conduit=smc()), exits(5), choices=Choices(host="kvm-4.15"))
    assert machine.run() == (ExitCode.DEADLOCK, f"deadlock: cpu0 is ON and waits for {Wait.PARKED.value}")

    machine.serve(make(Choices(host="kvm-4.17")).firmware())
    machine.open_again()

    assert machine.run().code == 5


def test_a_call_that_repeats_does_not_end_the_run_of_the_others(bench: Bench) -> None:
    called: list[Part] = [call_at(CPU_ON, 1, "second"), call(0, conduit=smc()), Label("second"), mov(24, 100_000)]
    spinning: list[Part] = [Label("spin"), subs(24, 24, 1), b_ne("spin"), exits(3)]

    outcome, machine = bench.run(*called, *spinning, choices=Choices(host="kvm-4.15", mpidrs=(0, 1)))

    assert outcome.code == 3
    assert machine.clock.traps < 20_000  # it is looked at again at each of its turns, and not called again


def test_a_parked_loop_that_another_vcpu_rewrites_goes_on(bench: Bench) -> None:
    program: list[Part] = [
        call_at(CPU_ON, 1, "second"),
        adr(9, "patch"),
        Label("loop"),
        NOP,
        Label("patch"),
        b("loop"),
        exits(6),
        Label("second"),
        mov(24, 30_000),
        Label("spin"),
        subs(24, 24, 1),
        b_ne("spin"),
        adr(9, "patch"),
        mov(10, NOP),
        store32(10, 9),
        DSB,
        0xD50B_7529,  # ic ivau, x9
        DSB,
        ISB,
        Label("stay"),
        WFI,
        b("stay"),
    ]

    outcome, _ = bench.run(*program, choices=TWO)

    assert outcome.code == 6


# ---- stolen time


def test_stolen_time_is_what_other_vcpus_took(bench: Bench) -> None:
    program: list[Part] = [
        call_at(CPU_ON, 1, "second"),
        call(PV_TIME_ST),
        copy(19, 0),
        ldr(20, 19),
        ldr(21, 19, 8),
        mov(24, 100_000),
        Label("spin"),
        subs(24, 24, 1),
        b_ne("spin"),
        ldr(22, 19, 8),
        exits(0),
        Label("second"),
        mov(24, 1_000_000),
        Label("busy"),
        subs(24, 24, 1),
        b_ne("busy"),
        WFI,
    ]

    outcome, machine = bench.run(*program, choices=TWO)

    assert outcome.code == 0
    address, header, first, last = kept(machine)[:4]
    assert address == 0x090A_0000
    assert header == 0  # revision and attributes
    assert first <= 20_000
    assert 150_000 <= last <= 250_000  # half of the 200 000 instructions, as one of two


def test_stolen_time_does_not_grow_while_the_vcpu_itself_waits(bench: Bench) -> None:
    program: list[Part] = [call(PV_TIME_ST), copy(19, 0), sets_timer("CNTV", 1_000_000, 1), WFI, ldr(20, 19, 8), exits(0)]

    _, machine = bench.run(*program)

    assert kept(machine)[1] < 20_000


def test_each_vcpu_has_its_own_stolen_time_structure(bench: Bench) -> None:
    program: list[Part] = [
        call_at(CPU_ON, 1, "second"),
        mov(9, FLAG),
        Label("wait"),
        ldr(19, 9),
        cbz(19, "wait"),
        call(PV_TIME_ST),
        copy(20, 0),
        exits(0),
        Label("second"),
        call(PV_TIME_ST),
        mov(9, FLAG),
        store(0, 9),
        Label("stay"),
        WFI,
        b("stay"),
    ]

    _, machine = bench.run(*program, choices=TWO)

    assert kept(machine)[:2] == (0x090A_0040, 0x090A_0000)


def test_a_tick_is_sixteen_nanoseconds() -> None:
    assert NS_PER_TICK == 16


def test_a_deadline_that_no_counter_reaches_wakes_nobody(bench: Bench) -> None:
    program: list[Part] = [set_system("CNTV_CVAL_EL0", (1 << 64) - 1), set_system("CNTV_CTL_EL0", 1), WFI, exits(9)]

    outcome, machine = bench.run(*program)

    assert outcome.code == ExitCode.DEADLOCK
    assert machine.clock.now_ns < 1 << 40
