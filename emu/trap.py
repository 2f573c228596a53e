"""The trap path: interrupt callback -> `Trap` -> `Reply` -> registers.

1. Only this file and `emu/engine.py` know Unicorn. Everything a trap may need is prepared: a ready answer costs one batch read, one
   look-up and one batch write, all inside the engine's callback.
2. Every answer comes from the firmware's tables. Functions that somebody watches, and replies that are more than registers, take the
   long way through `Firmware.handle`; both ways give the same registers.
3. An exception here is ours or the guest's end; it is kept by the engine and stops the run, never an answer.
"""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from emu.engine import EXCP_HVC, EXCP_SMC, REGISTERS, SCTLR_EL1, Engine, library
from emu.scheduler import TRAP_NS, Clock
from firmware.abi import PowerState
from firmware.dispatch import Firmware, functions_by_id
from firmware.table import Function, Keyed, Table
from firmware.trap import Conduit, Reply, Resume, Trap

_SCTLR_EE: Final = 1 << 25
_RECENT_CALLS: Final = 10
_ENCODINGS: Final = {Conduit.HVC: 0xD400_0002, Conduit.SMC: 0xD400_0003}
_IMMEDIATE_SHIFT: Final = 5
_IMMEDIATE_MASK: Final = 0xFFFF


@dataclass(frozen=True, slots=True)
class Record:
    """One answered trap, for whoever watches.

    pc        address of the HVC or SMC instruction
    function  the function's row, None for an ID without a name
    before    every vCPU's power state before the trap, and
    after     after it
    """

    trap: Trap
    pc: int
    function: Function | None
    reply: Reply
    before: tuple[PowerState, ...]
    after: tuple[PowerState, ...]


