"""Feed a recorded run's events to a fresh firmware, and say where it answers otherwise."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from emu import tracefile
from emu.hosts import host_of
from emu.symbols import Symbols
from emu.trace import Text, value_in_words
from firmware.dispatch import Firmware, configuration, functions_by_id
from firmware.errors import InputError, RegisterError, UserError
from firmware.host import Config
from firmware.overlay import with_faults
from firmware.table import Function
from firmware.trap import Effect, Reply, Resume, Runnable, SystemEvent, WriteMemory


class Difference(NamedTuple):
    """One reply that is not what was recorded.

    number  line of the trace, from 1
    what    the event in words
    """

    number: int
    what: str
    recorded: str
    answered: str

    def __str__(self) -> str:
        return f"line {self.number}: {self.what}: recorded {self.recorded}, answered {self.answered}"


class Replay:
    """A trace played to a firmware: its own host's, or another's.

    Raises InputError for a file that is no trace, UserError for a host that does not exist.
    """

    def __init__(self, path: Path, host: str | None = None) -> None:
        self._lines = tracefile.read(path)
        self._path = path
        self._host = host
        _, header = next(self._lines)
        assert isinstance(header, tracefile.Header)
        config = self._config_of(header)
        self._is_other_host = host is not None and host != config.host.name
        self.remark: str | None = None
        if host is not None:
            config, self.remark = _on_host(config, host)
        self.firmware = Firmware(config, header.seed)
        self._names = functions_by_id(config)
        self._text = Text(self._names.get, Symbols())
        self.events = 0

    def differences(self) -> Iterator[Difference]:
        """Play every event; yield each difference as it comes."""
        for number, line in self._lines:
            try:
                found = self._play(number, line)
            except AssertionError:
                # The firmware's own invariants: an event that cannot follow those before it.
                raise InputError(f"{self._path}: line {number} cannot follow what comes before it") from None
            if found is not None:
                yield found

    def _play(self, number: int, line: tracefile.Line) -> Difference | None:
        match line:
            case tracefile.Call():
                trap = tracefile.trap_of(line)
                fid = trap.regs[0] & self.firmware.config.host.function_id_mask
                what = f"cpu{line.vcpu} {line.conduit} {self._text.function_name(fid)}({', '.join(line.x[1:])})"
                recorded, answered = tracefile.reply_of(line.reply), self.firmware.handle(trap)
                if self._is_other_host and _looks_the_same(trap.regs, recorded, answered):
                    recorded = answered
                return self._compare(number, what, recorded, answered, self._names.get(fid))
            case tracefile.Other():
                event = tracefile.event_of(line)
                return self._compare(number, f"{event}", tracefile.reply_of(line.reply), self.firmware.handle(event))
            case tracefile.Register():
                return self._register(number, line)
            case tracefile.Resumed():
                self._resume(line)
        return None

    def _config_of(self, line: tracefile.Header) -> Config:
        config = tracefile.config_of(line)
        if self._host is None:
            try:
                tracefile.check_host(config, line.host_is)
            except ValueError as error:
                raise InputError(f"{self._path}: {error}; -host {config.host.name} asks it as it is now") from None
        return config

    def _resume(self, line: tracefile.Resumed) -> None:
        config = self._config_of(line.config)
        state = tracefile.firmware_of(line.firmware, config)
        if self._host is not None:
            config, _ = _on_host(config, self._host)
        self._is_other_host = self._host is not None and self._host != line.config.host
        self.firmware = Firmware(config, line.config.seed)
        self.firmware.restore(dataclasses.replace(state, version=config.version, psci_0_2=config.psci_0_2, bitmaps=config.bitmaps))
        self._names = functions_by_id(config)
        self._text = Text(self._names.get, Symbols())

    def _compare(self, number: int, what: str, recorded: Reply, answered: Reply, function: Function | None = None) -> Difference | None:
        self.events += 1
        if recorded == answered:
            return None
        return Difference(number, what, _words(function, recorded), _words(function, answered))

    def _register(self, number: int, line: tracefile.Register) -> Difference | None:
        self.events += 1
        try:
            self.firmware.set_one_reg(int(line.id, 16), int(line.value, 16))
        except RegisterError as error:
            return Difference(number, f"write {line.value} to register {line.id}", "accepted", str(error))
        return None


def _words(function: Function | None, reply: Reply) -> str:
    parts = []
    if reply.regs:
        status = f" ({value_in_words(function, reply)})" if reply.regs[0][0] == 0 else ""
        parts.append(", ".join(f"x{number}={value:#x}" for number, value in reply.regs) + status)
    if reply.resume is not Resume.NEXT:
        parts.append(reply.resume.value)
    parts += [_effect(effect) for effect in reply.effects]
    if reply.entry is not None:
        parts.append(f"enters {reply.entry.pc:#x} with x0={reply.entry.x0:#x}")
    return "; ".join(parts) or "nothing"


def _looks_the_same(before: tuple[int, ...], recorded: Reply, answered: Reply) -> bool:
    """Say whether the guest cannot tell two replies apart: it sees what its registers hold, not who wrote them."""
    if (recorded.resume, recorded.effects, recorded.entry) != (answered.resume, answered.effects, answered.entry):
        return False
    returns = recorded.resume in (Resume.NEXT, Resume.WAIT, Resume.SAME)
    return not returns or {**dict(enumerate(before)), **dict(recorded.regs)} == {**dict(enumerate(before)), **dict(answered.regs)}


def _effect(effect: Effect) -> str:
    match effect:
        case Runnable():
            return f"cpu{effect.vcpu} runs"
        case SystemEvent():
            return f"system {effect.type.name.lower()}" + (f", flags {effect.flags:#x}" if effect.flags else "")
        case WriteMemory():
            return f"{len(effect.content)} bytes written at {effect.address:#x}"


def _on_host(config: Config, name: str) -> tuple[Config, str | None]:
    """Return the same VM on another host: the version it had where that host offers it, else the host's own."""
    host = host_of(name)
    kept = ("conduits", "capabilities", "mitigations", "ram", "pv_time_base", "el2_fast_path")
    rest: dict[str, Any] = {column: getattr(config, column) for column in kept}
    if config.smccc in host.smccc_versions:
        rest["smccc"] = config.smccc
    remark = None
    try:
        fresh = configuration(host, config.mpidrs, psci=config.offered, **rest)
    except UserError as error:
        remark = f"{error}; it is asked with PSCI {host.latest}"
        fresh = configuration(host, config.mpidrs, **rest)
    bitmaps = {**dict(fresh.bitmaps), **{register: value for register, value in config.bitmaps if register in host.registers}}
    return with_faults(dataclasses.replace(fresh, bitmaps=tuple(sorted(bitmaps.items()))), config.faults), remark
