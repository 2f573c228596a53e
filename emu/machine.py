"""The machine: memory, vCPUs, devices and firmware put together, and the run loop.

1. Towards the firmware it is a VMM: it hands in events and does what the effects say; the firmware alone knows power states.
2. Towards the engine it is the board: map, devices, exceptions, time.
3. A run ends with an `Outcome`, whatever the guest does; a Python exception is a mistake of ours.
"""

from __future__ import annotations

import enum
import mmap
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from emu import devicetree, loader
from emu.devices.pl011 import Pl011
from emu.devices.timer import Timer, VcpuTimers
from emu.engine import EXCP_DATA_ABORT, EXCP_PREFETCH_ABORT, EXCP_UDEF, Engine, EngineError, SystemRegister
from emu.exceptions import EC_SHIFT, EC_WFX, ESR_UNDEFINED, Exceptions
from emu.memory import FLASH, PVTIME, UART, Region, ram
from emu.outcome import Ended, ExitCode, GuestCrash, Outcome
from emu.scheduler import Clock, Scheduler
from emu.semihosting import HLT_SEMIHOSTING, Semihosting
from emu.setup import CallPoint, Setup
from emu.symbols import Symbols
from emu.trap import Record, TrapPath
from firmware import fwregs
from firmware.abi import PowerState
from firmware.errors import UserError
from firmware.pv_time import stolen_time_address
from firmware.trap import (
    Enter,
    EntryState,
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

_SCTLR_EL1: Final = (3, 0, 1, 0, 0)
_SCTLR_EE_E0E: Final = 1 << 25 | 1 << 24

# System registers the engine cannot serve: it drops timer writes and counts host time.
_CNTPCT: Final = (3, 3, 14, 0, 1)
_CNTVCT: Final = (3, 3, 14, 0, 2)
_TIMER_REGISTERS: Final = {"physical": 2, "virtual": 3}  # CRm of CNTx_TVAL, CTL, CVAL (op2 0, 1, 2)

# A loop of these instructions alone touches nothing: NOP, YIELD, WFE, SEV, SEVL, DSB, DMB, ISB.
_HINTS: Final = (0xD503_201F, 0xD503_203F, 0xD503_205F, 0xD503_209F, 0xD503_20BF)
_BARRIER_MASK: Final = 0xFFFF_F01F
_BARRIER: Final = 0xD503_301F
_BRANCH_MASK: Final = 0xFC00_0000
_BRANCH: Final = 0x1400_0000
_LONGEST_PARKING_LOOP: Final = 8

_STOLEN_TIME_OFFSET: Final = 8


class Wait(enum.Enum):
    """What a vCPU that is not off waits for."""

    NOTHING = "nothing"
    WFI = "an interrupt"
    CPU_SUSPEND = "an interrupt, in CPU_SUSPEND"
    SYSTEM_SUSPEND = "an interrupt, in SYSTEM_SUSPEND"
    PARKED = "nothing that could come: it spins on WFE"


@dataclass(slots=True)
class Vcpu:
    """What the machine keeps of a vCPU beside the engine's context.

    resume       where SYSTEM_SUSPEND told the caller to resume, or None
    stolen_ns    time in which it could have run and did not; ready_ns is since when it could
    """

    wait: Wait = Wait.NOTHING
    timers: VcpuTimers = field(default_factory=VcpuTimers)
    resume: EntryState | None = None
    stolen_at: int | None = None
    stolen_ns: int = 0
    ready_ns: int = 0


class Machine:
    """One virtual machine.

    setup    what to build
    console  takes what the guest prints, as it comes
    typed    gives up to n characters the user has typed, or none
    """

    def __init__(
        self,
        setup: Setup,
        *,
        console: Callable[[bytes], None] = lambda _text: None,
        typed: Callable[[int], bytes] = lambda _limit: b"",
    ) -> None:
        self.setup = setup
        self.firmware = setup.firmware()
        self.config = self.firmware.config
        self.clock = Clock()
        self.scheduler = Scheduler(setup.seed)
        self.uart = Pl011()
        self._typed = typed
        self._console = console
        self.vcpus = [Vcpu() for _ in self.config.mpidrs]
        self.ram = ram(setup.ram_bytes)
        self._boot = loader.load(self.ram, self._device_tree, kernel=setup.kernel, bios=setup.bios, initrd=setup.initrd)
        self.symbols = Symbols(self._boot.elf)
        self.engine = Engine(setup.cpu, self.config.mpidrs)
        self._memory = self._map()
        self._exceptions = Exceptions(self.engine)
        self._semihosting = Semihosting(self.engine, self._print)
        self.trap_path = TrapPath(self.engine, self.firmware, self.clock, self._apply, self._exception)
        self.instructions = 0
        self.interrupted = False
        self._last_progress = 0
        self._console_tail = b""
        self._pending_event: SystemEvent | None = None
        self.on_entry: list[Callable[[int, EntryState, PowerState, PowerState], None]] = []
        self.on_exception: list[Callable[[int, int, int, int, int], None]] = []
        self.on_slice: list[Callable[[int, int], None]] = []
        self.on_event: list[Callable[[int, str], None]] = []
        self._hook_timers()
        self._watch_points()
        self._power_on()

    # ---- building

    def _device_tree(self, initrd: Region | None) -> bytes:
        spec = devicetree.Spec(
            ram=self.ram,
            mpidrs=self.config.mpidrs,
            cpu=f"arm,{self.setup.cpu}" if self.setup.cpu != "max" else "arm,armv8",
            psci=self.setup.psci_node(),
            bootargs=self.setup.append,
            initrd=initrd,
        )
        if self.setup.dtb is None:
            return devicetree.build(spec)
        blob = loader.read_file(self.setup.dtb, self.ram.size_bytes)
        return devicetree.amend(blob.content, spec, self.setup.keep_psci_node, blob.name)

    @property
    def device_tree(self) -> bytes:
        """The device tree as it was placed in memory."""
        return next(segment.content for segment in self._boot.segments if segment.region == self._boot.dtb)

    def _map(self) -> list[tuple[Region, mmap.mmap]]:
        regions = [self.ram, PVTIME] + ([FLASH] if self.setup.bios is not None else [])
        try:
            memory = [(region, self.engine.map_ram(region)) for region in regions]
        except OSError as error:
            raise UserError(f"-m {self.setup.ram_bytes >> 20}M: this computer cannot provide so much memory ({error.strerror})") from None
        self.engine.map_device(UART, self._uart_read, self.uart_write)
        return memory

    def _hook_timers(self) -> None:
        readers: dict[SystemRegister, Callable[[], int]] = dict.fromkeys((_CNTPCT, _CNTVCT), self.clock.read_counter)
        writers: dict[SystemRegister, Callable[[int], None]] = {}

        def current(name: str) -> Timer:
            timer: Timer = getattr(self.vcpus[self.engine.current].timers, name)
            return timer

        for name, crm in _TIMER_REGISTERS.items():
            readers[3, 3, 14, crm, 0] = lambda name=name: current(name).read_tval(self.clock.now_ticks)
            readers[3, 3, 14, crm, 1] = lambda name=name: current(name).read_ctl(self.clock.now_ticks)
            readers[3, 3, 14, crm, 2] = lambda name=name: current(name).cval
            writers[3, 3, 14, crm, 0] = lambda value, name=name: current(name).write_tval(value, self.clock.now_ticks)
            writers[3, 3, 14, crm, 1] = lambda value, name=name: current(name).write_ctl(value)
            writers[3, 3, 14, crm, 2] = lambda value, name=name: setattr(current(name), "cval", value)
        self.engine.hook_system_registers(readers, writers)

    def _watch_points(self) -> None:
        for change in self.setup.version_changes:
            word = change.version.word

            def write(word: int = word) -> None:
                self.firmware.set_one_reg(fwregs.BY_NAME["PSCI_VERSION"].id, word)
                self.trap_path.rebuild()

            self.at_call(change.at, write)
        until = self.setup.until
        if isinstance(until, CallPoint):
            self.at_call(until, self._until_called)

    def _until_called(self) -> None:
        raise Ended(ExitCode.OK, "the call of --until came")

    def at_call(self, point: CallPoint, action: Callable[[], None]) -> None:
        """Do something at the instant after a function's Nth trap."""
        seen = 0

        def observe(_record: Record) -> None:
            nonlocal seen
            seen += 1
            if seen == point.number:
                action()

        self.trap_path.watch(observe, frozenset({point.function}))

    def _power_on(self) -> None:
        for segment in self._boot.segments:
            self.write_memory(segment.address, segment.content)
            self._zero(segment.address + len(segment.content), segment.size_bytes - len(segment.content))
        self.engine.flush_translations()
        self.engine.reset_all()
        self._exceptions = Exceptions(self.engine)
        self.engine.pc.set(self._boot.pc)
        self.engine.x[0].set(self._boot.x0)

    # ---- memory

    def write_memory(self, address: int, content: bytes) -> None:
        """Write to guest physical memory; where there is none, nothing is written, as on a bus."""
        for region, buffer in self._memory:
            if region.contains(address, len(content)):
                buffer[address - region.base : address - region.base + len(content)] = content

    def read_memory(self, address: int, size_bytes: int) -> bytes | None:
        """Read guest physical memory; None where there is none."""
        for region, buffer in self._memory:
            if region.contains(address, size_bytes):
                return buffer[address - region.base : address - region.base + size_bytes]
        return None

    def _zero(self, address: int, size_bytes: int) -> None:
        for start in range(address, address + size_bytes, 1 << 20):
            self.write_memory(start, bytes(min(1 << 20, address + size_bytes - start)))

    # ---- the console

    def _uart_read(self, offset: int, size_bytes: int) -> int:
        if not self.uart.rx:
            self._type()
        return self.uart.read(offset, size_bytes)

    def uart_write(self, offset: int, size_bytes: int, value: int) -> None:
        self.uart.write(offset, size_bytes, value)

    def _type(self) -> None:
        room = self.uart.depth - len(self.uart.rx)
        if room > 0 and (characters := self._typed(room)):
            self.uart.feed(characters)

    def _print(self, text: bytes) -> None:
        self._console(text)
        self._last_progress = self.instructions
        until = self.setup.until
        if isinstance(until, re.Pattern):
            self._console_tail = (self._console_tail + text)[-(1 << 16) :]
            if until.search(self._console_tail):
                raise Ended(ExitCode.OK, "the console matched")

    # ---- what interrupts the guest: calls and exceptions

    def _apply(self, trap: Trap, reply: Reply, pc: int) -> None:
        vcpu = self.vcpus[trap.vcpu]
        for effect in reply.effects:
            match effect:
                case Runnable():
                    self.vcpus[effect.vcpu].wait = Wait.NOTHING
                    self.vcpus[effect.vcpu].ready_ns = self.clock.now_ns
                case WriteMemory():
                    self.write_memory(effect.address, effect.content)
                    if effect.address == stolen_time_address(self.config, trap.vcpu):
                        vcpu.stolen_at = effect.address + _STOLEN_TIME_OFFSET
                case SystemEvent():
                    self._system_event(effect, trap)
        match reply.resume:
            case Resume.NEXT:
                return
            case Resume.UNDEF:
                self._take(ESR_UNDEFINED, None, pc, EXCP_UDEF)
                return
            case Resume.SAME:
                self.engine.pc.set(pc)
                return
            case Resume.WAIT:
                vcpu.wait = Wait.CPU_SUSPEND
            case Resume.NEVER | Resume.EXIT:
                pass
        self.engine.stop()

    def _system_event(self, event: SystemEvent, trap: Trap) -> None:
        if event.type is SystemEventType.SUSPEND:
            # KVM leaves the registers to the VMM: x1 is the entry point, x2 the context (DEN 0022, SYSTEM_SUSPEND).
            entry, context_id = self.engine.x[1].get(), self.engine.x[2].get()
            caller = self.vcpus[trap.vcpu]
            caller.resume = EntryState(entry, context_id, 0x3C5, trap.big_endian)
            for index, vcpu in enumerate(self.vcpus):
                if self.firmware.power.states[index] is not PowerState.OFF:
                    self.firmware.handle(MpState(index, MpStateValue.SUSPENDED))
                    vcpu.wait = Wait.SYSTEM_SUSPEND
            return
        self._pending_event = event

    def _exception(self, number: int) -> None:
        pc = self.engine.pc.get()
        esr, far, target_el = self.engine.exception_syndrome()
        if number == EXCP_UDEF:
            if esr >> EC_SHIFT == EC_WFX:
                self.engine.pc.set(pc + 4)
                self._wfi()
                return
            if self.engine.instruction_at(pc) == HLT_SEMIHOSTING:
                self.engine.pc.set(pc + 4)
                self._semihosting.call()
                return
        # What HCR_EL2 or an EL3 control would trap does not exist for this guest.
        self._take(esr if target_el <= 1 else ESR_UNDEFINED, far if number in (EXCP_PREFETCH_ABORT, EXCP_DATA_ABORT) else None, pc, number)

    def _take(self, esr: int, far: int | None, pc: int, number: int) -> None:
        vector = self._exceptions.enter(esr, far, pc)
        for observer in self.on_exception:
            observer(number, esr, far or 0, pc, vector)

    def _wfi(self) -> None:
        vcpu = self.vcpus[self.engine.current]
        if not self._timer_fired(vcpu):
            vcpu.wait = Wait.WFI
            self.engine.stop()

    # ---- time and turns

    def _timer_fired(self, vcpu: Vcpu) -> bool:
        deadline = vcpu.timers.deadline_ticks
        return deadline is not None and deadline <= self.clock.now_ticks

    def _wake(self, index: int) -> None:
        vcpu = self.vcpus[index]
        wait, vcpu.wait = vcpu.wait, Wait.NOTHING
        vcpu.ready_ns = self.clock.now_ns
        before = self.firmware.power.states[index]
        if wait is Wait.CPU_SUSPEND:
            self._adopt(index, self.firmware.handle(Woken(index)).entry, before)
        elif wait is Wait.SYSTEM_SUSPEND:
            self.firmware.handle(MpState(index, MpStateValue.RUNNABLE))
            entry, vcpu.resume = vcpu.resume, None
            self._adopt(index, entry, before)
        if before is not self.firmware.power.states[index]:
            self._tell(index, f"wakes up, {before.name} -> {self.firmware.power.states[index].name}")

    def _adopt(self, index: int, entry: EntryState | None, before: PowerState) -> None:
        if entry is None:
            return
        engine = self.engine
        engine.switch(index)
        engine.reset_current()
        if entry.big_endian:
            engine.set_system_register(_SCTLR_EL1, engine.system_register(_SCTLR_EL1) | _SCTLR_EE_E0E)
        engine.set_pstate(entry.pstate)
        engine.pc.set(entry.pc)
        engine.x[0].set(entry.x0)
        self.vcpus[index].timers = VcpuTimers()
        for observer in self.on_entry:
            observer(index, entry, before, self.firmware.power.states[index])

    def _next(self) -> int | None:
        """Wake whom time has woken and return whose turn it is; None if nobody can ever run again."""
        while True:
            for index, vcpu in enumerate(self.vcpus):
                if vcpu.wait not in (Wait.NOTHING, Wait.PARKED) and self._is_on(index) and self._timer_fired(vcpu):
                    self._wake(index)
            runnable = [vcpu.wait is Wait.NOTHING and self._is_on(index) for index, vcpu in enumerate(self.vcpus)]
            chosen = self.scheduler.choose(runnable)
            if chosen is not None:
                return chosen
            deadlines = [
                vcpu.timers.deadline_ticks
                for index, vcpu in enumerate(self.vcpus)
                if vcpu.wait is not Wait.PARKED and self._is_on(index) and vcpu.timers.deadline_ticks is not None
            ]
            if not deadlines:
                return None
            self.clock.advance_to_tick(min(deadlines))
            if self.setup.timeout_ns is not None and self.clock.now_ns >= self.setup.timeout_ns:
                return None

    def _is_on(self, index: int) -> bool:
        return self.firmware.power.states[index] is not PowerState.OFF

    # ---- running

    def run(self) -> Outcome:
        """Run until the guest ends, a limit is reached or the user interrupts."""
        try:
            while True:
                outcome = self._step()
                if outcome is not None:
                    return outcome
        except Ended as ended:
            self._flush_console()
            return ended.outcome

    def _step(self) -> Outcome | None:
        if self.interrupted:
            return Outcome(ExitCode.INTERRUPTED, "interrupted")
        index = self._next()
        limit = self._limit()
        if limit is not None:
            return limit
        if index is None:
            return Outcome(ExitCode.DEADLOCK, f"deadlock: {self._standstill()}")
        vcpu = self.vcpus[index]
        before = self.firmware.power.states[index]
        self.engine.switch(index)
        self._adopt(index, self.firmware.handle(Enter(index)).entry, before)
        self._account_stolen(vcpu)
        self._run_slice(index, vcpu)
        self._flush_console()
        self._type()
        return self._after_system_event()

    def _run_slice(self, index: int, vcpu: Vcpu) -> None:
        engine, trap_path = self.engine, self.trap_path
        count = self.scheduler.slice_instructions()
        if self.setup.max_insns is not None:
            count = min(count, self.setup.max_insns - self.instructions)
        for observer in self.on_slice:
            observer(index, count)
        start, calls = engine.pc.get(), trap_path.count
        try:
            engine.run(count)
        except EngineError as error:
            raise GuestCrash(str(error)) from None
        self.instructions += count
        self.clock.now_ns += count
        vcpu.ready_ns = self.clock.now_ns
        if trap_path.count != calls:
            self._last_progress = self.instructions
        elif vcpu.wait is Wait.NOTHING and abs(engine.pc.get() - start) <= 4 * _LONGEST_PARKING_LOOP and self._is_parked():
            vcpu.wait = Wait.PARKED

    def _is_parked(self) -> bool:
        # Hints, barriers and unconditional branches that come back to where they were: nothing in this loop can ever change.
        seen: set[int] = set()
        pc = self.engine.pc.get()
        while len(seen) <= _LONGEST_PARKING_LOOP:
            if pc in seen:
                return True
            seen.add(pc)
            word = self.engine.instruction_at(pc)
            if word is None:
                return False
            if word & _BRANCH_MASK == _BRANCH:
                pc += ((word & 0x03FF_FFFF ^ 0x0200_0000) - 0x0200_0000) * 4
            elif word in _HINTS or word & _BARRIER_MASK == _BARRIER:
                pc += 4
            else:
                return False
        return False

    def _account_stolen(self, vcpu: Vcpu) -> None:
        if vcpu.stolen_at is not None:
            vcpu.stolen_ns += self.clock.now_ns - vcpu.ready_ns
            self.write_memory(vcpu.stolen_at, vcpu.stolen_ns.to_bytes(8, "little"))

    def _after_system_event(self) -> Outcome | None:
        event, self._pending_event = self._pending_event, None
        if event is None:
            return None
        if event.type is SystemEventType.SHUTDOWN:
            return Outcome(ExitCode.OK, "system off")
        if self.setup.no_reboot:
            return Outcome(ExitCode.RESET, "system reset, and -no-reboot")
        self._reset()
        return None

    def _reset(self) -> None:
        self.firmware.handle(Reset())
        self.scheduler.reset()
        self.vcpus = [Vcpu(stolen_ns=vcpu.stolen_ns, ready_ns=self.clock.now_ns) for vcpu in self.vcpus]
        self.uart.__init__()  # type: ignore[misc]  its reset state is that of a new one
        self._power_on()
        self._tell(0, "system reset")

    def _limit(self) -> Outcome | None:
        setup = self.setup
        by_count = setup.max_insns is not None and self.instructions >= setup.max_insns
        by_time = setup.timeout_ns is not None and self.clock.now_ns >= setup.timeout_ns
        if not (by_count or by_time):
            return None
        limit = f"--max-insns {setup.max_insns}" if by_count else f"--timeout {setup.timeout_ns}ns"
        if setup.until is not None:
            return Outcome(ExitCode.CHECK_FAILED, f"--until was not met within {limit}")
        if self.instructions - self._last_progress > self.instructions // 2:
            return Outcome(ExitCode.NO_PROGRESS, f"no progress: no call and no output in the second half of {limit}")
        return Outcome(ExitCode.LIMIT, f"limit reached: {limit}")

    def _standstill(self) -> str:
        states = self.firmware.power.states
        waits = [
            f"cpu{index} is OFF" if not self._is_on(index) else f"cpu{index} is {states[index].name} and waits for {vcpu.wait.value}"
            for index, vcpu in enumerate(self.vcpus)
        ]
        return ", ".join(waits)

    def _flush_console(self) -> None:
        if self.uart.tx:
            self._print(self.uart.drain())

    def _tell(self, index: int, what: str) -> None:
        for observer in self.on_event:
            observer(index, what)
