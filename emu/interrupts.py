"""Interrupts: from the devices' lines through the controller into the vCPUs.

1. The only file that knows both sides of a controller (emu/devices/gicv2.py, gicv3.py): its frames in the memory map, its system
   registers, and what a vCPU is signalled.
2. A vCPU takes an interrupt before the first instruction at which it is signalled and not masked, of its turn (emu/budget.py). One
   that its own load or store raises comes at the end of the block that is in: memory accesses end none.
3. Without a controller a timer's output itself is the event that wakes its vCPU, and nothing is ever taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

from emu import memory
from emu.memory import GICC, GICD, GICR
from emu.registers import PSTATE_EL, PSTATE_I, SystemRegister
from emu.scheduler import NS_PER_TICK, Clock
from emu.vcpu import Vcpu

if TYPE_CHECKING:
    from emu.board import Board
    from emu.console import Console
    from emu.devices.gicv2 import Gicv2
    from emu.devices.gicv3 import Gicv3
    from emu.devices.pl011 import Pl011
    from emu.devices.pl031 import Pl031

    Controller = Gicv2 | Gicv3

# INTIDs of QEMU's `virt` (hw/arm/virt.c): the architected timers' PPIs, and SPIs 1 and 2.
VIRTUAL_TIMER: Final = 27
PHYSICAL_TIMER: Final = 30
UART: Final = 33
RTC: Final = 34

# MRS and MSR (register), Arm ARM C6: L in bit 21, then op0, op1, CRn, CRm, op2, and Rt; op0 is 2 or 3.
_SYSTEM_MASK: Final = 0xFFD0_0000
_SYSTEM: Final = 0xD510_0000
_READS: Final = 1 << 21
_XZR: Final = 31

_ID_AA64PFR0_EL1: Final = (3, 0, 0, 4, 0)
_PFR0_GIC: Final = 1 << 24  # the CPU interface has system registers

_NEVER: Final = 1 << 64  # beyond any tick


def controller(version: int | None, mpidrs: tuple[int, ...]) -> Controller | None:
    """Return a controller in its reset state: version 2 or 3, None for none."""
    if version is None:
        return None
    if version == 3:
        from emu.devices.gicv3 import Gicv3  # noqa: PLC0415  a start is mostly imports

        return Gicv3(mpidrs)
    from emu.devices.gicv2 import CpuInterface, Gicv2  # noqa: PLC0415

    return Gicv2([CpuInterface() for _ in mpidrs])


@dataclass(slots=True)
class Kept:
    """The controller and the devices that are wired to it, as they were at an instant, and until when what it knew of its lines holds.

    changes  how often the machine's had been changed when they last were like this
    """

    controller: Controller | None
    uart: Pl011
    rtc: Pl031
    changes: int
    known_until: tuple[int, ...]
    rtc_known_until: int
    next_change: int


class Interrupts:
    """The controller of a machine, and what is wired to it.

    board  has the UART and the RTC
    vcpus  gives the machine's vCPUs as they are now
    """

    def __init__(
        self,
        board: Board,
        clock: Clock,
        version: int | None,
        mpidrs: tuple[int, ...],
        vcpus: Callable[[], Sequence[Vcpu]],
    ) -> None:
        self._board = board
        engine = self._engine = board.engine
        self._clock = clock
        self._version, self._mpidrs = version, mpidrs
        self._vcpus = vcpus
        self.accesses = 0  # of devices whose interrupts may change by that
        self._changes = 0  # of the controller and the RTC that are no accesses: a new one, a line, an alarm
        self.reset()
        self._connect_uart(board.console)
        engine.map_device(memory.RTC, self._read_rtc, self._write_rtc)
        if version is None:
            return
        engine.map_device(GICD, self._read_distributor, self._write_distributor)
        if version == 3:
            engine.map_device(GICR, self._read_redistributor, self._write_redistributor)
        else:
            engine.map_device(GICC, self._read_cpu_interface, self._write_cpu_interface)

    def _connect_uart(self, console: Console) -> None:
        # Few of a console's characters change the interrupt: who looks at every one of them takes as long as the guest does.

        def read(offset: int, size_bytes: int) -> int:
            self.accesses += 1
            value = console.read(offset, size_bytes)
            console.accessed()
            if console.uart.irq is not self._uart_level:
                self.watch()
            return value

        def write(offset: int, size_bytes: int, value: int) -> None:
            self.accesses += 1
            uart = console.uart
            uart.write(offset, size_bytes, value)
            console.accessed()
            if uart.irq is not self._uart_level:
                self.watch()

        self._engine.map_device(memory.UART, read, write, console.front)

    @property
    def controller(self) -> Controller | None:
        """The controller; None: there is none."""
        return self._controller

    @controller.setter
    def controller(self, value: Controller | None) -> None:
        self._controller = value
        self._changes += 1
        self._uart_level: bool | None = None  # as the controller knows it; None: tell it
        # By vCPU: until which tick the controller knows the levels of its timers' outputs.
        self._known_until = [0] * len(self._mpidrs)
        self._rtc_known_until = 0
        self._next_change = 0  # the first of those

    def reset(self) -> None:
        """Give the controller its reset state."""
        self.controller = controller(self._version, self._mpidrs)

    def keep(self) -> Kept:
        """Return what `put_back` needs."""
        controller = None if self._controller is None else self._controller.copy()
        devices = controller, self._board.console.uart.copy(), self._board.rtc.copy()
        return Kept(*devices, self._all_changes, tuple(self._known_until), self._rtc_known_until, self._next_change)

    def put_back(self, kept: Kept) -> None:
        """Make the controller and the devices what they were, once time and timers are what they were then.

        What the guest has not come near is as it was; and what was known of the lines then is known again.
        """
        board = self._board
        if self._all_changes != kept.changes or board.console.uart.rx != kept.uart.rx:  # what is typed comes without an access
            self.controller = None if kept.controller is None else kept.controller.copy()
            board.console.uart, board.rtc = kept.uart.copy(), kept.rtc.copy()
            kept.changes = self._all_changes
        self._known_until[:] = kept.known_until
        self._rtc_known_until, self._next_change = kept.rtc_known_until, kept.next_change

    @property
    def _all_changes(self) -> int:
        return self._board.console.changes + self.accesses + self._changes

    def reset_vcpu(self, index: int) -> None:
        """Reset what a core's reset resets of its CPU interface."""
        if self._controller is not None:
            self._controller.reset_interface(index)
            self._changes += 1
        self._known_until[index] = self._next_change = 0

    @property
    def next_change_ticks(self) -> int:
        """Until when no timer's output changes by itself, in ticks, as far as has been looked; without a controller nobody looks."""
        return self._next_change

    def timer_changed(self) -> None:
        """Look at the current vCPU's timers again: the guest has written to one."""
        self._known_until[self._engine.current] = self._next_change = 0
        self._accessed()

    def _accessed(self) -> None:
        self.accesses += 1
        self.watch()

    # ---- what a vCPU is signalled

    def signals(self, index: int) -> bool:
        """Say whether IRQ is asserted to a vCPU; without a controller, whether a timer's output is."""
        if self._controller is None:
            now = self._clock.now_ticks
            timers = self._vcpus()[index].timers
            return timers.virtual.output(now) or timers.physical.output(now)
        self.update()
        return self._controller.signals(index)

    def signalled(self, indices: Sequence[int]) -> list[int]:
        """Return which of these vCPUs `signals` holds for: at every turn, of all that sleep."""
        if self._controller is None:
            return [index for index in indices if self.signals(index)]
        self.update()
        signals = self._controller.signals
        return [index for index in indices if signals(index)]

    def wakes(self, index: int) -> bool:
        """Say whether a vCPU that is suspended is woken."""
        return self.signals(index) or (self.controller is not None and self.controller.wakes(index))

    def is_taken(self, index: int) -> bool:
        """Say whether a vCPU takes an interrupt now: it is signalled one and does not mask it."""
        return self._controller is not None and self.signals(index) and self.can_take(index)

    def can_take(self, index: int) -> bool:
        """Say whether a vCPU would take an interrupt if it were signalled one."""
        return self._controller is not None and not self._engine.register_of(index, "pstate") & PSTATE_I

    def watch(self) -> bool:
        """Let the current vCPU be stopped as soon as it takes an interrupt; to be called after whatever may signal it one, and says so."""
        is_signalled = self._controller is not None and self.signals(self._engine.current)
        self._engine.watch_for_unmasked(is_signalled)
        return is_signalled

    def update(self) -> None:
        """Tell the controller the levels of all its lines as they are now."""
        if self._controller is None:
            return
        level = self._board.console.uart.irq
        if level is not self._uart_level:
            self._uart_level = level
            self._changes += self._controller.set_level(UART, level)
        now = self._clock.now_ticks
        if now < self._next_change:
            return
        for index, vcpu in enumerate(self._vcpus()):
            if self._known_until[index] <= now:
                timers = vcpu.timers
                self._changes += self._controller.set_level(VIRTUAL_TIMER, timers.virtual.output(now), index)
                self._changes += self._controller.set_level(PHYSICAL_TIMER, timers.physical.output(now), index)
                deadline = timers.deadline_after(now)
                self._known_until[index] = _NEVER if deadline is None else deadline
        if self._rtc_known_until <= now:
            self._changes += self._board.rtc.look(self._clock.now_ns)
            self._changes += self._controller.set_level(RTC, self._board.rtc.irq)
            deadline = self.deadline_ticks
            self._rtc_known_until = _NEVER if deadline is None else deadline
        self._next_change = min(self._rtc_known_until, *self._known_until)

    @property
    def deadline_ticks(self) -> int | None:
        """When a device that belongs to no vCPU will signal an interrupt if nobody runs, or None."""
        deadline_ns = self._board.rtc.deadline_ns
        return None if self._controller is None or deadline_ns is None else -(-deadline_ns // NS_PER_TICK)

    def _read_rtc(self, offset: int, size_bytes: int) -> int:
        value = self._board.rtc.read(offset, size_bytes, self._clock.now_ns)
        self._accessed()
        return value

    def _write_rtc(self, offset: int, size_bytes: int, value: int) -> None:
        self._board.rtc.write(offset, size_bytes, value, self._clock.now_ns)
        self._accessed()
        self._rtc_known_until = self._next_change = 0

    # ---- the controller's registers

    def _current(self) -> int:
        # Before the controller is looked at its lines are as they are now.
        self.update()
        return self._engine.current

    def _read_distributor(self, offset: int, size_bytes: int) -> int:
        assert self.controller is not None
        return self.controller.read_distributor(offset, size_bytes, self._current())

    def _write_distributor(self, offset: int, size_bytes: int, value: int) -> None:
        assert self.controller is not None
        self.controller.write_distributor(offset, size_bytes, value, self._current())
        self._accessed()

    def _read_cpu_interface(self, offset: int, size_bytes: int) -> int:
        gic = cast("Gicv2", self.controller)
        value = gic.read_cpu_interface(offset, size_bytes, self._current())
        self._accessed()  # an acknowledgement changes what is signalled
        return value

    def _write_cpu_interface(self, offset: int, size_bytes: int, value: int) -> None:
        gic = cast("Gicv2", self.controller)
        gic.write_cpu_interface(offset, size_bytes, value, self._current())
        self._accessed()

    def _read_redistributor(self, offset: int, size_bytes: int) -> int:
        gic = cast("Gicv3", self.controller)
        self._current()
        return gic.read_redistributor(offset, size_bytes)

    def _write_redistributor(self, offset: int, size_bytes: int, value: int) -> None:
        gic = cast("Gicv3", self.controller)
        self._current()
        gic.write_redistributor(offset, size_bytes, value)
        self._accessed()

    @property
    def readers(self) -> Mapping[SystemRegister, Callable[[], int]]:
        """What MRS reads of the registers that the engine has and a controller changes."""
        if self._version != 3:
            return {}
        return {_ID_AA64PFR0_EL1: lambda: self._engine.system_register(_ID_AA64PFR0_EL1) | _PFR0_GIC}

    def access(self, word: int) -> bool:
        """Do what an instruction undefined to the engine does, if it is MRS or MSR of one of the controller's registers at EL1."""
        if self._version != 3 or word & _SYSTEM_MASK != _SYSTEM or not self._engine.pstate.get() & PSTATE_EL:
            return False
        gic = cast("Gicv3", self.controller)
        rt = word & 31
        register: SystemRegister = (word >> 19 & 1) + 2, word >> 16 & 7, word >> 12 & 15, word >> 8 & 15, word >> 5 & 7
        if word & _READS:
            value = gic.read_register(self._current(), register)
            if value is None:
                return False
            if rt != _XZR:
                self._engine.x[rt].set(value)
        elif not gic.write_register(self._current(), register, 0 if rt == _XZR else self._engine.x[rt].get()):
            return False
        self._accessed()
        return True
