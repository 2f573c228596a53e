"""A guest at its first call: until then it can tell firmware apart by device tree and conduit alone.

1. What looks the same until then is one world: it is booted once, and every case of it runs on from there. What follows is what a boot
   from scratch would have given, but that a turn begins with the call; a seed is the schedule's from there on.
2. A run goes on in this process, from a checkpoint, where what was translated before need not be again. Where the engine aborts, it
   goes on in a fork.
3. An `Execution` is a function of guest and case, but for its blocks: those that no earlier run has come to.
"""

from __future__ import annotations

import dataclasses
import hashlib
import marshal
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final, NamedTuple

import msgspec

from emu.checkpoint import Checkpoint
from emu.coverage import Coverage
from emu.fuzz.case import Case, parse_at
from emu.fuzz.forked import in_a_fork
from emu.fuzz.legal import serves_correctly
from emu.hosts import host_of
from emu.lint.runs import Notes, run
from emu.lint.trace import Trace
from emu.machine import Machine
from emu.migrate import destination_of
from emu.observer import Observer
from emu.outcome import ExitCode
from emu.scheduler import SLICE_INSTRUCTIONS
from emu.setup import Setup
from emu.trap import Record
from emu.words import parse_call_point, parse_version
from firmware import fwregs
from firmware.abi import PowerState
from firmware.dispatch import Firmware, FirmwareState
from firmware.errors import UserError
from firmware.host import Config
from firmware.migration import carried, plan
from firmware.overlay import with_faults
from firmware.policy import DEFAULT_POLICY, policy_named
from firmware.trap import Conduit, EntryState, Resume
from firmware.view import view

_KEPT_CONSOLE_BYTES: Final = 4096  # a run's last words


class Execution(NamedTuple):
    """One run of a case.

    console  its last words
    looks    a digest of what was called, from where, and what it was answered; empty where there is a trace
    profile  how many calls of each function there were
    blocks   addresses of blocks that nobody had come to
    harmful  whether a move took from the guest what it had
    trace    the run as the linter sees it, where that was asked for
    """

    code: int
    sentence: str
    cpus_up: int
    console: bytes
    looks: bytes
    profile: tuple[tuple[str, int], ...]
    blocks: tuple[int, ...]
    instructions: int
    harmful: bool
    trace: Trace | None = None


class Firmwares:
    """A case's firmware on a machine, and what changes it while the guest runs; `plain` is what it is without faults."""

    def __init__(self, machine: Machine, changes: Changes, plain: Firmware, config: Config, case: Case) -> None:
        self._machine = machine
        self._changes = changes
        self._plain = plain
        self._case = case
        self._config = config
        self.harmful = False

    def serve(self, state: FirmwareState) -> FirmwareState:
        """Let the case's firmware answer; return its state, which is `state` but for the registers' values and the seed."""
        config, seed = self._config, self._case.seed
        self._machine.serve(Firmware(config, seed, self._plain))
        entropy = (seed, state.entropy[1])
        return FirmwareState(config.version, config.psci_0_2, config.bitmaps, state.power, entropy, state.has_run)

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Have the case's version changes and moves happen."""
        planned = [(change, self._write_version) for change in self._case.changes] + [(move, self._move) for move in self._case.moves]
        ends = []
        for text, action in planned:
            what, at = parse_at(text)
            ends.append(self._machine.at_call(parse_call_point(self._config, at), partial(action, what)))
        try:
            yield
        finally:
            for end in ends:
                end()

    def _write_version(self, version: str) -> None:
        change = self._changes.written(self._machine.config, version)
        if change is not None:
            state, config = self._machine.firmware.state(), change.plain.config
            self._serve(change, dataclasses.replace(state, version=config.version, psci_0_2=config.psci_0_2, bitmaps=config.bitmaps))

    def _move(self, host: str) -> None:
        # As emu/migrate.py does it, but that the machine stays: everything but the firmware arrives as it was.
        source, state = self._machine.config, self._machine.firmware.state()
        change = self._changes.moved(source, host)
        if change is not None:
            arrived = carried(state, source.host, change.plain.config)
            # Where a host does not bring a vCPU's registers up to date before they are read, a CPU_ON of a moment ago is lost on the way.
            self.harmful |= change.is_harmful or arrived.power.pending != state.power.pending
            self._serve(change, arrived)

    def _serve(self, change: _Change, state: FirmwareState) -> None:
        config = with_faults(change.plain.config, self._machine.config.faults)
        firmware = Firmware(config, self._case.seed, change.plain)
        firmware.restore(state)
        self._machine.serve(firmware)


class _Change(NamedTuple):
    """What a guest is served by after a change, without faults; and whether it has lost by it: version, mitigation, correct firmware."""

    plain: Firmware
    is_harmful: bool


