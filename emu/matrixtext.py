"""The matrix on paper: aligned text, Markdown, JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from emu.matrix import LEGEND, Answer, Case
from emu.migrationtext import version_in_words

Cells = Mapping[Case, Answer]

_HOST_WIDTH: Final = 28


class Grid:
    """One policy and one guest: a row for each group of sources, a column for each group of destinations that fare alike."""

    def __init__(self, policy: str, guest: str, symbols: Mapping[tuple[str, str], str]) -> None:
        self.policy = policy
        self.guest = guest
        sources = list(dict.fromkeys(source for source, _ in symbols))
        destinations = list(dict.fromkeys(destination for _, destination in symbols))
        self.rows = _grouped(sources, lambda source: tuple(symbols[source, destination] for destination in destinations))
        self.columns = _grouped(destinations, lambda destination: tuple(symbols[source, destination] for source in sources))
        self.symbols = [[symbols[row[0], column[0]] for column in self.columns] for row in self.rows]


def grids(cells: Cells) -> Iterator[Grid]:
    """Yield a grid for each policy and guest, in the cells' order."""
    sorted_out: dict[tuple[str, str], dict[tuple[str, str], str]] = {}
    for case, answer in cells.items():
        sorted_out.setdefault((case.policy, case.guest), {})[case.source, case.destination] = answer.symbol
    for (policy, guest), symbols in sorted_out.items():
        yield Grid(policy, guest, symbols)


def _grouped(names: Sequence[str], of: Any) -> list[tuple[str, ...]]:
    groups: list[list[str]] = []
    for name in names:
        if groups and of(groups[-1][-1]) == of(name):
            groups[-1].append(name)
        else:
            groups.append([name])
    return [tuple(group) for group in groups]


def span(group: Sequence[str]) -> str:
    return group[0] if len(group) == 1 else f"{group[0]} to {group[-1].removeprefix('kvm-')}"


def as_text(cells: Cells) -> Iterator[str]:
    """Yield the legend and every grid, a line at a time."""
    yield from (f"{symbol}  {meaning}" for symbol, meaning in LEGEND)
    for grid in grids(cells):
        yield ""
        yield f"policy {grid.policy}, guest {grid.guest}"
        yield f"{'from, to':<{_HOST_WIDTH}}" + "".join(f"{number:>4}" for number in range(1, len(grid.columns) + 1))
        for group, symbols in zip(grid.rows, grid.symbols, strict=True):
            yield f"{span(group):<{_HOST_WIDTH}}" + "".join(f"{symbol:>4}" for symbol in symbols)
        yield "to: " + ", ".join(f"{number} {span(group)}" for number, group in enumerate(grid.columns, start=1))


def as_markdown(cells: Cells) -> Iterator[str]:
    """Yield the same as Markdown tables."""
    yield "| symbol | meaning |"
    yield "|---|---|"
    yield from (f"| `{symbol}` | {meaning} |" for symbol, meaning in LEGEND)
    for grid in grids(cells):
        yield ""
        yield f"### Policy `{grid.policy}`, guest {grid.guest}"
        yield ""
        yield "| from \\ to | " + " | ".join(span(group) for group in grid.columns) + " |"
        yield "|---" * (len(grid.columns) + 1) + "|"
        for group, symbols in zip(grid.rows, grid.symbols, strict=True):
            yield f"| {span(group)} | " + " | ".join(f"`{symbol}`" for symbol in symbols) + " |"


def as_json(cells: Cells) -> Iterator[str]:
    """Yield one JSON document: every cell with its registers and verdicts."""
    yield '{"legend": ' + json.dumps(dict(LEGEND)) + ', "cells": ['
    last = len(cells) - 1
    for number, (case, answer) in enumerate(cells.items()):
        yield json.dumps(_cell(case, answer)) + ("" if number == last else ",")
    yield "]}"


def _cell(case: Case, answer: Answer) -> dict[str, Any]:
    cell: dict[str, Any] = {
        "source": case.source,
        "destination": case.destination,
        "guest": case.guest,
        "policy": case.policy,
        "outcome": answer.symbol,
    }
    for side, made in (("source", answer.source), ("destination", answer.destination)):
        if made.config is None:
            cell["refusal"] = {"side": side, "errno": made.errno, "why": made.refusal}
    migration = answer.migration
    if migration is not None:
        cell["registers"] = [step._asdict() for step in migration.steps]
        cell["withheld"] = [{"register": name, "value": value} for name, value in migration.withheld]
        cell["version_before"] = version_in_words(migration.before)
        cell["version_after"] = None if migration.after is None else version_in_words(migration.after)
        cell["losses"] = [loss._asdict() for loss in migration.losses]
    return cell
