"""The trap path: interrupt callback -> `Trap` -> `Reply` -> registers.

1. Everything a trap may need is prepared: a ready answer costs one batch read, one look-up and one batch write, all inside the
   engine's callback.
2. Every answer comes from the firmware's tables. Functions that somebody watches, and replies that are more than registers, take the
   long way through `Firmware.handle`; both ways give the same registers.
3. An exception here is ours or the guest's end; it is kept by the engine and stops the run, never an answer.
"""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Final, NamedTuple

from emu.engine import Engine
from emu.exceptions import EXCP_HVC, EXCP_SMC
from emu.registers import REGISTERS, SCTLR_EE, SCTLR_EL1
from emu.scheduler import Clock
from emu.unicorn import library, pointer
from firmware.abi import MASK64, PowerState
from firmware.dispatch import Firmware
from firmware.errors import UserError
from firmware.table import Faulty, Function, Keyed, Live, Table
from firmware.trap import Conduit, Reply, Resume, Trap

_RECENT_CALLS: Final = 10
_NEXT: Final = Resume.NEXT  # a look into an enumeration is slow
_IMMEDIATE_SHIFT: Final = 5
_IMMEDIATE_MASK: Final = 0xFFFF
_INSTRUCTIONS: Final = {Conduit.HVC: 0xD400_0002, Conduit.SMC: 0xD400_0003}  # with an immediate of 0


