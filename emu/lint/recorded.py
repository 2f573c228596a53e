"""A trace that `--trace F` of a run wrote, as a rule sees it."""

from __future__ import annotations

from base64 import b64decode
from pathlib import Path
from typing import Final

from emu import tracefile
from emu.lint.rules import RULES, Rule
from emu.lint.runs import LAST_PRINTED_BYTES, judged
from emu.lint.trace import Call, Site, Trace, Tree, read_tree
from emu.symbols import Symbols
from emu.trace import Text
from emu.trap import Record
from firmware.dispatch import functions_by_id
from firmware.errors import InputError

_MOST_CALLS: Final = 200_000


def read_trace(path: Path, symbols: Symbols) -> Trace:
    """Read a recorded run; raise InputError for a file that is not one, or has more calls than fit."""
    reading = _Reading(path, symbols)
    for _, line in tracefile.read(path):
        reading.take(line)
    return reading.trace()


def not_judged(rules: tuple[Rule, ...], trace: Trace) -> dict[str, list[str]]:
    """Return the rules that one recorded run cannot be judged by: IDs by the reason."""
    reasons: dict[str, list[str]] = {}
    for rule in rules:
        reason = _lacks(rule, trace.tree)
        if reason is not None:
            reasons.setdefault(reason, []).append(rule.id)
    return reasons


def _lacks(rule: Rule, tree: Tree) -> str | None:
    assert rule in RULES
    if rule.one is None:
        return "they compare several runs"
    if rule.needs and rule.several is None:
        return "they want a run made for them"
    if rule.several is not None:
        return "they compare several runs, though what one shows was looked at"
    if rule.tree == "psci node" and not tree.compatible:
        return "the trace's device tree has no psci node"
    if rule.tree == "CPUs" and not tree.mpidrs:
        return "the trace's device tree has no CPUs"
    return None


class _Reading:
    """Put a trace together from its lines."""

    def __init__(self, path: Path, symbols: Symbols) -> None:
        self._path = path
        self._symbols = symbols
        self._tree = Tree()
        self._firmware = ""
        self._calls: list[Call] = []
        self._started = {0}
        self._console = ""
        self._end = tracefile.End(0, 0, "")

    def take(self, line: tracefile.Line) -> None:
        match line:
            case tracefile.Header():
                self._tree = read_tree(b64decode(line.device_tree), f"{self._path}: the device tree in it")
                self._serve(line)
            case tracefile.Resumed():
                self._serve(line.config)
            case tracefile.Call():
                if len(self._calls) == _MOST_CALLS:
                    raise InputError(f"{self._path} has more than {_MOST_CALLS} calls; a run of at most so many is judged")
                self._calls.append(self._call(line))
            case tracefile.Machine() if line.what.startswith("starts at "):
                self._started.add(line.vcpu)
            case tracefile.Console():
                self._console = (self._console + line.text)[-LAST_PRINTED_BYTES:]
            case tracefile.End():
                self._end = line

    def _serve(self, line: tracefile.Header) -> None:
        config = tracefile.config_of(line)
        self._mask = config.host.function_id_mask
        self._names = functions_by_id(config)
        self._text = Text(self._names.get, self._symbols)
        self._firmware = self._firmware or f"-host {line.host} -psci {config.offered}"

    def _call(self, line: tracefile.Call) -> Call:
        trap, reply, pc = tracefile.trap_of(line), tracefile.reply_of(line.reply), int(line.pc, 16)
        record = Record(trap, pc, self._names.get(trap.regs[0] & self._mask), reply, (), ())
        return judged(record, Site(pc, self._symbols.resolve(pc), pc), self._text.exchange(record))

    def trace(self) -> Trace:
        return Trace(
            firmware=f"{self._path} ({self._firmware})",
            tree=self._tree,
            calls=tuple(self._calls),
            cpus_up=len(self._started),
            console=self._console,
            code=self._end.code,
            sentence=self._end.sentence,
        )
