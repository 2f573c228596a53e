"""Write a run as JSON lines while it happens (`--trace F`); the schema is emu/tracefile.py's."""

from __future__ import annotations

from typing import BinaryIO

from emu import tracefile
from emu.machine import Machine
from emu.observer import Observer
from emu.outcome import Outcome
from emu.trap import Record
from firmware.abi import PowerState
from firmware.errors import UserError
from firmware.trap import EntryState, Event, Reply


class Recorder(Observer):
    """Record one machine, from before its first instruction; `finish` writes the last line."""

    def __init__(self, machine: Machine, stream: BinaryIO) -> None:
        self._machine = machine
        self._stream = stream
        self._write(tracefile.header(machine.config, machine.setup.seed, machine.board.device_tree))
        if machine.firmware.has_run:
            self._resume()
        machine.observe(self, calls=None)

    def follow(self, machine: Machine) -> None:
        """Go on with the machine that goes on in this one's place."""
        self._machine = machine
        self._resume()
        machine.observe(self, calls=None)

    def _resume(self) -> None:
        machine = self._machine
        self._write(tracefile.resumed_line(machine.clock.now_ns, machine.config, machine.setup.seed, machine.firmware.state()))

    def call(self, record: Record) -> None:
        trap = record.trap
        x0, x1, x2, x3 = (hex(value) for value in trap.regs)
        self._write(
            tracefile.Call(
                trap.time_ns,
                trap.vcpu,
                trap.conduit.value,
                trap.imm,
                (x0, x1, x2, x3),
                trap.big_endian,
                hex(record.pc),
                None if record.function is None else record.function.name,
                tracefile.reply_line(record.reply),
            )
        )

    def firmware_event(self, event: Event, reply: Reply) -> None:
        self._write(tracefile.event_line(self._machine.clock.now_ns, event, reply))

    def register_write(self, register_id: int, value: int) -> None:
        self._write(tracefile.Register(self._machine.clock.now_ns, hex(register_id), hex(value)))

    def entry(self, vcpu: int, entry: EntryState, before: PowerState, after: PowerState) -> None:
        self.event(vcpu, f"starts at {entry.pc:#x} with x0={entry.x0:#x}, {before.name} -> {after.name}")

    def event(self, vcpu: int, what: str) -> None:
        self._write(tracefile.Machine(self._machine.clock.now_ns, vcpu, what))

    def console(self, text: bytes) -> None:
        self._write(tracefile.Console(self._machine.clock.now_ns, text.decode("utf-8", "backslashreplace")))

    def finish(self, outcome: Outcome) -> None:
        """Write how the run ended."""
        self._write(tracefile.End(self._machine.clock.now_ns, outcome.code, outcome.sentence))

    def _write(self, line: tracefile.Line) -> None:
        try:
            self._stream.write(tracefile.encode(line) + b"\n")
            self._stream.flush()
        except OSError as error:
            raise UserError(f"--trace cannot be written: {error.strerror}") from None
