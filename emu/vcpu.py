"""What the machine keeps of each vCPU beside the engine's context: what it waits for, its timers, its stolen time."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

from emu.devices.timer import Timer, VcpuTimers
from emu.engine import Engine
from emu.registers import SystemRegister
from emu.scheduler import Clock
from firmware.abi import PowerState
from firmware.trap import EntryState

if TYPE_CHECKING:
    from emu.interrupts import Interrupts

# CNTPCT_EL0 and CNTVCT_EL0; CNT{P,V}_TVAL_EL0, CTL and CVAL differ in op2.
_CNTPCT: Final = (3, 3, 14, 0, 1)
_CNTVCT: Final = (3, 3, 14, 0, 2)
_TIMER_CRM: Final[dict[int, Callable[[VcpuTimers], Timer]]] = {2: lambda timers: timers.physical, 3: lambda timers: timers.virtual}
_TVAL, _CTL, _CVAL = 0, 1, 2

# CNTKCTL_EL1: which bit lets EL0 at the physical and virtual counter (CRm 0, by op2) and timers (CRm 2 and 3).
_CNTKCTL_EL1: Final = (3, 0, 14, 1, 0)
_EL0_ENABLES: Final = {(0, 1): 0, (0, 2): 1, (3, 0): 8, (2, 0): 9}

_ID_AA64ISAR0_EL1: Final = (3, 0, 0, 6, 0)
_ISAR0_RNDR: Final = 0xF << 60
_RNDR: Final = (3, 3, 2, 4, 0)
_RNDRRS: Final = (3, 3, 2, 4, 1)


class Wait(enum.Enum):
    """What a vCPU that is not off waits for."""

    NOTHING = "nothing"
    WFI = "an interrupt"
    CPU_SUSPEND = "an interrupt, in CPU_SUSPEND"
    SYSTEM_SUSPEND = "an interrupt, in SYSTEM_SUSPEND"
    PARKED = "nothing: it spins in a loop that only an interrupt could leave"


@dataclass(slots=True)
class Vcpu:
    """One vCPU.

    resume     where SYSTEM_SUSPEND told it to resume, or where a host that resets inside CPU_ON has put it, or None
    stolen_at  guest physical address of its stolen-time counter, None until it asked for one
    stolen_ns  time in which it could have run and did not
    ready_ns   since when it could run, or ran last
    """

    wait: Wait = Wait.NOTHING
    timers: VcpuTimers = field(default_factory=VcpuTimers)
    resume: EntryState | None = None
    stolen_at: int | None = None
    stolen_ns: int = 0
    ready_ns: int = 0


def standstill(vcpus: Sequence[Vcpu], states: Sequence[PowerState]) -> str:
    """Tell what each vCPU of a machine that cannot go on waits for."""
    pairs = enumerate(zip(vcpus, states, strict=True))
    return ", ".join(
        f"cpu{index} is {state.name}" + ("" if state is PowerState.OFF else f" and waits for {vcpu.wait.value}")
        for index, (vcpu, state) in pairs
    )


def serve_system_registers(
    engine: Engine, clock: Clock, vcpus: Callable[[], Sequence[Vcpu]], number: Callable[[], int], interrupts: Interrupts
) -> None:
    """Serve what the engine would answer from the host: counters and EL1 timers on virtual time, and no random numbers.

    The engine drops timer writes and counts host time. FEAT_RNG (-cpu max) is hidden; a guest that reads RNDR all the same gets
    `number`. `interrupts` hear of a write to a timer, and say what a controller changes.
    """
    readers: dict[SystemRegister, Callable[[], int]] = {
        _CNTPCT: clock.read_counter,
        _CNTVCT: clock.read_counter,
        _ID_AA64ISAR0_EL1: lambda: engine.system_register(_ID_AA64ISAR0_EL1) & ~_ISAR0_RNDR,
        _RNDR: number,
        _RNDRRS: number,
        **interrupts.readers,
    }
    writers: dict[SystemRegister, Callable[[int], None]] = {}
    for crm, of in _TIMER_CRM.items():
        _serve(crm, readers, writers, clock, partial(_current, engine, vcpus, of), interrupts.timer_changed)

    def el0_may(register: SystemRegister) -> bool:
        bit = _EL0_ENABLES.get((register[3], register[4] if register[3] == 0 else 0))
        return bit is not None and bool(engine.system_register(_CNTKCTL_EL1) >> bit & 1)

    engine.hook_system_registers(readers, writers, el0_may)


def _current(engine: Engine, vcpus: Callable[[], Sequence[Vcpu]], of: Callable[[VcpuTimers], Timer]) -> Timer:
    return of(vcpus()[engine.current].timers)


def _serve(
    crm: int,
    readers: dict[SystemRegister, Callable[[], int]],
    writers: dict[SystemRegister, Callable[[int], None]],
    clock: Clock,
    timer: Callable[[], Timer],
    changed: Callable[[], None],
) -> None:
    def write_tval(value: int) -> None:
        timer().write_tval(value, clock.now_ticks)
        changed()

    def write_ctl(value: int) -> None:
        timer().write_ctl(value)
        changed()

    def write_cval(value: int) -> None:
        timer().cval = value
        changed()

    readers[3, 3, 14, crm, _TVAL] = lambda: timer().read_tval(clock.now_ticks)
    readers[3, 3, 14, crm, _CTL] = lambda: timer().read_ctl(clock.now_ticks)
    readers[3, 3, 14, crm, _CVAL] = lambda: timer().cval
    writers[3, 3, 14, crm, _TVAL] = write_tval
    writers[3, 3, 14, crm, _CTL] = write_ctl
    writers[3, 3, 14, crm, _CVAL] = write_cval
