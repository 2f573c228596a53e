"""The boundary: what goes into the firmware and what comes out, as plain data.

1. Events in, replies out; nothing here performs anything.
2. A vCPU's number is `vcpu`, our index from 0; an MPIDR value is never called that.
3. Registers and addresses are unsigned and 64 bits wide; addresses are guest physical.
4. Events, effects and replies are tuples, since every live call makes some: ask for the class, for tuples of two classes may be equal.
"""

from __future__ import annotations

import enum
from typing import NamedTuple


class Conduit(enum.Enum):
    """Which instruction carries the call (DEN 0028, "Conduits")."""

    HVC = "hvc"
    SMC = "smc"


class MpStateValue(enum.IntEnum):
    """KVM_MP_STATE_* as user space writes them (Linux include/uapi/linux/kvm.h)."""

    RUNNABLE = 0
    STOPPED = 5
    SUSPENDED = 10


# ---- events


class Trap(NamedTuple):
    """A guest executed HVC or SMC.

    regs        x0 to x3 as the guest left them
    imm         the instruction's 16-bit immediate
    big_endian  the caller's SCTLR_EL1.EE, which a vCPU that it starts inherits
    time_ns     virtual time, nanoseconds since power-on
    """

    vcpu: int
    conduit: Conduit
    regs: tuple[int, int, int, int]
    imm: int = 0
    big_endian: bool = False
    time_ns: int = 0


class Enter(NamedTuple):
    """A vCPU is about to run (KVM_RUN); the first of any vCPU is the VM's first run."""

    vcpu: int


class Access(NamedTuple):
    """User space is about to read or write a register of this vCPU (KVM_GET_ONE_REG, KVM_SET_ONE_REG)."""

    vcpu: int


class Woken(NamedTuple):
    """A wake-up event reached a vCPU that waits in CPU_SUSPEND.

    time_ns  virtual time, nanoseconds since power-on
    """

    vcpu: int
    time_ns: int = 0


class Init(NamedTuple):
    """User space initialises a vCPU, possibly again (KVM_ARM_VCPU_INIT): it is reset, and stopped or RUNNABLE.

    stopped  whether it was asked to be powered off
    """

    vcpu: int
    stopped: bool


class MpState(NamedTuple):
    """User space sets a vCPU's multiprocessing state (KVM_SET_MP_STATE)."""

    vcpu: int
    state: MpStateValue


class Reset(NamedTuple):
    """The VMM resets the machine: vCPU 0 is ON, all others OFF; registers and first run stay as they are."""


Event = Trap | Enter | Access | Woken | Init | MpState | Reset


# ---- replies


class Resume(enum.Enum):
    """How the vCPU goes on after a reply."""

    NEXT = "next instruction"
    SAME = "same instruction"
    WAIT = "waits for Woken, then the next instruction"
    NEVER = "never"
    UNDEF = "undefined-instruction exception"
    EXIT = "exit to the VMM"


class SystemEventType(enum.IntEnum):
    """KVM_SYSTEM_EVENT_* (Linux include/uapi/linux/kvm.h)."""

    SHUTDOWN = 1
    RESET = 2
    SUSPEND = 5


# Flags of a SystemEvent, as in KVM's system_event.data[0].
RESET_FLAG_PSCI_RESET2: int = 0x1
SHUTDOWN_FLAG_PSCI_OFF2: int = 0x1


class Runnable(NamedTuple):
    """A vCPU may run from now on; with `entry`, it has been reset already and begins there."""

    vcpu: int
    entry: EntryState | None = None


class SystemEvent(NamedTuple):
    """The VMM decides what becomes of the whole machine."""

    type: SystemEventType
    flags: int = 0


class WriteMemory(NamedTuple):
    """The host writes to guest memory."""

    address: int
    content: bytes


Effect = Runnable | SystemEvent | WriteMemory


class EntryState(NamedTuple):
    """The state a vCPU takes on before its next instruction: all else is at its reset value."""

    pc: int
    x0: int
    pstate: int
    big_endian: bool


class Reply(NamedTuple):
    """What the host does in answer to an event.

    regs     (register number, 64-bit value), only the registers the host writes, in ascending order
    resume   how the vCPU goes on
    effects  what the machine has to do; the firmware's own state has changed already
    entry    the state to apply before the vCPU's next instruction, or None
    """

    regs: tuple[tuple[int, int], ...] = ()
    resume: Resume = Resume.NEXT
    effects: tuple[Effect, ...] = ()
    entry: EntryState | None = None


NOTHING = Reply()