class TrapPath:
    """Answer the guest's calls.

    apply      called with a reply that is more than register writes that resume at the next instruction
    exception  called with the exception number of everything that is not a call
    """

    def __init__(
        self,
        engine: Engine,
        firmware: Firmware,
        clock: Clock,
        apply: Callable[[Trap, Reply, int], None],
        exception: Callable[[int], None],
    ) -> None:
        self._engine = engine
        self._firmware = firmware
        self._clock = clock
        self._apply = apply
        self._observers: list[tuple[frozenset[str] | None, Callable[[Record], None]]] = []
        self.count = 0
        self._recent: deque[tuple[int, int, Conduit, list[int], Reply]] = deque(maxlen=_RECENT_CALLS)
        self._batch = _Batch(engine, ("x0", "x1", "x2", "x3", "pc"))
        self._prepared: dict[Reply, _Batch] = {}
        self._answer = {EXCP_HVC: _no_answer, EXCP_SMC: _no_answer}
        self.rebuild()
        answer, fail = self._answer, engine.fail

        def interrupt(_uc: int, number: int) -> None:
            try:
                if number in answer:
                    answer[number]()
                else:
                    exception(number)
            except BaseException as error:
                fail(error)

        engine.hook_interrupts(interrupt)

    def watch(self, observer: Callable[[Record], None], names: frozenset[str] | None = None) -> None:
        """Show every trap of the named functions, or of all, to an observer once it is answered and applied."""
        self._observers.append((names, observer))
        self.rebuild()

    def rebuild(self) -> None:
        """Prepare the answers of the firmware's current tables; needed after whatever builds new ones."""
        self.names = functions_by_id(self._firmware.config)
        for number, conduit in ((EXCP_HVC, Conduit.HVC), (EXCP_SMC, Conduit.SMC)):
            self._answer[number] = self._path(conduit, self._firmware.tables.by_conduit[conduit])

    def recent(self) -> list[Record]:
        """Return the last calls, oldest first; power states are not kept for them."""
        return [
            Record(
                Trap(vcpu, conduit, _four(values), time_ns=time_ns), values[4] - 4, self.names.get(values[0] & 0xFFFF_FFFF), reply, (), ()
            )
            for time_ns, vcpu, conduit, values, reply in self._recent
        ]

    # ---- the fast way

    def _path(self, conduit: Conduit, table: Table) -> Callable[[], None]:
        ready, keyed = self._ready_answers(table)
        mask, default = table.mask, self._prepare_quiet(table.default)
        if self._watches_everything() or table.immediate is not None:
            ready, keyed, default = {}, {}, None
        engine, clock, remember, slow = self._engine, self._clock, self._recent.append, self._slow
        read, read_arguments, values = library.uc_reg_read_batch, self._batch.arguments, self._batch.values
        write = library.uc_reg_write_batch
        find, find_keyed, live = ready.get, keyed.get, self._live(table)

        def answer() -> None:
            read(*read_arguments)
            x = values.tolist()
            clock.now_ns += TRAP_NS
            fid = x[0] & mask
            prepared = find(fid)
            if prepared is None:
                found = find_keyed(fid)
                if found is not None:
                    key_mask, answers, otherwise = found
                    prepared = answers.get(x[1] & key_mask, otherwise)
                elif fid not in live:
                    prepared = default
                if prepared is None:
                    slow(conduit, x)
                    return
            arguments, reply = prepared
            write(*arguments)
            self.count += 1
            remember((clock.now_ns, engine.current, conduit, x, reply))

        return answer

    def _ready_answers(self, table: Table) -> tuple[dict[int, Any], dict[int, Any]]:
        ready: dict[int, Any] = {}
        keyed: dict[int, Any] = {}
        for fid, entry in table.entries.items():
            if self._is_watched(fid):
                continue
            if isinstance(entry, Reply):
                ready[fid] = self._prepare(entry)
            elif isinstance(entry, Keyed):
                answers = {key: self._prepare(answer) if isinstance(answer, Reply) else None for key, answer in entry.answers.items()}
                keyed[fid] = (entry.mask, answers, self._prepare(entry.default))
        return ready, keyed

    def _live(self, table: Table) -> frozenset[int]:
        # IDs whose absence from the ready answers does not mean "unknown".
        watched = {fid for fid in self.names if self._is_watched(fid)}
        return frozenset(table.entries) | watched

    def _prepare(self, reply: Reply) -> Any:
        if reply.resume is not Resume.NEXT or reply.effects:
            return None
        batch = self._prepared.get(reply)
        if batch is None:
            batch = self._prepared[reply] = _Batch(self._engine, tuple(f"x{number}" for number, _ in reply.regs))
            for position, (_, value) in enumerate(reply.regs):
                batch.values[position] = value
        return batch.arguments, reply

    _prepare_quiet = _prepare

    def _watches_everything(self) -> bool:
        return any(names is None for names, _ in self._observers)

    def _is_watched(self, fid: int) -> bool:
        function = self.names.get(fid)
        return function is not None and any(names is None or function.name in names for names, _ in self._observers)

    # ---- the long way

    def _slow(self, conduit: Conduit, x: list[int]) -> None:
        engine, firmware = self._engine, self._firmware
        pc = x[4] - 4
        trap = Trap(
            engine.current,
            conduit,
            _four(x),
            self._immediate(pc),
            bool(engine.system_register(SCTLR_EL1) & _SCTLR_EE),
            self._clock.now_ns,
        )
        before = tuple(firmware.power.states)
        reply = firmware.handle(trap)
        for number, value in reply.regs:
            engine.x[number].set(value)
        self.count += 1
        self._recent.append((trap.time_ns, trap.vcpu, conduit, x, reply))
        if reply.resume is not Resume.NEXT or reply.effects:
            self._apply(trap, reply, pc)
        function = self.names.get(trap.regs[0] & 0xFFFF_FFFF)
        record = Record(trap, pc, function, reply, before, tuple(firmware.power.states))
        for names, observer in self._observers:
            if names is None or (function is not None and function.name in names):
                observer(record)

    def _immediate(self, pc: int) -> int:
        word = self._engine.instruction_at(pc)
        return 0 if word is None else word >> _IMMEDIATE_SHIFT & _IMMEDIATE_MASK


class _Batch:
    """Registers and buffers of one batch access, prepared for C."""

    __slots__ = ("_keep", "arguments", "values")

    def __init__(self, engine: Engine, names: tuple[str, ...]) -> None:
        count = len(names)
        numbers = (ctypes.c_int * count)(*(REGISTERS[name] for name in names))
        buffer = (ctypes.c_uint64 * count)()
        base = ctypes.addressof(buffer)
        pointers = (ctypes.c_void_p * count)(*(base + 8 * position for position in range(count)))
        self.values = memoryview(buffer).cast("B").cast("Q")
        self.arguments = (
            engine.handle,
            ctypes.c_void_p(ctypes.addressof(numbers)),
            ctypes.c_void_p(ctypes.addressof(pointers)),
            ctypes.c_int(count),
        )
        self._keep = (numbers, buffer, pointers)


def _four(x: list[int]) -> tuple[int, int, int, int]:
    return x[0], x[1], x[2], x[3]


def _no_answer() -> None:
    raise AssertionError("a trap before the tables were built")


def call_encoding(word: int) -> tuple[Conduit, int] | None:
    """Return (conduit, immediate) of an HVC or SMC instruction word, None for any other."""
    for conduit, encoding in _ENCODINGS.items():
        if word & ~(_IMMEDIATE_MASK << _IMMEDIATE_SHIFT) == encoding:
            return conduit, word >> _IMMEDIATE_SHIFT & _IMMEDIATE_MASK
    return None


Names = Mapping[int, Function]
