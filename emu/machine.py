"""The machine: memory, vCPUs, devices and firmware put together, and the run loop.

1. Towards the firmware it is a VMM: it hands in events and does what the effects say; the firmware alone knows power states.
2. Towards the engine it is the board: map, devices, exceptions, time.
3. A run ends with an `Outcome`, whatever the guest does; any other Python exception is a mistake of ours.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from emu.board import Board
from emu.console import nobody
from emu.devices.pl011 import INT_RX
from emu.devices.timer import VcpuTimers
from emu.engine import EngineError, UnmappedAccess
from emu.exceptions import (
    EC_SHIFT,
    EC_WFX,
    ESR_PC_ALIGNMENT,
    ESR_UNDEFINED,
    EXCEPTION_NAMES,
    EXCP_DATA_ABORT,
    EXCP_IRQ,
    EXCP_PREFETCH_ABORT,
    EXCP_SWI,
    EXCP_UDEF,
    IRQ,
    Exceptions,
)
from emu.interrupts import Interrupts
from emu.limits import Limits
from emu.observer import Audience, Observer
from emu.outcome import Ended, ExitCode, GuestCrash, Outcome
from emu.parking import is_parked
from emu.registers import SCTLR_EE, SCTLR_EL1
from emu.scheduler import Clock, Scheduler
from emu.semihosting import HLT_SEMIHOSTING, Semihosting
from emu.setup import Setup
from emu.trap import Record, TrapPath
from emu.turns import Sleepers, Turns
from emu.vcpu import Vcpu, Wait, serve_system_registers, standstill
from emu.words import CallPoint
from firmware import fwregs
from firmware.abi import ENTRY_PSTATE, MASK32, MASK64, SMC64, PowerState, Version
from firmware.dispatch import Firmware
from firmware.errors import UserError
from firmware.pv_time import STOLEN_TIME_OFFSET_BYTES, stolen_time_address
from firmware.trap import (
    Enter,
    EntryState,
    Event,
    MpState,
    MpStateValue,
    Reply,
    Reset,
    Resume,
    Runnable,
    SystemEvent,
    SystemEventType,
    Trap,
    Woken,
    WriteMemory,
)

if TYPE_CHECKING:
    from random import Random

_NOTHING, _ON_PENDING = Wait.NOTHING, PowerState.ON_PENDING  # a look into an enumeration is slow


class Machine:
    """One virtual machine.

    setup   what to build
    output  takes what the guest prints, as it comes
    typed   gives up to n characters the user has typed, without waiting
    Raises UserError for a setup that cannot be built, InputError for a file that cannot be used.

    wait_for_typing  waits for that while nobody can run, for so many nanoseconds or (None) without end; says whether it came
    """

    def __init__(
        self,
        setup: Setup,
        *,
        output: Callable[[bytes], object] = lambda _text: None,
        typed: Callable[[int], bytes] = nobody,
    ) -> None:
        self.setup = setup
        self.firmware = setup.firmware()
        self.config = self.firmware.config
        self.clock = Clock()
        self.scheduler = Scheduler(setup.seed)
        self.limits = Limits(setup)
        self._audience = Audience(self.limits.announced)

        def tell(text: bytes) -> None:
            output(text)
            self._audience.console(text)

        self.board = Board(setup, tell, typed)
        self.engine, self.memory, self.console = self.board.engine, self.board.memory, self.board.console
        self.vcpus = [Vcpu() for _ in self.config.mpidrs]
        self.trap_path = TrapPath(self.engine, self.firmware, self.clock, self._apply, self._exception)
        self.interrupted = False
        self._semihosting = Semihosting(self.engine, self.console.print)
        self.exceptions = Exceptions(self.engine)
        self.system_event: SystemEvent | None = None
        self._until_met = False
        self._final: Outcome | None = None
        self._is_running = False
        self.interrupts = Interrupts(self.board, self.clock, setup.gic, self.config.mpidrs, lambda: self.vcpus)
        sleepers = Sleepers(self._woken, self._wake, self._unpark, self.interrupts, self._pause)
        self._turns = Turns(self.clock, self.scheduler, self.limits, sleepers)
        self.wait_for_typing: Callable[[int | None], bool] = lambda _nanoseconds: False
        self.numbers: Random | None = None  # what answers RNDR, from the first time that is asked
        serve_system_registers(self.engine, self.clock, lambda: self.vcpus, self._random_number, self.interrupts)
        self._watch_call_points()
        self._power_on()

    @property
    def instructions(self) -> int:
        """How many instructions have been granted, by whole slices."""
        return self.limits.instructions

    @property
    def is_over(self) -> bool:
        return self._final is not None

    def _random_number(self) -> int:
        if self.numbers is None:
            from random import Random  # noqa: PLC0415  which few guests need

            self.numbers = Random(self.setup.seed)
        return self.numbers.getrandbits(64)

    def open_again(self) -> None:
        """Forget that the run is over."""
        self._final = None

    @property
    def has_changes_to_come(self) -> bool:
        return self._changes_to_come > 0

    def _power_on(self) -> None:
        self.board.power_on()
        self.exceptions.forget()

    # ---- who looks on

    def observe(self, observer: Observer, *, calls: frozenset[str] | None = frozenset()) -> None:
        """Let an observer look on; `calls` are the functions whose calls it sees, None for every call."""
        self._audience.add(observer)
        if calls is None or calls:
            self.trap_path.watch(observer.call, calls)

    def at_call(self, point: CallPoint, action: Callable[[], None]) -> Callable[[], None]:
        """Do something at the instant after a function's Nth call from now, before any further instruction; return what calls it off."""
        seen = 0

        def count(_record: Record) -> None:
            nonlocal seen
            seen += 1
            if seen == point.number:
                call_off()
                action()

        call_off = self.trap_path.after(point.function, count)
        return call_off

    def _watch_call_points(self) -> None:
        self._changes_to_come = len(self.setup.version_changes)
        for change in self.setup.version_changes:
            self.at_call(change.at, partial(self._change_version, change.version))

    def _change_version(self, version: Version) -> None:
        self._changes_to_come -= 1
        self.set_one_reg(fwregs.BY_NAME["PSCI_VERSION"].id, version.word)

    def _until_was_called(self) -> None:
        # Not raised: whoever else looks on sees this call too.
        self._until_met = True
        self.engine.stop()

    def set_one_reg(self, register_id: int, value: int) -> None:
        """Write a firmware register, in force at the next call; raise RegisterError with KVM's errno."""
        self.firmware.set_one_reg(register_id, value)
        self.config = self.firmware.config
        self.trap_path.rebuild()
        self._audience.register_write(register_id, value)

    def serve(self, firmware: Firmware) -> None:
        """Let another firmware answer from now on; it brings its own state along."""
        self.firmware, self.config = firmware, firmware.config
        self.trap_path.serve(firmware)

    def _event(self, event: Event) -> Reply:
        reply = self.firmware.handle(event)
        self._audience.firmware_event(event, reply)
        return reply

    @property
    def setup_as_it_is(self) -> Setup:
        """The setup of a machine that could go on in this one's place: what was loaded comes along, registers have their values."""
        return dataclasses.replace(self.setup, config=self.config, boot=self.board.boot, version_changes=(), until=None)

    # ---- what a reply asks of the machine

    def _apply(self, trap: Trap, reply: Reply, pc: int) -> None:
        for effect in reply.effects:
            match effect:
                case Runnable():
                    self.vcpus[effect.vcpu].wait = Wait.NOTHING
                    self.vcpus[effect.vcpu].ready_ns = self.clock.now_ns
                    self.vcpus[effect.vcpu].resume = effect.entry
                    self.scheduler.start(effect.vcpu)
                case WriteMemory():
                    self.memory.write(effect.address, effect.content)
                    if effect.address == stolen_time_address(self.config, trap.vcpu):
                        self.vcpus[trap.vcpu].stolen_at = effect.address + STOLEN_TIME_OFFSET_BYTES
                case SystemEvent(type=SystemEventType.SUSPEND):
                    self._suspend_system(trap)
                case SystemEvent():
                    self.system_event = effect
        if reply.resume is Resume.NEXT:
            return
        if reply.resume is Resume.UNDEF:
            self._take(EXCP_UDEF, ESR_UNDEFINED, None, pc)
        elif reply.resume is Resume.SAME:
            self.engine.pc.set(pc)
        else:
            if reply.resume is Resume.WAIT:
                self.vcpus[trap.vcpu].wait = Wait.CPU_SUSPEND
            self.engine.stop()

    def _suspend_system(self, trap: Trap) -> None:
        # The caller's registers tell where it resumes: x1 the entry point, x2 the context (DEN 0022, SYSTEM_SUSPEND).
        # An SMC32 call's arguments are W registers (DEN 0028).
        width = MASK64 if trap.regs[0] & SMC64 else MASK32
        entry, context_id = (self.engine.x[number].get() & width for number in (1, 2))
        self.vcpus[trap.vcpu].resume = EntryState(entry, context_id, ENTRY_PSTATE, trap.big_endian)
        for index, vcpu in enumerate(self.vcpus):
            if self._is_on(index):
                self._event(MpState(index, MpStateValue.SUSPENDED))
                vcpu.wait = Wait.SYSTEM_SUSPEND

    def _after_system_event(self) -> None:
        event, self.system_event = self.system_event, None
        if event is None:
            return
        if event.type is SystemEventType.SHUTDOWN:
            raise Ended(ExitCode.OK, "system off")
        if self.setup.no_reboot:
            raise Ended(ExitCode.RESET, "system reset, and -no-reboot")
        if self.config.host.reset_ends:
            raise Ended(ExitCode.RESET, f"system reset, at which the VMM of host {self.config.host.name} ends")
        self._event(Reset())
        self.scheduler.reset()
        self.vcpus = [Vcpu(ready_ns=self.clock.now_ns) for _ in self.vcpus]
        self.console.reset()
        self.interrupts.reset()
        self._power_on()
        self._audience.event(0, "system reset")

    # ---- exceptions

    def _exception(self, number: int) -> None:
        pc = self.engine.pc.get()
        esr, far, target_el = self.engine.exception_syndrome()
        if target_el > 1 and number in (EXCP_PREFETCH_ABORT, EXCP_DATA_ABORT):
            abort = self.engine.stage_2_abort(esr, far)
            if abort is not None:
                self._external_abort(abort)
        elif pc % 4:
            self._take(EXCP_PREFETCH_ABORT, ESR_PC_ALIGNMENT, pc, pc)
        elif number == EXCP_UDEF and esr >> EC_SHIFT == EC_WFX and target_el > 1:  # not SCTLR_EL1's trap, which is the guest's
            self.engine.pc.set(pc + 4)
            self._wait_for_interrupt()
        elif number == EXCP_UDEF and (word := self.engine.instruction_at(pc)) == HLT_SEMIHOSTING:
            self.engine.pc.set(pc + 4)
            self._semihosting.call()
        elif number == EXCP_UDEF and word is not None and self.interrupts.access(word):
            self.engine.pc.set(pc + 4)
        else:
            # What HCR_EL2 or an EL3 control would trap does not exist for this guest.
            has_address = number in (EXCP_PREFETCH_ABORT, EXCP_DATA_ABORT)
            self._take(number, esr if target_el <= 1 else ESR_UNDEFINED, far if has_address else None, pc)

    def _take(self, number: int, esr: int, far: int | None, pc: int) -> None:
        at = pc - 4 if number == EXCP_SWI else pc  # the engine gives SVC's return address
        why = f"{EXCEPTION_NAMES.get(number, 'exception')} at {at:#x}"
        self._audience.exception(number, esr, far, pc, self.exceptions.enter(why, esr, far, pc))

    def _wait_for_interrupt(self) -> None:
        current = self.engine.current
        if self.interrupts.signals(current):
            self.interrupts.watch()
        else:
            self.vcpus[current].wait = Wait.WFI
            self.engine.stop()

    # ---- time and turns

    def _is_on(self, index: int) -> bool:
        return self.firmware.power.states[index] is not PowerState.OFF

    def _unpark(self, index: int) -> bool:
        """Look again at a loop that was found to lead nowhere; say whether its vCPU can go on."""
        self.engine.switch(index)
        if not self.interrupts.is_taken(index) and (
            self.trap_path.repeats() or is_parked(self.engine.instruction_at, self.engine.pc.get())
        ):
            return False
        self.vcpus[index].wait = Wait.NOTHING
        return True

    def _woken(self, waiting: Sequence[int], suspended: Sequence[int]) -> Sequence[int]:
        signalled = self.interrupts.signalled(waiting)
        return sorted([*signalled, *filter(self.interrupts.wakes, suspended)]) if suspended else signalled

    def _pause(self, nanoseconds: int | None) -> bool:
        """Nobody can run: wait for somebody to type, where the guest would be told of it."""
        if not self.console.uart.imsc & INT_RX or not self.wait_for_typing(nanoseconds):
            return False
        self.console.poll()
        return True

    def _wake(self, index: int) -> None:
        if self.vcpus[index].wait is Wait.SYSTEM_SUSPEND:
            # What wakes the system wakes all of it: the caller at its entry point, the others where they were.
            for other, vcpu in enumerate(self.vcpus):
                if vcpu.wait is Wait.SYSTEM_SUSPEND and other != index:
                    self._wake_one(other)
        self._wake_one(index)

    def _wake_one(self, index: int) -> None:
        vcpu, before = self.vcpus[index], self.firmware.power.states[index]
        wait, vcpu.wait = vcpu.wait, Wait.NOTHING
        vcpu.ready_ns = self.clock.now_ns
        entry = None
        if wait is Wait.CPU_SUSPEND:
            entry = self._event(Woken(index, self.clock.now_ns)).entry
        elif wait is Wait.SYSTEM_SUSPEND:
            self._event(MpState(index, MpStateValue.RUNNABLE))
            entry, vcpu.resume = vcpu.resume, None
        after = self.firmware.power.states[index]
        if before is not after:
            self._audience.event(index, f"wakes up; cpu{index} {before.name} -> {after.name}")
        if entry is not None:
            timers = vcpu.timers
            self._adopt(index, entry, after)
            if wait is Wait.CPU_SUSPEND:
                vcpu.timers = timers  # which have woken it: they are not what was powered down

    def _adopt(self, index: int, entry: EntryState, before: PowerState) -> None:
        engine = self.engine
        engine.switch(index)
        engine.reset_current()
        if entry.big_endian:
            engine.set_system_register(SCTLR_EL1, engine.system_register(SCTLR_EL1) | SCTLR_EE)
        engine.set_pstate(entry.pstate)
        engine.pc.set(entry.pc)
        engine.x[0].set(entry.x0)
        self.vcpus[index].timers = VcpuTimers()
        self.interrupts.reset_vcpu(index)
        self._audience.entry(index, entry, before, self.firmware.power.states[index])

    # ---- running

    def run(self, until: CallPoint | re.Pattern[bytes] | None = None) -> Outcome:
        """Run until the guest ends, a limit is reached, somebody sets `interrupted`, or a point comes: `until`'s, or the setup's.

        A run that ended at a point can go on.
        """
        point = self.setup.until if until is None else until
        if point is None:
            return self._run()
        self._until_met = False
        call_off = self.at_call(point, self._until_was_called) if isinstance(point, CallPoint) else None
        self.console.look_for(None if isinstance(point, CallPoint) else point)
        outcome = self._run()
        met = self._until_met or self.console.matched
        self._until_met = False
        self.console.look_for(None)
        if call_off is not None:
            call_off()
        if met:
            return Outcome(ExitCode.OK, "--until was met")
        if outcome.code in (ExitCode.OK, ExitCode.LIMIT, ExitCode.NO_PROGRESS):
            return Outcome(ExitCode.CHECK_FAILED, f"--until was not met: {outcome.sentence}")
        return outcome

    def _run(self) -> Outcome:
        outcome = self._guarded(self._turns_to_an_end)
        assert outcome is not None
        return outcome

    def _turns_to_an_end(self) -> Outcome:
        while True:
            outcome = self._turns_alone()
            if outcome is not None:
                return outcome

    def step(self, instructions: int | None) -> Outcome | None:
        """Give the vCPU whose turn it is some instructions, None for a slice; return how the run ended, if it did.

        What the guest has ended stays ended. Raises UserError when asked from within a turn, by a hook.
        """
        return self._guarded(partial(self._turn, instructions))

    def _guarded(self, turn: Callable[[], Outcome | None]) -> Outcome | None:
        if self._is_running:
            raise UserError("the machine is running: whoever looks on cannot run it")
        self._is_running = True
        try:
            if self._final is None:
                return turn()
        except Ended as ended:
            self.console.flush()
            self._final = self.limits.explained(ended.outcome)
        finally:
            self._is_running = False
        return self._final

    def _turn(self, instructions: int | None = None) -> Outcome | None:
        if self.interrupted:
            return Outcome(ExitCode.INTERRUPTED, "interrupted")
        self._after_system_event()
        index = self._turns.next(self.vcpus, self.firmware.power.states)
        limit = self.limits.reached(self.clock.now_ns)
        if limit is not None:
            return limit
        if index is None:
            if self.interrupted:
                return Outcome(ExitCode.INTERRUPTED, "interrupted")
            return self.limits.deadlock(standstill(self.vcpus, self.firmware.power.states))
        before = self.firmware.power.states[index]
        self.engine.switch(index)
        entry = self._arrival(index, before)
        if entry is not None:
            self._adopt(index, entry, before)
        return self._slice(index, instructions)

    def _turns_alone(self) -> Outcome | None:
        """Take a turn, and the next ones too as long as it is plain that they are the same vCPU's."""
        accesses = self.interrupts.accesses
        outcome = self._turn()
        index = self.engine.current
        vcpu = self.vcpus[index]
        while (
            outcome is None
            and self._turns.is_alone
            and vcpu.wait is _NOTHING
            and not (self.engine.was_stopped or self.interrupted or self.scheduler.started or self.console.uart.rx)
            and self.interrupts.accesses == accesses
            and self.clock.now_ticks < self.interrupts.next_change_ticks
        ):
            outcome = self.limits.reached(self.clock.now_ns) or self._slice(index, None)
        return outcome

    def _slice(self, index: int, instructions: int | None) -> Outcome | None:
        self._run_slice(index, self.vcpus[index], instructions)
        self.console.flush()
        self.console.poll()
        return Outcome(ExitCode.OK, "--until was met") if self._until_met or self.console.matched else None

    def _arrival(self, index: int, state: PowerState) -> EntryState | None:
        """Return where a vCPU has yet to begin, if it has."""
        if state is _ON_PENDING or not self.firmware.has_run:
            # Any other KVM_RUN tells the firmware nothing.
            return self._event(Enter(index)).entry
        vcpu = self.vcpus[index]
        entry, vcpu.resume = vcpu.resume, None
        return entry

    def _run_slice(self, index: int, vcpu: Vcpu, exactly: int | None) -> None:
        if vcpu.stolen_at is not None:
            self._account_stolen_time(vcpu, vcpu.stolen_at)
        granted = self.scheduler.slice_instructions() if exactly is None else exactly
        instructions = self.limits.cap(granted)
        # What somebody has counted is exact; a slice ends with a block, and what it ran beyond its length is counted.
        run = self.engine.run_slice if exactly is None and instructions == granted else self.engine.run
        if vcpu.wait is _NOTHING or self._unpark(index):
            self._audience.slice(index, instructions)
            instructions = max(instructions, self._execute(run, index, instructions))
        self.clock.now_ns += instructions
        vcpu.ready_ns = self.clock.now_ns
        progress = (self.clock.traps, self.console.printed_bytes + len(self.console.uart.tx))
        progressed = self.limits.count(instructions, progress)
        if vcpu.wait is not _NOTHING:
            return
        if not progressed:
            self.limits.spin(instructions, takes=self.interrupts.can_take(index))
        if self.trap_path.repeats() or (not progressed and is_parked(self.engine.instruction_at, self.engine.pc.get())):
            vcpu.wait = Wait.PARKED

    def _execute(self, run: Callable[[int], int], index: int, instructions: int) -> int:
        executed = 0
        while True:
            if self.interrupts.watch() and self.interrupts.can_take(index):
                self._take_interrupt()
            executed += self._execute_on(run, instructions - executed)
            if executed >= instructions or self.engine.was_stopped or not self.interrupts.is_taken(index):
                return executed

    def _take_interrupt(self) -> None:
        pc = self.engine.pc.get()
        vector = self.exceptions.enter(EXCEPTION_NAMES[EXCP_IRQ], None, None, pc, IRQ)
        self._audience.exception(EXCP_IRQ, self.engine.reg["esr_el1"].get(), None, pc, vector)

    def _execute_on(self, run: Callable[[int], int], instructions: int) -> int:
        pc = self.engine.pc.get()
        if pc % 4:
            # The engine would execute from there; only an entry point can be so, or a return from an exception.
            self._take(EXCP_PREFETCH_ABORT, ESR_PC_ALIGNMENT, pc, pc)
        try:
            return run(instructions)
        except UnmappedAccess as error:
            self._external_abort(error)
            return instructions
        except EngineError as error:
            raise GuestCrash(str(error)) from None

    def _external_abort(self, access: UnmappedAccess) -> None:
        pc = self.engine.pc.get()
        esr, far, vector = self.exceptions.external_abort(str(access), access.is_fetch, access.is_write, access.address)
        self._audience.exception(EXCP_PREFETCH_ABORT if access.is_fetch else EXCP_DATA_ABORT, esr, far, pc, vector)

    def _account_stolen_time(self, vcpu: Vcpu, stolen_at: int) -> None:
        vcpu.stolen_ns += self.clock.now_ns - vcpu.ready_ns
        self.memory.write(stolen_at, vcpu.stolen_ns.to_bytes(8, "little"))
