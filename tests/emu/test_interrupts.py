"""Interrupts as a guest sees them: when one is taken, what is entered, who is woken."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from emu.machine import Machine
from emu.memory import GICC, GICD, UART
from emu.outcome import ExitCode
from emu.setup import Choices
from emu.vcpu import Wait
from firmware.abi import PowerState
from tests.emu.gicprograms import (
    IRQ_CLEAR,
    IRQ_SET,
    SGI,
    TIMER_PPI,
    UART_SPI,
    acknowledges,
    ends,
    gic_on,
    interface_on,
    sends,
    timer_after,
)
from tests.emu.programs import (
    AFFINITY_INFO,
    CPU_OFF,
    CPU_ON,
    CPU_SUSPEND,
    ERET,
    NOP,
    NOWHERE,
    SPSEL_0,
    SYSTEM_RESET,
    SYSTEM_SUSPEND,
    WFE,
    WFI,
    Bench,
    Label,
    Part,
    add,
    adr,
    b,
    call,
    call_at,
    cbnz,
    copy,
    exits,
    exits_with,
    kept,
    ldr32,
    mov,
    movz,
    mrs,
    msr,
    set_system,
    store32,
    sub,
    to_el,
    vector,
    vectors_here,
)

CURRENT_SP0, CURRENT_SPX, LOWER = 0x080, 0x280, 0x480
TWO: Final = Choices(mpidrs=(0, 1))
VERSIONS = pytest.mark.parametrize("gic", [2, 3], ids=["GICv2", "GICv3"])
DAIF_BUT_I: Final = 0x340
EL1H: Final = 0x5


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def takes(gic: int, offset: int = CURRENT_SPX) -> list[Part]:
    """Keep ELR, SPSR, ESR, FAR and the INTID in x20 to x24 and end with 7, at a vector."""
    registers = [mrs(20, "ELR_EL1"), mrs(21, "SPSR_EL1"), mrs(22, "ESR_EL1"), mrs(23, "FAR_EL1")]
    return [vector(offset), *registers, acknowledges(gic, 24), exits(7)]


def handles(gic: int, *body: Part) -> list[Part]:
    """Acknowledge an interrupt (x24), do something, end it and return, at the vector of EL1 on its own stack pointer."""
    return [vector(CURRENT_SPX), acknowledges(gic, 24), list(body), ends(gic, 24), ERET]


# ---- when and how one is taken


UNMASKS: Final[dict[str, list[Part]]] = {
    "DAIFClr": [IRQ_CLEAR],
    "DAIF": [mov(9, DAIF_BUT_I), msr("DAIF", 9)],
    "ERET": [adr(9, "next"), msr("ELR_EL1", 9), set_system("SPSR_EL1", DAIF_BUT_I | EL1H), ERET],
}


@VERSIONS
@pytest.mark.parametrize("unmask", UNMASKS)
def test_a_pending_interrupt_is_taken_before_the_first_instruction_at_which_it_is_not_masked(bench: Bench, gic: int, unmask: str) -> None:
    program: list[Part] = [vectors_here(), gic_on(gic), adr(25, "next"), set_system("ESR_EL1", 0x11), set_system("FAR_EL1", 0x22)]
    program += [movz(19, 0), sends(gic, 1), [NOP] * 5, UNMASKS[unmask], Label("next"), [add(19, 19, 1)] * 9, exits(1), takes(gic)]

    outcome, machine = bench.run(*program, gic=gic)

    count, elr, spsr, esr, far, intid, expected, *_ = kept(machine)
    assert outcome.code == 7
    assert (count, elr, esr, far, intid) == (0, expected, 0x11, 0x22, SGI)
    assert spsr & 0x3CF == (DAIF_BUT_I | EL1H if unmask != "DAIFClr" else 0x345)


@VERSIONS
@pytest.mark.parametrize(("pstate", "offset"), [(0x0, LOWER), (0x4, CURRENT_SP0), (0x5, CURRENT_SPX)], ids=["EL0", "EL1t", "EL1h"])
def test_an_interrupt_goes_to_the_vector_for_where_it_came_from_and_masks_the_next(
    bench: Bench, gic: int, pstate: int, offset: int
) -> None:
    flags = 0xA000_0000  # N and C
    program: list[Part] = [vectors_here(), gic_on(gic), adr(25, "there"), sends(gic, 1)]
    program += [to_el(flags | pstate, "there"), Label("there"), b("there"), vector(offset)]
    program += [mrs(26, "DAIF"), mrs(20, "ELR_EL1"), mrs(21, "SPSR_EL1"), acknowledges(gic, 24), exits(7)]

    outcome, machine = bench.run(*program, gic=gic)

    _, elr, spsr, _, _, intid, expected, daif, *_ = kept(machine)
    assert outcome.code == 7
    assert (elr, spsr, intid, daif) == (expected, flags | pstate, SGI, 0x3C0)


@VERSIONS
def test_an_interrupt_on_sp_el0_keeps_both_stack_pointers(bench: Bench, gic: int) -> None:
    program: list[Part] = [vectors_here(), gic_on(gic), mov(9, 0x1230), 0x9100_013F, SPSEL_0, mov(9, 0x4560), 0x9100_013F]
    program += [sends(gic, 1), IRQ_CLEAR, Label("stay"), b("stay"), vector(CURRENT_SP0)]
    program += [0x9100_03F3, mrs(20, "SP_EL0"), exits(7)]  # mov x19, sp

    outcome, machine = bench.run(*program, gic=gic)

    assert (outcome.code, kept(machine)[:2]) == (7, (0x1230, 0x4560))


@VERSIONS
def test_a_masked_interrupt_waits(bench: Bench, gic: int) -> None:
    program: list[Part] = [vectors_here(), gic_on(gic), sends(gic, 1), [NOP] * 20, IRQ_SET, mrs(19, "DAIF"), exits(1), takes(gic)]

    outcome, machine = bench.run(*program, gic=gic)

    assert (outcome.code, kept(machine)[0] & 0x80) == (1, 0x80)


@VERSIONS
def test_an_interrupt_that_becomes_pending_with_irqs_unmasked_is_taken_soon_after_the_access_that_sends_it(bench: Bench, gic: int) -> None:
    program: list[Part] = [vectors_here(), gic_on(gic), IRQ_CLEAR, movz(19, 0), sends(gic, 1)]
    program += [Label("count"), add(19, 19, 1), b("count"), takes(gic)]

    outcome, machine = bench.run(*program, gic=gic)

    assert (outcome.code, kept(machine)[5]) == (7, SGI)
    assert kept(machine)[0] <= 1


@pytest.mark.parametrize("step", [None, 1, 2, 3, 7, 1000])
def test_an_interrupt_that_the_priority_mask_lets_through_is_taken_before_the_next_instruction(bench: Bench, step: int | None) -> None:
    program: list[Part] = [vectors_here(), gic_on(3), set_system("ICC_PMR_EL1", 0), movz(19, 0), adr(25, "next"), sends(3, 1), IRQ_CLEAR]
    program += [[add(19, 19, 1)] * 3, mov(9, 0xF0), msr("ICC_PMR_EL1", 9), Label("next"), [add(19, 19, 1)] * 5, exits(1), takes(3)]
    machine = bench.machine(*program, gic=3)
    outcome = None

    while outcome is None:
        outcome = machine.step(step)

    assert outcome.code == 7
    assert (kept(machine)[0], kept(machine)[1]) == (3, kept(machine)[6])


@pytest.mark.parametrize("step", [None, 1, 2, 3, 7, 1000])
def test_a_timer_that_is_set_in_the_past_interrupts_before_the_next_instruction(bench: Bench, step: int | None) -> None:
    program: list[Part] = [vectors_here(), gic_on(2), movz(19, 0), adr(25, "next"), IRQ_CLEAR, mov(9, 1), msr("CNTV_CTL_EL0", 9)]
    program += [Label("next"), [add(19, 19, 1)] * 5, exits(1), takes(2)]
    machine = bench.machine(*program, gic=2)
    outcome = None

    while outcome is None:
        outcome = machine.step(step)

    assert outcome.code == 7
    assert (kept(machine)[0], kept(machine)[1]) == (0, kept(machine)[6])


@VERSIONS
@pytest.mark.parametrize("spin", ["count", "idle", "masked idle"])
def test_a_timer_interrupts_again_and_again(bench: Bench, gic: int, spin: str) -> None:
    """The last two are how Linux idles: interrupts masked around WFI, and unmasked for no more than an instruction."""
    loops: dict[str, list[Part]] = {
        "count": [IRQ_CLEAR, Label("loop"), add(19, 19, 1), b("loop")],
        "idle": [IRQ_CLEAR, Label("loop"), WFI, b("loop")],
        "masked idle": [Label("loop"), WFI, IRQ_CLEAR, IRQ_SET, b("loop")],
    }
    program: list[Part] = [vectors_here(), gic_on(gic), movz(19, 0), movz(20, 0), timer_after(5_000), loops[spin]]
    enough: list[Part] = [
        add(20, 20, 1),
        sub(11, 20, 4),
        mov(12, 0),
        timer_after(5_000),
        mrs(21, "CNTVCT_EL0"),
        cbnz(11, "again"),
        exits(7),
    ]
    program += [handles(gic, enough, Label("again"))]

    outcome, machine = bench.run(*program, gic=gic)

    _, count, ticks, _, _, intid, *_ = kept(machine)
    assert (outcome.code, count, intid) == (7, 4, TIMER_PPI)
    assert 4 * 5_000 <= ticks < 4 * 5_000 + 4 * 1_500  # a slice is 625 ticks


@VERSIONS
def test_an_interrupt_is_not_taken_twice_for_one_request(bench: Bench, gic: int) -> None:
    program: list[Part] = [vectors_here(), gic_on(gic), movz(20, 0), sends(gic, 1), IRQ_CLEAR, [NOP] * 50, IRQ_SET, exits_with(20)]
    program += [handles(gic, add(20, 20, 1))]

    outcome, _ = bench.run(*program, gic=gic)

    assert outcome.code == 1


@VERSIONS
def test_an_interrupt_that_is_not_acknowledged_is_taken_again_at_the_return(bench: Bench, gic: int) -> None:
    program: list[Part] = [vectors_here(), gic_on(gic), movz(20, 0), sends(gic, 1), IRQ_CLEAR, Label("stay"), b("stay")]
    program += [vector(CURRENT_SPX), add(20, 20, 1), sub(11, 20, 3), cbnz(11, "again"), exits(7), Label("again"), ERET]

    outcome, machine = bench.run(*program, gic=gic)

    assert (outcome.code, kept(machine)[1]) == (7, 3)


@pytest.mark.parametrize("step", [None, 1, 1000])
def test_an_access_to_nowhere_right_after_one_that_interrupts_is_an_abort_first(bench: Bench, step: int | None) -> None:
    program: list[Part] = [vectors_here(), gic_on(2), mov(12, NOWHERE), adr(25, "load"), IRQ_CLEAR, sends(2, 1), Label("load")]
    program += [ldr32(13, 12), exits(1), vector(0x200), mrs(19, "ELR_EL1"), mrs(22, "ESR_EL1"), exits(8)]
    program += [handles(2, mrs(20, "ELR_EL1"))]
    machine = bench.machine(*program, gic=2)
    outcome = None

    while outcome is None:
        outcome = machine.step(step)

    assert outcome.code == 8
    assert (kept(machine)[0], kept(machine)[3]) == (kept(machine)[6], 0x9600_0010)


# ---- waiting


@VERSIONS
def test_wfi_with_irqs_masked_is_woken_at_the_deadline_and_nothing_is_taken(bench: Bench, gic: int) -> None:
    program: list[Part] = [vectors_here(), gic_on(gic), timer_after(1_000_000), WFI, mrs(19, "CNTVCT_EL0"), exits(1), takes(gic)]

    outcome, machine = bench.run(*program, gic=gic, max_insns=100_000)

    assert outcome.code == 1
    assert 1_000_000 <= kept(machine)[0] < 1_002_000


@VERSIONS
@pytest.mark.parametrize("wait", [[WFI], call(CPU_SUSPEND)], ids=["WFI", "CPU_SUSPEND"])
def test_a_wait_with_irqs_unmasked_ends_in_the_interrupt_behind_it(bench: Bench, gic: int, wait: list[Part]) -> None:
    program: list[Part] = [vectors_here(), gic_on(gic), adr(25, "next"), IRQ_CLEAR, timer_after(1_000_000)]
    program += [wait, Label("next"), exits(1), vector(CURRENT_SPX), mrs(19, "CNTVCT_EL0"), copy(26, 0), takes(gic)[1:]]

    outcome, machine = bench.run(*program, gic=gic, max_insns=100_000)

    now, elr, _, _, _, intid, expected, result, *_ = kept(machine)
    assert (outcome.code, elr, intid) == (7, expected, TIMER_PPI)
    assert 1_000_000 <= now < 1_002_000
    if wait != [WFI]:
        assert result == 0  # CPU_SUSPEND has returned SUCCESS


@VERSIONS
def test_cpu_suspend_with_irqs_masked_returns_and_nothing_is_taken(bench: Bench, gic: int) -> None:
    program: list[Part] = [vectors_here(), gic_on(gic), timer_after(1_000_000), call(CPU_SUSPEND), copy(19, 0), exits(1), takes(gic)]

    outcome, machine = bench.run(*program, gic=gic, max_insns=100_000)

    assert (outcome.code, kept(machine)[0]) == (1, 0)


@VERSIONS
def test_a_timer_whose_interrupt_is_disabled_wakes_nobody(bench: Bench, gic: int) -> None:
    outcome, _ = bench.run(timer_after(1_000), WFI, exits(1), gic=gic)

    assert outcome.code == ExitCode.DEADLOCK


@VERSIONS
@pytest.mark.parametrize("loop", [[Label("park"), WFE, b("park")], [Label("park"), b("park")]], ids=["wfe", "b ."])
def test_a_parked_vcpu_is_woken_by_an_interrupt_that_it_does_not_mask(bench: Bench, gic: int, loop: list[Part]) -> None:
    program: list[Part] = [vectors_here(), gic_on(gic), timer_after(1_000_000), IRQ_CLEAR, loop, takes(gic)]

    outcome, machine = bench.run(*program, gic=gic, max_insns=100_000)

    assert (outcome.code, kept(machine)[5]) == (7, TIMER_PPI)


@VERSIONS
def test_a_parked_vcpu_that_masks_irqs_stays_parked(bench: Bench, gic: int) -> None:
    outcome, machine = bench.run(vectors_here(), gic_on(gic), timer_after(1_000), Label("park"), WFE, b("park"), gic=gic)

    assert outcome.code == ExitCode.DEADLOCK
    assert machine.vcpus[0].wait is Wait.PARKED


# ---- several vCPUs


def ping_pong(gic: int, waits: list[Part]) -> list[Part]:
    """Send SGIs to and fro: the first vCPU ends after the tenth answer, which it counts in x20."""
    return [
        [vectors_here(), gic_on(gic), movz(20, 0), movz(26, 0), call_at(CPU_ON, 1, "second"), IRQ_CLEAR],
        [Label("first"), waits, b("first")],
        [Label("second"), vectors_here(), interface_on(gic, 1), movz(26, 1), sends(gic, 0b01), IRQ_CLEAR],
        [Label("other"), waits, b("other")],
        [vector(CURRENT_SPX), acknowledges(gic, 24), ends(gic, 24), cbnz(26, "answer")],
        [add(20, 20, 1), sub(11, 20, 10), cbnz(11, "ask"), exits(7), Label("ask"), sends(gic, 0b10), ERET],
        [Label("answer"), sends(gic, 0b01), ERET],
    ]


@VERSIONS
@pytest.mark.parametrize("waits", [[WFI], [WFE], [NOP, add(19, 19, 1)]], ids=["WFI", "WFE", "spin"])
@pytest.mark.parametrize("seed", range(6))
def test_vcpus_interrupt_one_another_under_every_interleaving(bench: Bench, gic: int, waits: list[Part], seed: int) -> None:
    outcome, machine = bench.run(*ping_pong(gic, waits), gic=gic, choices=TWO, seed=seed)

    assert (outcome.code, kept(machine)[1]) == (7, 10)
    assert kept(machine)[5] == (1 << 10 | SGI if gic == 2 else SGI)


@VERSIONS
def test_a_vcpu_that_is_off_takes_nothing_and_stays_off(bench: Bench, gic: int) -> None:
    program: list[Part] = [
        [vectors_here(), gic_on(gic), call_at(CPU_ON, 1, "second"), Label("poll"), call(AFFINITY_INFO, 1), sub(11, 0, 1)],
        [cbnz(11, "poll"), sends(gic, 0b10), [NOP] * 20, timer_after(100_000), WFI, call(AFFINITY_INFO, 1), copy(19, 0), exits(1)],
        [Label("second"), vectors_here(), interface_on(gic, 1), IRQ_CLEAR, call(CPU_OFF), exits(2), takes(gic)],
    ]

    outcome, machine = bench.run(*program, gic=gic, choices=TWO)

    assert (outcome.code, kept(machine)[0]) == (1, 1)
    assert machine.firmware.power.states[1] is PowerState.OFF


def test_an_spi_that_targets_several_vcpus_is_taken_by_one(bench: Bench) -> None:
    program: list[Part] = [
        [vectors_here(), gic_on(2), mov(9, GICD.base + 0x820), mov(10, 0x0303_0303), store32(10, 9), movz(27, 0)],
        [call_at(CPU_ON, 1, "second"), IRQ_CLEAR, Label("first"), WFI, b("first")],
        [Label("second"), vectors_here(), interface_on(2, 1), movz(27, 0), IRQ_CLEAR],
        [mov(9, GICD.base + 0x204), movz(10, 2), store32(10, 9), timer_after(100_000), Label("other"), WFI, b("other")],
        [vector(CURRENT_SPX), acknowledges(2, 24), sub(11, 24, UART_SPI), cbnz(11, "over"), add(27, 27, 1), ends(2, 24), ERET],
        [Label("over"), sub(11, 24, TIMER_PPI), cbnz(11, "spurious"), exits(7), Label("spurious"), ERET],
    ]

    outcome, machine = bench.run(*program, gic=2, choices=TWO)

    taken = [machine.engine.register_of(vcpu, "x27") for vcpu in (0, 1)]
    assert (outcome.code, sum(taken)) == (7, 1)


# ---- power


@VERSIONS
@pytest.mark.parametrize("daif", [IRQ_CLEAR, IRQ_SET], ids=["unmasked", "masked"])
@pytest.mark.parametrize("host", ["spec", "kvm-6.12"])
def test_system_suspend_is_woken_at_its_entry_point_with_irqs_masked(bench: Bench, gic: int, daif: int, host: str) -> None:
    program: list[Part] = [vectors_here(), gic_on(gic), timer_after(1_000), daif, mov(0, SYSTEM_SUSPEND), adr(1, "entry"), mov(2, 0x1234)]
    program += [mov(3, 0), 0xD400_0002, exits(1), Label("entry"), copy(19, 0), mrs(25, "DAIF"), [NOP] * 9, exits(2), takes(gic)]
    cap = ("system-suspend",) if host == "kvm-6.12" else ()

    outcome, machine = bench.run(*program, gic=gic, choices=Choices(host=host, cap=cap), max_insns=200_000)

    assert outcome.code == 2
    assert (kept(machine)[0], kept(machine)[6]) == (0x1234, 0x3C0)


@VERSIONS
def test_a_system_reset_resets_the_controller(bench: Bench, gic: int) -> None:
    machine = bench.machine(vectors_here(), gic_on(gic), sends(gic, 1), timer_after(0), call(SYSTEM_RESET), gic=gic)
    fresh = machine.interrupts.controller
    assert fresh is not None
    new = fresh.copy()
    assert machine.step(None) is None
    assert machine.interrupts.controller != new

    assert machine.step(1) is None  # the reset, and one instruction after it

    assert machine.interrupts.controller == new


# ---- exactly so many instructions


@VERSIONS
@pytest.mark.parametrize("step", [1, 2, 3, 7, 1000])
def test_a_run_by_counted_steps_takes_an_interrupt_at_the_same_instruction(bench: Bench, gic: int, step: int) -> None:
    program: list[Part] = [vectors_here(), gic_on(gic), movz(19, 0), movz(20, 0), adr(25, "next"), sends(gic, 1), [add(19, 19, 1)] * 3]
    program += [IRQ_CLEAR, Label("next"), [add(19, 19, 1)] * 5, exits(1), takes(gic)]
    machine = bench.machine(*program, gic=gic)
    outcome = None

    while outcome is None:
        outcome = machine.step(step)

    assert outcome.code == 7
    assert (kept(machine)[0], kept(machine)[1]) == (3, kept(machine)[6])


# ---- devices, and no controller


@VERSIONS
def test_a_character_typed_interrupts(bench: Bench, gic: int) -> None:
    typed = iter([b"", b"x"])
    program: list[Part] = [vectors_here(), gic_on(gic), mov(9, UART.base), movz(10, 0x10), store32(10, 9, 0x38), IRQ_CLEAR]
    program += [Label("count"), add(19, 19, 1), b("count")]
    program += [vector(CURRENT_SPX), acknowledges(gic, 24), mov(9, UART.base), ldr32(20, 9), exits(7)]

    machine = Machine(bench.setup(*program, gic=gic, max_insns=200_000), typed=lambda _limit: next(typed, b""))
    outcome = machine.run()

    assert (outcome.code, kept(machine)[1], kept(machine)[5]) == (7, ord("x"), UART_SPI)


@VERSIONS
def test_a_transmitter_that_is_empty_interrupts(bench: Bench, gic: int) -> None:
    program: list[Part] = [vectors_here(), gic_on(gic), mov(9, UART.base), movz(10, ord("x")), store32(10, 9), movz(10, 0x20)]
    program += [store32(10, 9, 0x38), IRQ_CLEAR, [NOP] * 9, exits(1), takes(gic)]

    outcome, machine = bench.run(*program, gic=gic)

    assert (outcome.code, kept(machine)[5]) == (7, UART_SPI)


def test_without_a_controller_a_timer_wakes_and_nothing_is_ever_taken(bench: Bench) -> None:
    program: list[Part] = [vectors_here(), IRQ_CLEAR, timer_after(1_000), WFI, mrs(19, "CNTV_CTL_EL0"), [NOP] * 9, exits(1)]
    program += [vector(CURRENT_SPX), exits(7)]

    outcome, machine = bench.run(*program)

    assert (outcome.code, kept(machine)[0]) == (1, 5)


@pytest.mark.parametrize("frame", [GICD.base, GICC.base])
def test_without_a_controller_its_frames_are_not_there(bench: Bench, frame: int) -> None:
    outcome, _ = bench.run(vectors_here(), mov(9, frame), ldr32(10, 9), exits(1), vector(0x200), exits(8))

    assert outcome.code == 8


@pytest.mark.parametrize("gic", [None, 2])
def test_the_system_registers_are_undefined_without_a_gicv3(bench: Bench, gic: int | None) -> None:
    outcome, _ = bench.run(vectors_here(), mrs(19, "ICC_IAR1_EL1"), exits(1), vector(0x200), exits(8), gic=gic)

    assert outcome.code == 8


def test_at_el0_the_system_registers_are_undefined(bench: Bench) -> None:
    program: list[Part] = [vectors_here(), gic_on(3), to_el(0, "el0"), Label("el0"), mrs(19, "ICC_IAR1_EL1"), b("el0")]

    outcome, _ = bench.run(*program, vector(0x400), exits(8), gic=3)

    assert outcome.code == 8
