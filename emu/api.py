"""The Python interface: one `Machine`, as a context manager, in the words of the command line.

from emu import Machine

with Machine(kernel="guests/elf/race.elf", smp=5, host="kvm-6.12", psci="0.2") as machine:
    machine.run_until(call="CPU_ON")
    print(machine.cpu[1].state, machine.calls[-1])
    outcome = machine.run()
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

from emu import machine, setup, snapshot, words
from emu.checkpoint import Checkpoint
from emu.console import nobody
from emu.hosts import host_of
from emu.memory import DEFAULT_RAM_BYTES, parse_size
from emu.migrate import destination_of, move
from emu.observer import Observer
from emu.outcome import Outcome
from emu.policyfile import policy_of
from emu.registers import REGISTERS
from emu.snapshot import Snapshot
from emu.state import adopt
from emu.symbols import Symbols
from emu.trap import Record
from firmware.abi import MASK64, PowerState
from firmware.dispatch import check_function_name
from firmware.errors import UserError, unknown
from firmware.fwregs import BY_NAME
from firmware.migration import Migration
from firmware.policy import DEFAULT_POLICY
from firmware.trap import Conduit, Reply, Trap

Path_ = str | os.PathLike[str]
Hook = Callable[[Trap], "int | Reply | None"]


class Call(NamedTuple):
    """One answered call.

    args    x1 to x3 as the guest left them
    result  x0 after it, signed; None where the host wrote none
    site    the HVC or SMC instruction, as symbol+offset where there are symbols
    """

    name: str
    fid: int
    args: tuple[int, int, int]
    result: int | None
    vcpu: int
    conduit: Conduit
    time_ns: int
    pc: int
    site: str
    reply: Reply


class Cpu:
    """One vCPU: `state`, and its registers by name (`cpu["pc"]`) or as `cpu.x[n]`."""

    def __init__(self, inner: machine.Machine, vcpu: int) -> None:
        self._inner = inner
        self._vcpu = vcpu
        self.x = _X(self)

    @property
    def state(self) -> PowerState:
        return self._inner.firmware.power.states[self._vcpu]

    def __getitem__(self, name: str) -> int:
        return self._inner.engine.register_of(self._vcpu, _register_name(name))

    def __setitem__(self, name: str, value: int) -> None:
        self._inner.engine.set_register_of(self._vcpu, _register_name(name), value & MASK64)


class _X(Sequence[int]):
    def __init__(self, cpu: Cpu) -> None:
        self._cpu = cpu

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return tuple(self._cpu[f"x{each}"] for each in range(31)[number])
        return self._cpu[f"x{range(31)[number]}"]

    def __setitem__(self, number: int, value: int) -> None:
        self._cpu[f"x{range(31)[number]}"] = value

    def __len__(self) -> int:
        return 31


class Memory:
    """Guest physical memory: `memory[a:b]` reads and writes bytes; where there is none, UserError."""

    def __init__(self, inner: machine.Machine) -> None:
        self._inner = inner

    def __getitem__(self, where: slice) -> bytes:
        start, size_bytes = _range(where)
        content = self._inner.memory.read(start, size_bytes)
        if content is None:
            raise UserError(f"there is no memory at {start:#x} to {start + size_bytes - 1:#x}")
        return content

    def __setitem__(self, where: slice, content: bytes) -> None:
        start, size_bytes = _range(where)
        if len(content) != size_bytes:
            raise UserError(f"{len(content)} bytes do not fit {size_bytes}")
        self[where]
        self._inner.memory.write(start, content)
        self._inner.engine.flush_translations()


def _is_of(kept: setup.Setup, own: setup.Setup) -> bool:
    """Whether a snapshot's setup is a machine's, which may have other registers' values by now: they are its state."""
    assert kept.boot is not None
    assert own.boot is not None
    config = dataclasses.replace(
        kept.config,
        version=own.config.version,
        psci_0_2=own.config.psci_0_2,
        bitmaps=own.config.bitmaps,
        initialised=own.config.initialised,
    )
    boots = [(boot.kind, boot.segments, boot.pc, boot.x0, boot.dtb) for boot in (kept.boot, own.boot)]
    return config == own.config and boots[0] == boots[1] and (kept.cpu, kept.method, kept.seed) == (own.cpu, own.method, own.seed)


def _range(where: Any) -> tuple[int, int]:
    if not isinstance(where, slice) or where.step is not None or not isinstance(where.start, int) or not isinstance(where.stop, int):
        raise UserError("memory is asked for by a range of addresses: memory[start:end]")
    if not 0 <= where.start < where.stop:
        raise UserError(f"memory[{where.start:#x}:{where.stop:#x}] is no range of addresses")
    return where.start, where.stop - where.start