class Record(NamedTuple):
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
        self._recent: deque[tuple[int, int, Conduit, list[int], Reply]] = deque(maxlen=_RECENT_CALLS)
        self._batch = _Batch(engine, ("x0", "x1", "x2", "x3", "pc"))
        self._actions: list[tuple[frozenset[str] | None, Callable[[Record], None]]] = []
        self._hooks: dict[str, list[Callable[[Trap], int | Reply | None]]] = {}
        self._batches: dict[Reply, _Batch] = {}
        self._sub_tables: dict[int, tuple[Keyed, _Keys]] = {}  # by the entry's identity, which lasts as long as it stands here
        self._answer = {EXCP_HVC: _no_answer, EXCP_SMC: _no_answer}
        self.rebuild()
        find, fail = self._answer.get, engine.fail

        def interrupt(_uc: int, number: int) -> None:
            try:
                path = find(number)
                if path is None:
                    exception(number)
                else:
                    path()
            except BaseException as error:
                fail(error)

        engine.hook_interrupts(interrupt)

    def watch(self, observer: Callable[[Record], None], names: frozenset[str] | None = None) -> None:
        """Show every trap of the named functions, or of all, to an observer once it is answered and applied."""
        self._observers.append((names, observer))
        self.rebuild()

    def after(self, name: str, action: Callable[[Record], None]) -> Callable[[], None]:
        """Do something after every call of a row, once all observers have seen it; return what ends that."""
        entry = (frozenset({name}), action)
        self._actions.append(entry)
        self.rebuild()

        def end() -> None:
            if entry in self._actions:
                self._actions.remove(entry)
                self.rebuild()

        return end

    def hook(self, name: str, function: Callable[[Trap], int | Reply | None]) -> None:
        """Ask a function first at every call of a row: None leaves it to the firmware, anything else is the answer."""
        self._hooks.setdefault(name, []).append(function)
        self.watch(_ignore, frozenset({name}))

    def before_next(self, action: Callable[[], None]) -> None:
        """Do something when the next trap has come, before it is answered: the firmware may be another one by then."""

        def gate(number: int) -> Callable[[], None]:
            def answer() -> None:
                self.rebuild()
                action()
                self._answer[number]()

            return answer

        self._answer.update({number: gate(number) for number in self._answer})

    def serve(self, firmware: Firmware) -> None:
        """Let another firmware answer from now on."""
        self._firmware = firmware
        self.rebuild()

    def rebuild(self) -> None:
        """Prepare the answers of the firmware's current tables; needed after whatever builds new ones."""
        self.names: Mapping[int, Function] = self._firmware.names
        tables = ((_INSTRUCTIONS[conduit], table) for conduit, table in self._firmware.tables.by_conduit.items())
        self._repeating = {word: table for word, table in tables if _repeats(table)}
        for number, conduit in ((EXCP_HVC, Conduit.HVC), (EXCP_SMC, Conduit.SMC)):
            self._answer[number] = partial(self._first, number, conduit)

    def _first(self, number: int, conduit: Conduit) -> None:
        # The path is made for the first call over a conduit; most guests use one of the two.
        self._answer[number] = self._path(conduit, self._firmware.tables.by_conduit[conduit])
        self._answer[number]()

    def keep_calls(self, most: int) -> None:
        """Keep that many of the last calls, and none that were before."""
        if self._recent.maxlen == most:
            self._recent.clear()
        else:
            self._recent = deque(maxlen=most)
            self.rebuild()

    def kept_calls(self) -> Iterator[tuple[int, Conduit, tuple[int, ...], Reply]]:
        """Yield what is kept of the last calls, oldest first: vCPU, conduit, x0 to x3 with the address to return to, and the reply."""
        return ((vcpu, conduit, tuple(x), reply) for _, vcpu, conduit, x, reply in self._recent)

    def recent(self) -> list[Record]:
        """Return the last calls, oldest first; power states are not kept for them."""
        records = []
        for time_ns, vcpu, conduit, x, reply in list(self._recent)[-_RECENT_CALLS:]:
            trap = Trap(vcpu, conduit, _four(x), time_ns=time_ns)
            records.append(Record(trap, x[4] - 4, self._function(x[0]), reply, (), ()))
        return records

    def repeats(self) -> bool:
        """Say whether the current vCPU is at a call that is answered by the same call again, and so for ever."""
        if not self._repeating:
            return False
        word, x = self._engine.instruction_at(self._engine.pc.get()), self._engine.x
        table = self._repeating.get(0 if word is None else word & ~(_IMMEDIATE_MASK << _IMMEDIATE_SHIFT))
        if table is None or not isinstance(table.default, Reply):
            return False
        return all(x[number].get() == value for number, value in table.default.regs)

    # ---- the fast way

    def _path(self, conduit: Conduit, table: Table) -> Callable[[], None]:
        engine, clock, firmware, remember = self._engine, self._clock, self._firmware, self._recent.append
        slow, finish, registers = self._slow, self._finish, engine.x
        read, read_arguments, values = library.uc_reg_read_batch, self._batch.arguments, self._batch.values
        write, mask = library.uc_reg_write_batch, table.mask
        fetches_immediate = table.immediate is not None
        # An entry is prepared when it is first asked for: whoever changes tables often has few calls for each.
        watched = self._watched_names()
        ready: dict[int, Any] = {} if watched is None else dict(table.entries)
        otherwise = None if watched is None or table.otherwise is not None else self._prepare(table.default)
        if watched:
            ready.update(dict.fromkeys((fid for fid, function in self.names.items() if function.name in watched), None))
        find: Callable[[int, Any], Any] = ready.get
        prepare = self._prepare

        def answer() -> None:
            read(*read_arguments)
            x = values.tolist()
            clock.now_ns += clock.trap_ns
            clock.traps += 1
            entry = find(x[0] & mask, otherwise)
            kind = type(entry)
            if kind is _Keys:
                entry = entry.answers.get(x[1] & entry.mask, entry.otherwise)
                kind = type(entry)
            if entry is None or (fetches_immediate and self._immediate(x[4] - 4)):
                slow(conduit, x)
            elif kind is tuple:
                write(*entry[0])
                remember((clock.now_ns, engine.current, conduit, x, entry[1]))
            elif kind is _Live:
                live, enters = entry
                vcpu, big_endian = engine.current, enters and self._is_big_endian()
                reply = firmware.answer(live, vcpu, conduit, (x[1], x[2], x[3]), big_endian, clock.now_ns)
                if reply.resume is _NEXT and not reply.effects:
                    for register, value in reply.regs:
                        registers[register].set(value)
                    remember((clock.now_ns, vcpu, conduit, x, reply))
                else:
                    finish(Trap(vcpu, conduit, _four(x), 0, big_endian, clock.now_ns), reply, x)
            else:
                ready[x[0] & mask] = prepare(entry)
                clock.now_ns -= clock.trap_ns  # it is the same trap
                clock.traps -= 1
                answer()

        return answer

    def _prepare(self, entry: Reply | Live | Keyed | Faulty) -> Any:
        # Four kinds of entry: (arguments of the batch write, reply), what is worked out, a sub-table, or None for the long way.
        if isinstance(entry, Faulty):
            return None
        if isinstance(entry, Keyed):
            if id(entry) not in self._sub_tables:
                answers = {key: self._prepare(answer) for key, answer in entry.answers.items()}
                self._sub_tables[id(entry)] = entry, _Keys(entry.mask, answers, self._prepare(entry.default))
            return self._sub_tables[id(entry)][1]
        if isinstance(entry, Live):
            return _Live(entry, entry.function.enters)
        if entry.resume is not _NEXT or entry.effects or not entry.regs:
            return None
        batch = self._batches.get(entry)
        if batch is None:
            batch = self._batches[entry] = _Batch(self._engine, tuple(f"x{number}" for number, _ in entry.regs))
            for position, (_, value) in enumerate(entry.regs):
                batch.values[position] = value
        return batch.arguments, entry

    def _watched_names(self) -> frozenset[str] | None:
        """Return the functions that somebody watches; None for all."""
        named: set[str] = set()
        for names, _ in (*self._observers, *self._actions):
            if names is None:
                return None
            named |= names
        return frozenset(named)

    # ---- the long way

    def _slow(self, conduit: Conduit, x: list[int]) -> None:
        engine, firmware = self._engine, self._firmware
        pc = x[4] - 4
        trap = Trap(engine.current, conduit, _four(x), self._immediate(pc), self._is_big_endian(), self._clock.now_ns)
        before = tuple(firmware.power.states)
        function = self._function(trap.regs[0])
        hooks = [] if function is None else self._hooks.get(function.name, [])
        answers = [answer for hook in hooks if (answer := hook(trap)) is not None]
        reply = _replaced(answers[-1]) if answers else firmware.handle(trap)
        self._finish(trap, reply, x)
        record = Record(trap, pc, function, reply, before, tuple(firmware.power.states))
        for names, observer in [*self._observers, *self._actions]:
            if names is None or (function is not None and function.name in names):
                observer(record)

    def _finish(self, trap: Trap, reply: Reply, x: list[int]) -> None:
        for register, value in reply.regs:
            self._engine.x[register].set(value)
        self._recent.append((trap.time_ns, trap.vcpu, trap.conduit, x, reply))
        if reply.resume is not _NEXT or reply.effects:
            self._apply(trap, reply, x[4] - 4)

    def _function(self, x0: int) -> Function | None:
        return self.names.get(x0 & self._firmware.config.host.function_id_mask)

    def _is_big_endian(self) -> bool:
        return bool(self._engine.system_register(SCTLR_EL1) & SCTLR_EE)

    def _immediate(self, pc: int) -> int:
        word = self._engine.instruction_at(pc)
        return 0 if word is None else word >> _IMMEDIATE_SHIFT & _IMMEDIATE_MASK


