"""Ask a guest how it would probe every firmware: what it says, what it calls, how many CPUs come up.

1. Until its first call a guest cannot tell hosts apart but by its device tree and conduit. Those that look the same form a group: one
   boot, and at the first call, before it is answered, a fork for each host and version. What follows is what a boot from scratch
   would have given, to the nanosecond of virtual time.
2. Where there is no fork, each boots from scratch.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from emu.machine import Machine
from emu.observer import Observer
from emu.outcome import Ended, ExitCode, Outcome
from emu.setup import Setup
from emu.trace import Text
from emu.trap import Record
from firmware.abi import PowerState
from firmware.dispatch import Firmware
from firmware.trap import EntryState

# What a kernel says of its firmware and its CPUs; of a guest that says nothing of the kind, all is shown.
_OF_INTEREST: Final = re.compile(r"(?:psci|smp|SMP|smccc|CPU\d+): ")
_STAMP: Final = re.compile(r"^\[ *\d+\.\d+\] ")


class Variant(NamedTuple):
    """A firmware to be asked: a host and the PSCI version offered, and the machine that has it."""

    host: str
    psci: str
    setup: Setup


class Finding(NamedTuple):
    """What a guest made of one firmware.

    said     console lines, without time stamps
    calls    each call and its result, in order
    cpus_up  how many vCPUs ran
    """

    host: str
    psci: str
    said: list[str]
    calls: list[str]
    cpus_up: int
    code: int
    sentence: str

    @property
    def of_interest(self) -> list[str]:
        """The kernel's own lines about firmware and CPUs; every line of a guest that has none."""
        return [line for line in self.said if _OF_INTEREST.match(line)] or self.said


class _Notes(Observer):
    """Keep what a finding is made of."""

    def __init__(self, machine: Machine) -> None:
        self._text = Text(machine.trap_path.names.get, machine.board.symbols)
        self.calls: list[str] = []
        self.printed = bytearray()
        self.started = {0}
        machine.observe(self, calls=None)

    def call(self, record: Record) -> None:
        self.calls.append(f"cpu{record.trap.vcpu} {self._text.exchange(record)}")

    def console(self, text: bytes) -> None:
        self.printed += text

    def entry(self, vcpu: int, entry: EntryState, before: PowerState, after: PowerState) -> None:
        del entry, before, after
        self.started.add(vcpu)

    def finding(self, variant: Variant, outcome: Outcome) -> Finding:
        lines = self.printed.decode("utf-8", "backslashreplace").splitlines()
        said = [_STAMP.sub("", line) for line in lines]
        return Finding(variant.host, variant.psci, said, self.calls, len(self.started), int(outcome.code), outcome.sentence)


def groups(variants: Iterable[Variant]) -> list[list[Variant]]:
    """Put together the firmwares that a guest cannot tell apart before its first call."""
    found: dict[object, list[Variant]] = {}
    for variant in variants:
        setup = variant.setup
        found.setdefault((setup.device_tree(None), setup.method), []).append(variant)
    return list(found.values())


def probe(variants: Sequence[Variant], jobs: int = 1) -> Iterator[Finding]:
    """Run the guest under each firmware; findings come group by group, in each group's order."""
    for group in groups(variants):
        if hasattr(os, "fork") and len(group) > 1:
            yield from _Fork(group, jobs).findings()
        else:
            for variant in group:
                yield boot(variant)


def boot(variant: Variant) -> Finding:
    """Run the guest under one firmware, from scratch."""
    machine = Machine(variant.setup)
    notes = _Notes(machine)
    return notes.finding(variant, machine.run())


class _Fork:
    """One boot of a group, and a child for each of its firmwares from the first call on."""

    def __init__(self, group: Sequence[Variant], jobs: int) -> None:
        self._group = group
        self._jobs = jobs
        self._machine = Machine(group[0].setup)
        self._notes = _Notes(self._machine)
        self._pipes: dict[int, int] = {}  # by position in the group: the pipe its child writes to
        self._findings: dict[int, Finding] = {}
        self._children: dict[int, int] = {}
        self._mine: tuple[Variant, int] | None = None  # in a child: what it is, and where it writes

    def findings(self) -> list[Finding]:
        self._machine.trap_path.before_next(self._split)
        try:
            outcome = self._machine.run()
        except BaseException:
            if self._mine is not None:
                os._exit(ExitCode.OURS)
            self._end_children()
            raise
        if self._mine is not None:
            self._report(outcome)
        if not self._findings:
            # It ended without a call: whatever the firmware, this is what happens.
            return [self._notes.finding(variant, outcome) for variant in self._group]
        return [self._findings[position] for position in range(len(self._group))]

    def _split(self) -> None:
        if len(self._machine.vcpus) > 1:  # each child names an entry point, and would read all names for it
            self._machine.board.symbols.read()
        for position, variant in enumerate(self._group):
            while len(self._children) >= self._jobs:
                self._collect(next(iter(self._children)))
            if self._start(position, variant):
                return
        while self._children:
            self._collect(next(iter(self._children)))
        raise Ended(ExitCode.OK, "every firmware has had its turn")

    def _start(self, position: int, variant: Variant) -> bool:
        """Fork; say whether this is the child."""
        reading, writing = os.pipe()
        child = os.fork()
        if child:
            os.close(writing)
            self._pipes[position], self._children[position] = reading, child
            return False
        os.close(reading)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        self._mine = variant, writing
        machine, config = self._machine, variant.setup.config
        state = dataclasses.replace(machine.firmware.state(), version=config.version, psci_0_2=config.psci_0_2, bitmaps=config.bitmaps)
        firmware = Firmware(config, variant.setup.seed)
        firmware.restore(state)
        machine.serve(firmware)
        return True

    def _collect(self, position: int) -> None:
        with os.fdopen(self._pipes.pop(position), "rb") as pipe:
            text = pipe.read()
        _, status = os.waitpid(self._children.pop(position), 0)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGABRT:
            variant = self._group[position]
            sentence = "guest crash: the engine gave up at an instruction"
            self._findings[position] = Finding(variant.host, variant.psci, [], [], 0, int(ExitCode.CRASH), sentence)
        else:
            self._findings[position] = _read(text)

    def _report(self, outcome: Outcome) -> None:
        assert self._mine is not None
        variant, writing = self._mine
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(json.dumps(self._notes.finding(variant, outcome)).encode())
        os._exit(0)

    def _end_children(self) -> None:
        for child in self._children.values():
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def _read(text: bytes) -> Finding:
    assert text, "a child died without a word"
    fields: list[Any] = json.loads(text)
    return Finding(*fields)


def first_divergence(a: Finding, b: Finding) -> str | None:
    """Say where two findings first differ: in what was called, then in what was said; None where they do not."""
    for what, mine, its in (("call", a.calls, b.calls), ("line", a.of_interest, b.of_interest)):
        for number in range(max(len(mine), len(its))):
            left = mine[number] if number < len(mine) else "nothing"
            right = its[number] if number < len(its) else "nothing"
            if left != right:
                return f"{what} {number + 1}: {a.host} {a.psci}: {left}; {b.host} {b.psci}: {right}"
    if a.cpus_up != b.cpus_up:
        return f"CPUs up: {a.host} {a.psci}: {a.cpus_up}; {b.host} {b.psci}: {b.cpus_up}"
    return None