class Changes:
    """What becomes of a firmware when a guest is moved, or its version register is written; each is worked out once.

    method  the conduit that the guest calls by
    Faults are no part of it: they come along, and what a host does to a guest that is moved is not theirs.
    """

    def __init__(self, method: str) -> None:
        self._conduit = Conduit(method)
        self._policy = policy_named(DEFAULT_POLICY)
        self._known: dict[object, _Change | None] = {}

    def moved(self, source: Config, host: str) -> _Change | None:
        """Return what a move comes to, None where it is refused."""
        return self._once(("moved", host), source, lambda plain: self._moved(plain, host))

    def written(self, source: Config, version: str) -> _Change | None:
        """Return what a write to the version register comes to, None where the host refuses it."""
        return self._once(("written", version), source, lambda plain: self._written(plain, version))

    def _once(self, what: object, source: Config, change: Callable[[Config], _Change | None]) -> _Change | None:
        # What else a VM has is always the same here.
        about = what, source.host.name, source.host.trusted_os, source.offered, source.bitmaps
        if about not in self._known:
            self._known[about] = change(dataclasses.replace(source, faults=()))
        return self._known[about]

    def _moved(self, source: Config, host: str) -> _Change | None:
        machine_type = self._policy.machine_type(None)
        try:
            fresh = destination_of(source, host_of(host), self._policy, machine_type, None)
            migration = plan(source, fresh, self._policy, machine_type, partial(view, conduit=self._conduit))
        except UserError:
            return None  # the destination's VM cannot be created
        if migration.config is None:
            return None
        is_harmful = migration.version_changed or migration.mitigation_lost or not serves_correctly(migration.config, self._conduit)
        return _Change(Firmware(migration.config), is_harmful)

    @staticmethod
    def _written(source: Config, version: str) -> _Change | None:
        firmware = Firmware(source)
        firmware.has_run = True
        try:
            firmware.set_one_reg(fwregs.BY_NAME["PSCI_VERSION"].id, parse_version(version).word)
        except UserError:
            return None
        return _Change(firmware, is_harmful=True)


class World:
    """One guest, ready to make its first call.

    forks     run each case in a fork
    observes  look at everything in each run, rather than where that is asked for: where it hardly matters beside the run itself
    """

    def __init__(self, setup: Setup, coverage: Coverage, *, forks: bool, observes: bool) -> None:
        self._setup = setup
        self._coverage = coverage
        self._forks = forks
        self._observes = observes
        before = partial(_before_the_first_call, setup)
        self._before = in_a_fork(before, _BEFORE, _Before(0, 0, ABORTED)) if forks else before()
        self._silent = self._before.silent
        self._stage = None if self._silent is not None else _Stage(setup, self._before, coverage, forks=forks)
        self._observed = self._stage if forks or observes else None

    def run(self, plain: Firmware, config: Config, case: Case) -> Execution:
        """Run a case whose configuration is one that this world's device tree fits; `plain` is its firmware without faults."""
        if self._stage is None:
            assert self._silent is not None
            return self._silent
        return self._run(self._stage, plain, config, case, observed=self._forks or self._observes)

    def observe(self, plain: Firmware, config: Config, case: Case) -> Trace | None:
        """Run a case and return its trace, None where the engine aborts."""
        if self._stage is None:
            assert self._silent is not None
            return self._silent.trace
        if self._observed is None:
            self._observed = _Stage(self._setup, self._before, Coverage(), forks=False)  # of its own: nobody asks
        return self._run(self._observed, plain, config, case, observed=True).trace

    def _run(self, stage: _Stage, plain: Firmware, config: Config, case: Case, *, observed: bool) -> Execution:
        execute = partial(stage.run, plain, config, case, observed=observed)
        return in_a_fork(execute, _EXECUTION, ABORTED) if self._forks else execute()


