"""What happened, in words: one line for each trap and each change of a vCPU's state."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Final

from emu.symbols import Symbols
from emu.trap import Record
from firmware.abi import FAST_CALL, MASK32, MASK64, OWNER_MASK, OWNER_SHIFT, PowerState, Psci, Smccc, Trng, Version
from firmware.table import Function
from firmware.trap import EntryState, Reply, Resume, SystemEvent

Names = Callable[[int], Function | None]

_NS: Final = 1_000_000_000
_PLACE_WIDTH: Final = 26

# DEN 0028, "Function Identifier ranges".
_OWNERS: Final = ("Arch", "CPU", "SiP", "OEM", "Standard", "Standard hypervisor", "Vendor hypervisor", "Vendor EL3")

_AFFINITY: Final = {0: "ON", 1: "OFF", 2: "ON_PENDING"}
_MIGRATE: Final = {0: "uniprocessor, migratable", 1: "uniprocessor, not migratable", 2: "no migration needed"}
# Arguments whose value is a function ID.
_FUNCTION_ID_ARGUMENTS: Final = frozenset({"psci_func_id", "arch_func_id", "trng_func_id", "PV_call_id"})


class Text:
    """Spell records and events as aligned lines of text."""

    def __init__(self, names: Names, symbols: Symbols) -> None:
        self._names = names
        self._symbols = symbols

    def call(self, record: Record, caller: int | None = None) -> str:
        """Spell one trap: time, vCPU, conduit, call site or its caller, call, result, state changes."""
        trap = record.trap
        conduit = trap.conduit.value + (f"#{trap.imm:#x}" if trap.imm else "")
        changes = [
            f"cpu{vcpu} {before.name} -> {after.name}"
            for vcpu, (before, after) in enumerate(zip(record.before, record.after, strict=True))
            if before is not after
        ]
        outcome = "; ".join([self.exchange(record), *changes])
        place = record.pc if caller is None else caller
        return f"{self._left(trap.time_ns, trap.vcpu, conduit, place)} {outcome}"

    def exchange(self, record: Record) -> str:
        """Spell a call and its result alone."""
        return f"{self._invocation(record)} = {self._result(record)}"

    def entry(self, time_ns: int, vcpu: int, entry: EntryState, before: PowerState, after: PowerState) -> str:
        """Spell the moment at which a vCPU begins to run somewhere new."""
        endianness = ", big-endian" if entry.big_endian else ""
        change = f"; cpu{vcpu} {before.name} -> {after.name}" if before is not after else ""
        return f"{self._left(time_ns, vcpu, '', entry.pc)} enters with x0={entry.x0:#x}{endianness}{change}"

    def event(self, time_ns: int, vcpu: int, what: str) -> str:
        return f"{self.stamp(time_ns, vcpu)} {what}"

    def _left(self, time_ns: int, vcpu: int, conduit: str, pc: int) -> str:
        return f"{self.stamp(time_ns, vcpu)} {conduit:<4} {self.place(pc):<{_PLACE_WIDTH}}"

    @staticmethod
    def stamp(time_ns: int, vcpu: int) -> str:
        return f"[{time_ns // _NS:5}.{time_ns % _NS:09}] cpu{vcpu}"

    def place(self, address: int) -> str:
        """Spell an address as symbol+offset where there is a symbol."""
        symbol = self._symbols.resolve(address)
        return f"{address:#x}" if symbol is None else symbol

    def function_name(self, fid: int) -> str:
        """Name a function ID; one without a name is told by its owner."""
        function = self._names(fid)
        if function is not None:
            return function.name
        owner = fid >> OWNER_SHIFT & OWNER_MASK
        kind = _OWNERS[owner] if fid & FAST_CALL and owner < len(_OWNERS) else "unknown"
        return f"{fid:#010x} ({kind})"

    def _invocation(self, record: Record) -> str:
        if record.function is None:
            return self.function_name(record.trap.regs[0])
        named = zip(record.function.args, record.trap.regs[1:], strict=False)
        return f"{record.function.name}({', '.join(f'{name}={self._argument(name, value)}' for name, value in named)})"

    def _argument(self, name: str, value: int) -> str:
        if name in _FUNCTION_ID_ARGUMENTS:
            return self.function_name(value & MASK32)
        if name == "entry_point_address":
            return self.place(value)
        return f"{value:#x}"

    def _result(self, record: Record) -> str:
        reply = record.reply
        for effect in reply.effects:
            if isinstance(effect, SystemEvent):
                return f"system {effect.type.name.lower()}" + (f", flags {effect.flags:#x}" if effect.flags else "")
        if reply.resume in _ENDINGS:
            return _ENDINGS[reply.resume]
        written = dict(reply.regs)
        if 0 not in written:
            return "suspended" if reply.resume is Resume.WAIT else "done"
        status = value_in_words(record.function, reply)
        return f"{status}, waits" if reply.resume is Resume.WAIT else status


_ENDINGS: Final = {
    Resume.NEVER: "does not return",
    Resume.UNDEF: "UNDEFINED: conduit not served",
    Resume.SAME: "same instruction again",
}


_CODES: Final[dict[str, type[enum.IntEnum]]] = {"arch_features": Smccc, "trng": Trng}


def value_in_words(function: Function | None, reply: Reply) -> str:
    """Spell a reply's result registers as the function's row says they read."""
    values = [value for _, value in reply.regs]
    x0 = values[0]
    kind = "status" if function is None else function.result
    signed = x0 - (1 << 64) if x0 >> 63 else x0
    if signed < 0:
        codes = _CODES.get(kind, Psci)
        return codes(signed).name if signed in {int(code) for code in codes} else f"{x0:#x}"
    if len(values) > 1 and kind in ("words", "trng"):
        return " ".join(f"{value:#x}" for value in values)
    if kind == "version":
        return f"{x0:#x} ({Version.from_word(x0 & MASK32)})"
    if kind == "affinity":
        return f"{x0} ({_AFFINITY.get(x0, '?')})"
    if kind == "migrate":
        return f"{x0} ({_MIGRATE.get(x0, '?')})"
    if kind == "status":
        return "SUCCESS" if x0 == 0 else f"{x0:#x}"
    return f"{x0 & MASK64:#x}"
