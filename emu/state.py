"""A machine's whole state as plain data, by name: what a snapshot holds and what a live migration carries.

1. Everything a run depends on from here on is in it, and nothing of the engine's own making.
2. Taken and adopted between two turns. The firmware's part can be exchanged on the way: that is what a migration does.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from emu import architecture
from emu.announcement import Announcement
from emu.devices.pl011 import Pl011
from emu.devices.pl031 import Pl031
from emu.machine import Machine
from emu.memory import PAGE_BYTES
from emu.pages import at_power_on, changed
from emu.vcpu import Vcpu, Wait
from firmware.dispatch import FirmwareState
from firmware.errors import UserError
from firmware.trap import EntryState, SystemEvent

if TYPE_CHECKING:
    from emu.interrupts import Controller

RandomState = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class VcpuState:
    """One vCPU: its registers (emu/architecture.py) and what the machine keeps beside them (emu/vcpu.py).

    virtual, physical  (CTL, CVAL) of its timers
    """

    registers: dict[str, int]
    wait: Wait
    virtual: tuple[int, int]
    physical: tuple[int, int]
    resume: EntryState | None
    stolen_at: int | None
    stolen_ns: int
    ready_ns: int


@dataclass(frozen=True, slots=True)
class ConsoleState:
    """The UART, and what has been sent and is not printed yet."""

    uart: Pl011
    kept: bytes
    printed_bytes: int


@dataclass(frozen=True, slots=True)
class MachineState:
    """A machine between two turns.

    current       the vCPU whose registers the engine holds
    traps         how many calls there have been
    instructions  how many have been granted
    seen, spun    what told progress, and at how many instructions it last did; how the CPUs span since (emu/limits.py)
    announced     what the guest has said of its own end
    last, started, schedule  the scheduler's: who had the last turn, who was just started, the seeded draw
    numbers       the draw that answers RNDR, None while nobody asked
    entered       by vCPU: the vector last entered, and why
    controller    the interrupt controller, None where there is none
    rtc           the real-time clock
    pages         guest memory that is not as the loader leaves it, by guest physical address
    """

    firmware: FirmwareState
    now_ns: int
    traps: int
    instructions: int
    seen: tuple[tuple[int, int], int]
    spun: tuple[int, int]
    announced: Announcement
    last: int
    started: tuple[int, ...]
    schedule: RandomState | None
    numbers: RandomState | None
    vcpus: tuple[VcpuState, ...]
    current: int
    console: ConsoleState
    entered: dict[int, tuple[int, str]]
    system_event: SystemEvent | None
    controller: Controller | None
    rtc: Pl031
    pages: dict[int, bytes]


def capture(machine: Machine) -> MachineState:
    """Return a machine's state; raise UserError for one whose end has come or that waits for a version change."""
    if machine.is_over:
        raise UserError("the run is over: there is nothing to go on with")
    if machine.has_changes_to_come:
        raise UserError("a version change (-psci V@call:NAME#N) is still to come, and cannot be kept")
    engine, current = machine.engine, machine.engine.current
    vcpus = []
    for index, vcpu in enumerate(machine.vcpus):
        engine.switch(index)
        vcpus.append(_vcpu_state(vcpu, architecture.read(engine, machine.setup.cpu)))
    engine.switch(current)
    return MachineState(
        firmware=machine.firmware.state(),
        now_ns=machine.clock.now_ns,
        traps=machine.clock.traps,
        instructions=machine.limits.instructions,
        seen=machine.limits.seen,
        spun=machine.limits.spun,
        announced=machine.limits.announced.copy(),
        last=machine.scheduler.last,
        started=tuple(machine.scheduler.started),
        schedule=machine.scheduler.draw,
        numbers=None if machine.numbers is None else machine.numbers.getstate(),
        vcpus=tuple(vcpus),
        current=current,
        console=ConsoleState(machine.console.uart.copy(), machine.console.kept, machine.console.printed_bytes),
        entered=dict(machine.exceptions.entered),
        system_event=machine.system_event,
        controller=None if machine.interrupts.controller is None else machine.interrupts.controller.copy(),
        rtc=machine.board.rtc.copy(),
        pages=changed(machine.memory.touched(), machine.board.boot.segments),
    )


def adopt(machine: Machine, state: MachineState, firmware: FirmwareState | None = None) -> None:
    """Make a machine of the same setup go on from a state; with `firmware`, from another host's."""
    adopt_beside(machine, state, state.firmware if firmware is None else firmware)
    machine.console.uart, machine.board.rtc = state.console.uart.copy(), state.rtc.copy()
    machine.interrupts.controller = None if state.controller is None else state.controller.copy()
    _restore_memory(machine, state.pages)
    for index, vcpu in enumerate(state.vcpus):
        machine.engine.switch(index)
        architecture.write(machine.engine, machine.setup.cpu, vcpu.registers)
    machine.engine.switch(state.current)


def adopt_beside(machine: Machine, state: MachineState, firmware: FirmwareState) -> None:
    """Adopt what a machine keeps beside memory, registers and devices."""
    machine.firmware.restore(firmware)
    if machine.config is not machine.firmware.config:
        machine.serve(machine.firmware)
    machine.open_again()
    machine.clock.now_ns, machine.clock.traps = state.now_ns, state.traps
    machine.limits.instructions, machine.limits.seen, machine.limits.spun = state.instructions, state.seen, state.spun
    machine.limits.announced.adopt(state.announced)
    machine.scheduler.restore(state.last, state.started, state.schedule)
    machine.numbers = None
    if state.numbers is not None:
        machine.numbers = random.Random()
        machine.numbers.setstate(state.numbers)
    machine.console.kept, machine.console.printed_bytes = state.console.kept, state.console.printed_bytes
    machine.exceptions.entered = dict(state.entered)
    machine.system_event = state.system_event
    for vcpu, as_it_was in zip(machine.vcpus, state.vcpus, strict=True):
        _put_back(vcpu, as_it_was)


def _restore_memory(machine: Machine, pages: dict[int, bytes]) -> None:
    segments = machine.board.boot.segments
    for address in changed(machine.memory.touched(), segments).keys() - pages.keys():
        machine.memory.write(address, at_power_on(segments, address))
    for address, page in pages.items():
        assert len(page) == PAGE_BYTES
        machine.memory.write(address, page)
    machine.engine.flush_translations()


def _vcpu_state(vcpu: Vcpu, registers: dict[str, int]) -> VcpuState:
    timers = vcpu.timers
    return VcpuState(
        registers,
        vcpu.wait,
        (timers.virtual.ctl, timers.virtual.cval),
        (timers.physical.ctl, timers.physical.cval),
        vcpu.resume,
        vcpu.stolen_at,
        vcpu.stolen_ns,
        vcpu.ready_ns,
    )


def _put_back(vcpu: Vcpu, state: VcpuState) -> None:
    # In place: a checkpoint does this ten thousand times a second.
    vcpu.wait, vcpu.resume = state.wait, state.resume
    vcpu.stolen_at, vcpu.stolen_ns, vcpu.ready_ns = state.stolen_at, state.stolen_ns, state.ready_ns
    virtual, physical = vcpu.timers.virtual, vcpu.timers.physical
    virtual.ctl, virtual.cval = state.virtual
    physical.ctl, physical.cval = state.physical
