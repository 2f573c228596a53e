"""One run of a guest, kept as a `Trace`."""

from __future__ import annotations

import dataclasses
import gc
from typing import Final

from emu.lint.firmwares import Firmware
from emu.lint.onetrace import SCRIBBLE
from emu.lint.trace import Call, Site, Trace, read_tree
from emu.loader import Kind
from emu.machine import Machine
from emu.observer import Observer
from emu.outcome import ExitCode, Outcome
from emu.symbols import Symbols
from emu.trace import Text
from emu.trap import Record
from firmware.abi import PowerState
from firmware.trap import EntryState, Resume

_MOST_CALLS: Final = 20_000
_RUNS_A_COLLECTION: Final = 4  # a machine is a cycle that its RAM hangs on, and nobody counts that as garbage
LAST_PRINTED_BYTES: Final = 1 << 16  # rules look at how it ended
# How much below the stack pointer is overwritten. AAPCS64 has no red zone: what is there is anybody's, an interrupt's for one.
_SCRIBBLED_BYTES: Final = 512
_SCRIBBLES: Final = SCRIBBLE.to_bytes(8, "little") * (_SCRIBBLED_BYTES // 8)


class Runner:
    """Run one guest, again and again; names for its addresses are looked up once."""

    def __init__(self) -> None:
        self._symbols: Symbols | None = None
        self._runs = 0

    def run(self, firmware: Firmware) -> Trace:
        """Run the guest on a firmware to its end, the setup's limits, or so many calls that more would tell no more."""
        self._runs += 1
        if self._runs % _RUNS_A_COLLECTION == 0:
            gc.collect()
        machine = Machine(dataclasses.replace(firmware.setup, max_calls=firmware.setup.max_calls or _MOST_CALLS))
        symbols = machine.board.symbols
        if machine.board.boot.kind is not Kind.IMAGE:  # a Linux Image's names depend on where it went
            symbols = self._symbols = self._symbols or symbols
        notes = Notes(machine, symbols)
        if firmware.scribbles:
            _scribble(machine)
        return notes.trace(firmware.words, run(machine))


def run(machine: Machine) -> Outcome:
    """Run a machine to its end or the setup's point; that a limit came before the point is the limit's outcome."""
    outcome = machine.run()
    if outcome.code == ExitCode.CHECK_FAILED and not machine.is_over:
        return Outcome(ExitCode.LIMIT, outcome.sentence)
    return outcome


class Notes(Observer):
    """Keep what a trace is made of."""

    def __init__(self, machine: Machine, symbols: Symbols) -> None:
        self._tree = read_tree(machine.board.device_tree, "the device tree")
        self._machine = machine
        self._symbols = symbols
        self._text = Text(machine.trap_path.names.get, symbols)
        self._sites: dict[int, Site] = {}
        self.calls: list[Call] = []
        self.printed = bytearray()
        self.started = {0}
        machine.observe(self, calls=None)

    def call(self, record: Record) -> None:
        engine = self._machine.engine
        place = self._symbols.caller(record.pc, engine.x[30].get(), engine.x[29].get(), engine.read_virtual)
        if place not in self._sites:
            self._sites[place] = Site(place, self._symbols.resolve(place), place if place == record.pc else place - 4)
        self.calls.append(judged(record, self._sites[place], self._text.exchange(record)))

    def forget(self) -> None:
        """Begin a new run."""
        self.calls, self.printed, self.started = [], bytearray(), {0}

    def trace(self, firmware: str, outcome: Outcome) -> Trace:
        """Return the run as a trace; firmware says what it was on."""
        return Trace(
            firmware=firmware,
            tree=self._tree,
            calls=tuple(self.calls),
            cpus_up=len(self.started),
            console=self.printed.decode("utf-8", "backslashreplace"),
            code=int(outcome.code),
            sentence=outcome.sentence,
        )

    def console(self, text: bytes) -> None:
        self.printed += text
        if len(self.printed) > 2 * LAST_PRINTED_BYTES:
            del self.printed[:-LAST_PRINTED_BYTES]

    def entry(self, vcpu: int, entry: EntryState, before: PowerState, after: PowerState) -> None:
        del entry, before, after
        self.started.add(vcpu)


def judged(record: Record, site: Site, words: str) -> Call:
    """Return a call as rules see it."""
    trap, reply = record.trap, record.reply
    return Call(
        vcpu=trap.vcpu,
        conduit=trap.conduit.value,
        imm=trap.imm,
        x=trap.regs,
        function=None if record.function is None else record.function.name,
        returned=dict(reply.regs).get(0) if reply.resume in (Resume.NEXT, Resume.WAIT) else None,
        site=site,
        words=words,
    )


def _scribble(machine: Machine) -> None:
    """Overwrite what is below the stack pointer, before every block."""
    engine, memory, size_bytes = machine.engine, machine.memory, _SCRIBBLED_BYTES

    def block(_address: int, _size_bytes: int) -> None:
        start = engine.sp.get() - size_bytes
        if machine.board.ram.base <= start and start + size_bytes <= machine.board.ram.end and not start % 8:
            memory.write(start, _SCRIBBLES)

    engine.hook_blocks(block)
