"""What is told beside the console: the -d log, and the account of a crash."""

from __future__ import annotations

from typing import Final, TextIO

from emu.exceptions import EXCEPTION_NAMES, EXCP_SWI
from emu.machine import Machine
from emu.observer import Observer
from emu.trace import Text
from emu.trap import Record
from firmware.abi import PowerState
from firmware.errors import UserError
from firmware.trap import EntryState

_INSTRUCTIONS_AROUND: Final = 4


class Log(Observer):
    """Write what the user asked to see with -d, a line at a time."""

    def __init__(self, machine: Machine, categories: frozenset[str], stream: TextIO) -> None:
        self._machine = machine
        self._stream = stream
        self.text = Text(machine.trap_path.names.get, machine.board.symbols)
        self._categories = categories
        self._blocks: set[int] = set()
        machine.observe(self, calls=None if "psci" in categories else frozenset())
        if "in_asm" in categories:
            machine.engine.hook_blocks(self._block)

    def _line(self, line: str) -> None:
        self._machine.console.flush()  # what came before the line is shown before it
        try:
            print(line, file=self._stream, flush=True)
        except OSError as error:
            raise UserError(f"the log cannot be written: {error.strerror}") from None

    def call(self, record: Record) -> None:
        engine = self._machine.engine
        caller = self._machine.board.symbols.caller(record.pc, engine.x[30].get(), engine.x[29].get(), engine.read_virtual)
        self._line(self.text.call(record, caller))

    def entry(self, vcpu: int, entry: EntryState, before: PowerState, after: PowerState) -> None:
        if "psci" in self._categories:
            self._line(self.text.entry(self._machine.clock.now_ns, vcpu, entry, before, after))

    def event(self, vcpu: int, what: str) -> None:
        if "psci" in self._categories:
            self._line(self.text.event(self._machine.clock.now_ns, vcpu, what))

    def exception(self, number: int, esr: int, far: int | None, pc: int, vector: int) -> None:
        if "int" not in self._categories:
            return
        machine = self._machine
        name = EXCEPTION_NAMES.get(number, f"exception {number}")
        address = "" if far is None else f", FAR_EL1 {far:#x}"
        pc -= 4 if number == EXCP_SWI else 0  # the engine gives SVC's return address
        what = f"{name} at {self.text.place(pc)}, ESR_EL1 {esr:#x}{address}, enters {self.text.place(vector)}"
        self._line(self.text.event(machine.clock.now_ns, machine.engine.current, what))

    def slice(self, vcpu: int, instructions: int) -> None:
        if "engine" not in self._categories:
            return
        machine = self._machine
        what = f"slice of {instructions} instructions from {self.text.place(machine.engine.pc.get())}"
        self._line(self.text.event(machine.clock.now_ns, vcpu, what))

    def _block(self, address: int, size_bytes: int) -> None:
        if address in self._blocks:
            return
        self._blocks.add(address)
        self._line(f"IN: {self.text.place(address)}")
        for line in disassemble(self._machine, address, size_bytes // 4):
            self._line(line)
        self._line("")


def disassemble(machine: Machine, address: int, count: int, mark: int | None = None) -> list[str]:
    """Spell `count` instructions from a virtual address, one line each; `mark` gets an arrow."""
    import capstone  # noqa: PLC0415  90 ms that a run without a crash does not pay

    decoder = capstone.Cs(capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM)
    lines = []
    for place in range(address, address + 4 * count, 4):
        word = machine.engine.instruction_at(place)
        if word is None:
            continue
        decoded = next(decoder.disasm_lite(word.to_bytes(4, "little"), place), None)
        spelled = f"{decoded[2]:<8} {decoded[3]}".rstrip() if decoded else ".word"
        lines.append(f"{'->' if place == mark else '  '} {place:#014x}  {word:08x}  {spelled}")
    return lines


def _instructions_around(machine: Machine, name: str, address: int) -> list[str]:
    if address % 4:
        return []
    code = disassemble(machine, address - 4 * _INSTRUCTIONS_AROUND, 2 * _INSTRUCTIONS_AROUND + 1, address)
    return [f"instructions around {name}:", *code] if code else []


def crash(machine: Machine) -> str:
    """Spell the registers, the instructions around PC and the last calls."""
    engine = machine.engine
    text = Text(machine.trap_path.names.get, machine.board.symbols)
    pc = engine.pc.get()
    lines = [f"cpu{engine.current} at {text.place(pc)}, PSTATE {engine.pstate.get():#x}, virtual time {machine.clock.now_ns} ns"]
    named = [("PC", pc), ("SP", engine.sp.get()), *((f"X{number}", register.get()) for number, register in enumerate(engine.x))]
    named += [(name.upper(), engine.reg[name].get()) for name in ("elr_el1", "esr_el1", "far_el1", "vbar_el1")]
    for start in range(0, len(named), 4):
        lines.append("  ".join(f"{name:>8} {value:016x}" for name, value in named[start : start + 4]))
    lines += _instructions_around(machine, "PC", pc) or [
        "no instruction can be fetched around PC",
        *_instructions_around(machine, "ELR_EL1", engine.reg["elr_el1"].get()),
    ]
    calls = machine.trap_path.recent()
    lines += ["last calls:", *(text.call(record) for record in calls)] if calls else ["it made no call"]
    return "\n".join(lines)
