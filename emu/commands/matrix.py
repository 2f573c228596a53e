"""`matrix`: what becomes of a guest for every source, destination, version and policy."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Final, TextIO

from emu.commands import Command
from emu.hosts import host_of
from emu.matrix import DEFAULT_GUEST, Answer, Case, Matrix, cases, check_guests, class_of, move_live
from emu.matrixtext import as_json, as_markdown, as_text
from emu.migrationtext import tell_registers, tell_views, verdicts
from emu.outcome import ExitCode
from emu.policyfile import policy_of
from emu.words import parse_host_cpu, parse_positive
from firmware.errors import UserError
from firmware.hosts import HOSTS
from firmware.policy import DEFAULT_POLICY, POLICIES

_MOST_JOBS: Final = 256


def _add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `matrix`."""
    parser.add_argument("--sources", metavar="LIST", help="hosts, by comma; kvm for all KVM releases, all for every host; default kvm")
    parser.add_argument("--destinations", metavar="LIST", help="the same; default as --sources")
    parser.add_argument("--guests", metavar="LIST", help="PSCI versions, machine types, default; default all there are")
    parser.add_argument(
        "--policy", dest="policies", metavar="LIST", help=f"all, FILE.toml, or of {', '.join(POLICIES)}; default {DEFAULT_POLICY}"
    )
    parser.add_argument("--source-cpu", metavar="CPU", help="spectre-v2=vulnerable,ssbs: what the sources' CPUs need and have")
    parser.add_argument("--destination-cpu", metavar="CPU", help="the same of the destinations'")
    parser.add_argument("--explain", nargs=2, metavar=("SRC", "DST"), help="one pair: each register, errno and the source of the rule")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="every cell whole")
    form.add_argument("--markdown", action="store_true", help="as Markdown tables")
    parser.add_argument("--no-live", action="store_true", help="work the cells out and move no guest")
    parser.add_argument("-j", dest="jobs", metavar="N", help="processes that move guests; default one for each core")


def _matrix(options: argparse.Namespace) -> int:
    """Print what becomes of a guest for every source, destination, version and policy; 100 where a live move went otherwise."""
    policies = _policies(options.policies)
    cpus = parse_host_cpu(options.source_cpu), parse_host_cpu(options.destination_cpu)
    guests = None if options.guests is None else options.guests.split(",")
    if guests is not None:
        check_guests(guests, policies)
    sources = _hosts("kvm" if options.sources is None else options.sources)
    destinations = sources if options.destinations is None else _hosts(options.destinations)
    if options.explain is not None:
        for name in ("json", "markdown", "sources", "destinations"):
            if getattr(options, name):
                raise UserError(f"--explain is about one pair, and in words: it does not go with --{name}")
        sources, destinations = ([host_of(name).name] for name in options.explain)
        guests = [DEFAULT_GUEST] if guests is None else guests
    jobs = _jobs(options.jobs)
    work = Matrix()
    cells = {case: work.answer(case) for case in cases(sources, destinations, policies, guests, cpus)}
    if options.explain is not None:
        _explain(cells)
        return ExitCode.OK
    form = as_json if options.json else as_markdown if options.markdown else as_text
    for line in form(cells):
        print(line)
    return _live(cells, jobs, sys.stderr if options.json or options.markdown else sys.stdout) if not options.no_live else ExitCode.OK


def _live(cells: dict[Case, Answer], jobs: int, stream: TextIO) -> int:
    from emu.livemove import check  # noqa: PLC0415  the machine, which --no-live does not need

    classes: dict[object, Case] = {}
    for case, answer in cells.items():
        if answer.migration is not None:
            classes.setdefault(class_of(answer), case)
    with _executor(jobs) as executor, _progress(len(classes)) as advance:
        checked = move_live(list(classes.values()), executor, check, advance)
    wrong = [each for each in checked if each.wrong]
    for each in wrong:
        case = each.case
        print(f"{case.source} to {case.destination}, guest {case.guest}, policy {case.policy}: {each.wrong}", file=sys.stderr)
    print(f"\n{_moved(len(cells), len(classes))}: " + (f"{len(wrong)} went otherwise" if wrong else "all as the table says"), file=stream)
    return ExitCode.CHECK_FAILED if wrong else ExitCode.OK


def _moved(cells: int, classes: int) -> str:
    counted = f"{cells} cell{'' if cells == 1 else 's'} in {classes} class{'' if classes == 1 else 'es'}"
    guests = {0: "no guest was there to move live", 1: "a guest was moved live for it"}
    return f"{counted}; {guests.get(classes, 'a guest was moved live for each class')}"


def _explain(cells: dict[Case, Answer]) -> None:
    for case, answer in cells.items():
        print(f"{case.source} to {case.destination}, guest {case.guest}, policy {case.policy}: {policy_of(case.policy).summary}")
        for name, side in ((case.source, answer.source), (case.destination, answer.destination)):
            if side.config is None:
                print(f"on {name} there is no such guest: {side.errno}{': ' if side.errno else ''}{side.refusal}")
        if answer.migration is not None:
            tell_registers(answer.migration, host_of(case.destination))
            print()
            tell_views(answer.migration)
            print()
            for sentence in verdicts(answer.migration):
                print(sentence)
        print()


def _policies(text: str | None) -> list[str]:
    names = [DEFAULT_POLICY] if text is None else list(POLICIES) if text == "all" else text.split(",")
    for name in names:
        policy_of(name)
    return names


def _hosts(text: str) -> list[str]:
    names: list[str] = []
    for part in text.split(","):
        if part == "all":
            names += HOSTS
        elif part == "kvm":
            names += [name for name in HOSTS if name.startswith("kvm-")]
        else:
            names.append(host_of(part).name)
    return list(dict.fromkeys(names))


def _jobs(text: str | None) -> int:
    return os.cpu_count() or 1 if text is None else parse_positive("-j", text, _MOST_JOBS)


@contextmanager
def _executor(jobs: int) -> Iterator[Executor]:
    # Not forked: a progress bar's thread may be running by then.
    pool = ThreadPoolExecutor(1) if jobs == 1 else ProcessPoolExecutor(jobs, mp_context=get_context("spawn"))
    with pool as executor:
        yield executor


@contextmanager
def _progress(total: int) -> Iterator[Callable[[], None]]:
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console  # noqa: PLC0415  for a terminal alone
    from rich.progress import Progress  # noqa: PLC0415

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("moving guests", total=total)
        yield lambda: progress.advance(task)


MATRIX = Command(_add_options, _matrix)