class _Live(NamedTuple):
    """A call that is worked out, and whether it names an entry point."""

    live: Live
    enters: bool


class _Keys(NamedTuple):
    """A prepared sub-table, looked up with x1."""

    mask: int
    answers: dict[int, Any]
    otherwise: Any


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
            pointer(ctypes.addressof(numbers)),
            pointer(ctypes.addressof(pointers)),
            count,
        )
        self._keep = (numbers, buffer, pointers)


def _repeats(table: Table) -> bool:
    return isinstance(table.default, Reply) and table.default.resume is Resume.SAME  # a conduit on which nothing is dispatched


def _ignore(_record: Record) -> None:
    pass


def _replaced(answer: int | Reply) -> Reply:
    if isinstance(answer, int):
        return Reply(((0, answer & MASK64),))
    if not isinstance(answer, Reply):
        raise UserError(f"a hook returns None, an int or a Reply, not {answer!r}")
    if answer.resume not in (Resume.NEXT, Resume.SAME, Resume.UNDEF):
        # What else there is changes power states, which are the firmware's.
        raise UserError(f"a hook's reply cannot resume with {answer.resume.name}; allowed: NEXT, SAME, UNDEF")
    return answer


def _four(x: list[int]) -> tuple[int, int, int, int]:
    return x[0], x[1], x[2], x[3]


def _no_answer() -> None:
    raise AssertionError("a trap before the tables were built")