class _Calls(Observer):
    def __init__(self, inner: machine.Machine, seen: list[Call]) -> None:
        self._inner = inner
        self.seen = seen

    def call(self, record: Record) -> None:
        trap = record.trap
        fid = trap.regs[0] & 0xFFFF_FFFF
        x0 = dict(record.reply.regs).get(0)
        result = None if x0 is None else x0 - (1 << 64) if x0 >> 63 else x0
        name = f"{fid:#010x}" if record.function is None else record.function.name
        site = self._inner.board.symbols.resolve(record.pc) or f"{record.pc:#x}"
        _, x1, x2, x3 = trap.regs
        self.seen.append(Call(name, fid, (x1, x2, x3), result, trap.vcpu, trap.conduit, trap.time_ns, record.pc, site, record.reply))


class Machine:
    """A machine under control.

    kernel, bios, initrd, dtb   paths, as the options of the same names
    smp                         a number, or "cpus=4,clusters=2"; mpidrs gives each CPU's MPIDR affinity value
    memory                      RAM as -m spells it
    gic                         the interrupt controller's version: 2, or 3 above eight CPUs, if left out
    idle_states                 whether the device tree lists idle states
    host, psci, conduit, smccc  as the options; fwreg, cap and faults are sequences of theirs
    typed                       gives up to n characters for the guest to read, without waiting
    Raises UserError for what cannot be had, InputError for a file that cannot be used.
    """

    def __init__(
        self,
        *,
        kernel: Path_ | None = None,
        bios: Path_ | None = None,
        initrd: Path_ | None = None,
        dtb: Path_ | None = None,
        append: str = "",
        smp: int | str | None = None,
        mpidrs: tuple[int, ...] | None = None,
        memory: str | None = None,
        cpu: str = setup.DEFAULT_CPU,
        gic: Literal[2, 3] | None = None,
        idle_states: bool = False,
        host: str = "spec",
        psci: str | None = None,
        conduit: str | None = None,
        smccc: str | None = None,
        fwreg: Sequence[str] = (),
        cap: Sequence[str] = (),
        faults: Sequence[str] = (),
        seed: int = 0,
        max_insns: int | None = None,
        no_reboot: bool = False,
        typed: Callable[[int], bytes] = nobody,
    ) -> None:
        rest: dict[str, object] = {name: None if path is None else Path(path) for name, path in _paths(kernel, bios, initrd, dtb)}
        rest |= {
            "append": append,
            "cpu": words.parse_cpu(cpu),
            "seed": words.parse_number("seed", str(seed)),
            "max_insns": None if max_insns is None else words.parse_positive("max_insns", str(max_insns)),
            "no_reboot": no_reboot,
        }
        choices = setup.Choices(
            host=host,
            psci=psci,
            conduit=conduit,
            smccc=smccc,
            fwreg=(fwreg,) if isinstance(fwreg, str) else tuple(fwreg),
            cap=(cap,) if isinstance(cap, str) else tuple(cap),
            faults=(faults,) if isinstance(faults, str) else tuple(faults),
            mpidrs=_cpus(smp, mpidrs),
            gic=gic,
            ram_bytes=DEFAULT_RAM_BYTES if memory is None else parse_size(memory),
            rest=rest,
        )
        self._text = bytearray()
        self._typed = typed
        self._seen: list[Call] = []
        made = setup.make(choices)
        made = setup.with_idle_states(made) if idle_states else made
        self._control(machine.Machine(made, output=self._text.extend, typed=typed))

    def _control(self, inner: machine.Machine) -> None:
        self._inner = inner
        inner.observe(_Calls(inner, self._seen), calls=None)
        self.cpu = tuple(Cpu(inner, vcpu) for vcpu in range(len(inner.vcpus)))
        self.memory = Memory(inner)

    @classmethod
    def load(cls, path: Path_) -> Self:
        """Return a machine that goes on from a snapshot's file; raise InputError for a file that is none."""
        kept = snapshot.read(Path(path))
        self = cls.__new__(cls)
        self._text, self._typed, self._seen = bytearray(), nobody, []
        self._control(machine.Machine(kept.setup, output=self._text.extend))
        adopt(self._inner, kept.state)
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._inner.interrupted = True  # and so ends whatever runs on

    # ---- running

    def run(self) -> Outcome:
        """Run to the end: the guest's, or the limit's."""
        return self._inner.run()

    def run_until(self, *, call: str | None = None, console: str | None = None) -> Outcome:
        """Run to the instant after the next call of a function, or until new output matches a regular expression.

        Returns exit code 0 if that came, 100 or the guest's own if the run ended before; a machine that has not ended can go on.
        """
        if (call is None) == (console is None):
            raise UserError("run_until takes either call= or console=")
        if call is not None:
            check_function_name(self._inner.config, call)
            return self._inner.run(words.CallPoint(call, 1))
        return self._inner.run(words.parse_until(self._inner.config, f"console:{console}"))

    def step(self, instructions: int = 1) -> Outcome | None:
        """Run the vCPU whose turn it is for some instructions; return how the run ended, if it did."""
        if instructions < 1:
            raise UserError(f"step takes at least 1 instruction, not {instructions}")
        return self._inner.step(instructions)

    # ---- keeping and moving

    def snapshot(self) -> Snapshot:
        """Return the whole machine as it is, between two turns; what it has printed is not taken back by `restore`."""
        return snapshot.take(self._inner)

    def restore(self, kept: Snapshot) -> None:
        """Go on from a snapshot: this machine's, or, on another host or with other CPUs, memory or programs, another's whole.

        Hooks stay with the machine they were given to: they are gone where the snapshot is another's, as after a move.
        """
        if _is_of(kept.setup, self._inner.setup_as_it_is):
            adopt(self._inner, kept.state)
            return
        inner = machine.Machine(kept.setup, output=self._text.extend, typed=self._typed)
        adopt(inner, kept.state)
        self._control(inner)

    def checkpoint(self) -> Checkpoint:
        """Return an instant to go back to many times, by its `restore`, at the cost of what was touched since."""
        return Checkpoint(self._inner)

    def migrate(
        self, host: str, policy: str = DEFAULT_POLICY, *, machine_type: str | None = None, host_cpu: str | None = None
    ) -> Migration:
        """Move the guest to another host and go on there; where that is refused, go on here.

        policy        a name (firmware/policy.py), or a TOML file
        machine_type  one of the policy's; the first of them if left out
        host_cpu      what the destination's CPU needs and has, as -host-cpu
        Raises UserError where the destination's VM cannot be created as this one's was asked for, and goes on here then too.
        """
        by, destination = policy_of(policy), host_of(host)
        like = dataclasses.replace(
            self._inner.config,
            mitigations=(words.parse_host_cpu(host_cpu),),
            conduits=frozenset({destination.default_conduit}),
        )
        kind = by.machine_type(machine_type)
        fresh = destination_of(like, destination, by, kind, self._inner.setup.asked)
        moved = move(self._inner, fresh, by, kind, output=self._text.extend, typed=self._typed)
        if moved.machine is not None:
            self._control(moved.machine)
        return moved.migration

    # ---- looking

    @property
    def calls(self) -> list[Call]:
        """Every call so far."""
        return self._seen

    @property
    def console(self) -> str:
        """What the guest has printed so far."""
        self._inner.console.flush()
        return self._text.decode("utf-8", "backslashreplace")

    @property
    def symbols(self) -> Symbols:
        return self._inner.board.symbols

    @property
    def time_ns(self) -> int:
        """Virtual time, nanoseconds since power-on."""
        return self._inner.clock.now_ns

    # ---- the firmware

    def get_one_reg(self, register: str | int) -> int:
        """Return a firmware register, by name or 64-bit ID; raise RegisterError with KVM's errno."""
        return self._inner.firmware.get_one_reg(_register_id(register))

    def set_one_reg(self, register: str | int, value: int) -> None:
        """Write a firmware register, in force at the next call; raise RegisterError with KVM's errno."""
        self._inner.set_one_reg(_register_id(register), value)

    def hook(self, name: str, function: Hook) -> None:
        """Call a function at every call of a row, before it is answered.

        It gets the Trap. Returning None leaves the call to the firmware; an int is returned to the guest in x0 in its place, and a Reply
        is applied as it is: then nothing of the firmware changes.
        """
        check_function_name(self._inner.config, name)
        if not callable(function):
            raise UserError(f"a hook is a function of the Trap, not {function!r}")
        self._inner.trap_path.hook(name, function)


def _cpus(smp: int | str | None, mpidrs: tuple[int, ...] | None) -> tuple[int, ...]:
    if mpidrs is None:
        return words.parse_smp("1" if smp is None else str(smp))
    return words.check_mpidrs(mpidrs, None if smp is None else len(words.parse_smp(str(smp))))


def _paths(*paths: Path_ | None) -> list[tuple[str, Path_ | None]]:
    return list(zip(("kernel", "bios", "initrd", "dtb"), paths, strict=True))


def _register_name(name: str) -> str:
    if name not in REGISTERS:
        raise unknown("register", name, REGISTERS)
    return name


def _register_id(register: str | int) -> int:
    if isinstance(register, int):
        return register
    name = register.removeprefix("KVM_REG_ARM_")
    if name not in BY_NAME:
        raise unknown("firmware register", register, BY_NAME)
    return BY_NAME[name].id