class _Stage:
    """A machine at that call, and what puts it back there."""

    def __init__(self, setup: Setup, before: _Before, coverage: Coverage, *, forks: bool) -> None:
        self._coverage = coverage
        self._machine = machine = Machine(setup)
        self._tally = _Tally(machine)
        before.pass_on(machine)
        self._said = bytes(self._tally.printed)
        machine.engine.cover(coverage)
        machine.board.symbols.read()
        self._state = machine.firmware.state()
        self._changes = Changes(setup.method)
        self._kept = None if forks else Checkpoint(machine)
        self._notes: Notes | None = None

    def run(self, plain: Firmware, config: Config, case: Case, *, observed: bool = False) -> Execution:
        machine, tally = self._machine, self._tally
        if observed and self._notes is None:
            self._notes = Notes(machine, machine.board.symbols)
        firmwares = Firmwares(machine, self._changes, plain, config, case)
        state = firmwares.serve(self._state)
        if self._kept is None:
            machine.firmware.restore(state)
        else:
            self._kept.restore(state)
        if machine.setup.seed != case.seed:
            machine.setup = dataclasses.replace(machine.setup, seed=case.seed)
        machine.scheduler.draw_anew(case.seed)
        machine.clock.trap_ns = case.call_ns
        machine.trap_path.keep_calls(machine.setup.max_calls or 0)
        tally.forget()
        tally.printed += self._said
        if self._notes is not None:
            self._notes.forget()
            self._notes.printed += self._said
        if case.changes or case.moves:
            with firmwares.changing():
                outcome = run(machine)
        else:
            outcome = run(machine)
        return Execution(
            code=int(outcome.code),
            sentence=outcome.sentence,
            cpus_up=len(tally.started),
            console=bytes(tally.printed),
            looks=b"" if observed else _digest(machine),
            profile=self._profile(),
            blocks=self._coverage.take(),
            instructions=machine.instructions,
            harmful=firmwares.harmful,
            trace=None if self._notes is None else self._notes.trace(str(case), outcome),
        )

    def _profile(self) -> tuple[tuple[str, int], ...]:
        names, mask = self._machine.trap_path.names, self._machine.config.host.function_id_mask
        counts: dict[str, int] = {}
        for _, _, x, _ in self._machine.trap_path.kept_calls():
            function = names.get(x[0] & mask)
            if function is not None:
                counts[function.name] = counts.get(function.name, 0) + 1
        return tuple(counts.items())


def _digest(machine: Machine) -> bytes:
    numbers: list[int] = []
    for vcpu, conduit, x, reply in machine.trap_path.kept_calls():
        numbers += (vcpu, conduit is Conduit.SMC, *x, _RESUMES.index(reply.resume), len(reply.effects))
        for register in reply.regs:
            numbers += register
    return hashlib.blake2b(marshal.dumps(numbers, _WITHOUT_REFERENCES), digest_size=16).digest()


_RESUMES: Final = tuple(Resume)
_WITHOUT_REFERENCES: Final = 2  # marshal's version: equal numbers are equal bytes, whichever objects they are


class _Tally(Observer):
    """Keep what is cheap to keep of a run."""

    def __init__(self, machine: Machine) -> None:
        self.forget()
        machine.observe(self)

    def forget(self) -> None:
        self.started = {0}
        self.printed = bytearray()

    def entry(self, vcpu: int, entry: EntryState, before: PowerState, after: PowerState) -> None:
        del entry, before, after
        self.started.add(vcpu)

    def console(self, text: bytes) -> None:
        self.printed += text
        del self.printed[:-_KEPT_CONSOLE_BYTES]


class _Silence(Notes):
    """Keep what a guest does without a call; at one the slice ends, since nobody has asked yet what comes after it."""

    def call(self, record: Record) -> None:
        del record
        self._machine.engine.stop()


class _Before(NamedTuple):
    """How many turns there are before the first call, and instructions of the next one; how the guest ended where it ended without one."""

    turns: int
    instructions: int
    silent: Execution | None

    def pass_on(self, machine: Machine) -> None:
        """Let a machine come to its first call, and not make it."""
        for _ in range(self.turns):
            machine.step(None)
        if self.instructions:
            machine.step(self.instructions)


def _before_the_first_call(setup: Setup) -> _Before:
    machine = Machine(setup)
    notes = _Silence(machine, machine.board.symbols)
    machine.console.look_for(setup.until if isinstance(setup.until, re.Pattern) else None)
    turns = 0
    while True:
        outcome = machine.step(None)
        if machine.clock.traps:
            return _Before(turns, _instructions_before_the_first_call(setup, turns), None)
        if outcome is not None:
            trace = notes.trace("", outcome)
            console = trace.console.encode()[-_KEPT_CONSOLE_BYTES:]
            silent = Execution(trace.code, trace.sentence, trace.cpus_up, console, b"", (), (), machine.instructions, False, trace)
            return _Before(turns, 0, silent)
        turns += 1


def _instructions_before_the_first_call(setup: Setup, turns: int) -> int:
    machine = Machine(setup)
    _Before(turns, 0, None).pass_on(machine)
    kept, some, too_many = Checkpoint(machine), 0, SLICE_INSTRUCTIONS + 1
    while some + 1 < too_many:
        tried = (some + too_many) // 2
        machine.step(tried)
        some, too_many = (some, tried) if machine.clock.traps else (tried, too_many)
        kept.restore()
    return some


ABORTED: Final = Execution(int(ExitCode.CRASH), "guest crash: the engine gave up at an instruction", 0, b"", b"", (), (), 0, False)


_EXECUTION: Final = msgspec.msgpack.Decoder(Execution)
_BEFORE: Final = msgspec.msgpack.Decoder(_Before)
