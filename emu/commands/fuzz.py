"""`fuzz`: run a guest on firmware that is mutated, and report what goes wrong."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from emu import words
from emu.commands import Command
from emu.commands.probe import LINUX_IS_UP, is_linux
from emu.commands.run import add_machine_options
from emu.fuzz.campaign import REFERENCE, Campaign
from emu.fuzz.files import Folder, cases_in
from emu.fuzz.guest import Guest, digest_of, machine_words, read_files
from emu.fuzz.judge import DEADLOCK, HANG
from emu.fuzz.mutate import Choice
from emu.fuzz.texts import as_text, progress_line, summary
from emu.fuzz.workers import Workers, cluster, processes
from emu.hosts import versions_of
from emu.machine import Machine
from emu.outcome import ExitCode
from firmware.errors import UserError
from firmware.hosts import HOSTS, host_named

_MOST_INSTRUCTIONS: Final = 20_000_000
_MOST_OF_LINUX: Final = 4_000_000_000
_MOST_CALLS: Final = 20_000
_MOST_JOBS: Final = 64
_CASES_A_JOB: Final = 512
_KERNEL_CASES_A_JOB: Final = 4
_CPUS: Final = "2"  # who has one CPU calls no CPU_ON
_DEFAULT_TIME: Final = "60s"

# Of the machine's options, those that mean something else here, or nothing.
_HELP: Final = {
    "smp": f"1 to {words.MAX_VCPUS} CPUs, or cpus=N,clusters=M; default {_CPUS}",
    "seed": "what the cases are drawn by",
    "max_insns": "limit of a run in instructions; it is twenty times what the guest takes where all is right, or less",
    "timeout": "limit of a run in virtual time: 10s, 500ms",
    "fault": argparse.SUPPRESS,
    "no_reboot": argparse.SUPPRESS,
}


def _add_options(parser: argparse.ArgumentParser) -> None:
    add_machine_options(parser)
    for action in parser._actions:
        action.help = _HELP.get(action.dest, action.help)
    parser.add_argument("--hosts", default="all", metavar="LIST", help="hosts to run the guest on: names with commas; default all")
    parser.add_argument("--conduit", metavar="C", help="hvc or smc alone; default: each host's own, and now and then the other")
    parser.add_argument("--until", metavar="POINT", help="end each run at call:NAME#N or console:REGEX; Linux's when its CPUs are up")
    parser.add_argument(
        "--time", metavar="T", help=f"how long, by the clock on the wall: 10m, 1h; default {_DEFAULT_TIME} where --runs does not say"
    )
    parser.add_argument("--runs", metavar="N", help="how many cases: for the same folder, hosts and seed the same ones")
    parser.add_argument("-j", dest="jobs", default="1", metavar="N", help="how many run at once, in a process each")
    parser.add_argument("--scheduler", metavar="tcp://...", help="over a Dask cluster instead: its scheduler")
    parser.add_argument(
        "--corpus",
        type=Path,
        metavar="D",
        help="where cases and findings are kept, in AFL's layout, and where to go on from; default KERNEL.fuzz",
    )


def _fuzz(options: argparse.Namespace) -> int:
    """Fuzz a guest; 100 where it fails on correct firmware."""
    if options.kernel is None and options.bios is None:
        raise UserError("nothing to fuzz; give -kernel F")
    if options.fault:
        raise UserError("-fault: the fuzzer finds faults itself; for one of your own there are run and lint")
    started = time.monotonic()
    deadline = None if options.runs is not None and options.time is None else started + parse_time(options.time or _DEFAULT_TIME)
    runs = None if options.runs is None else words.parse_positive("--runs", options.runs)
    seed = words.parse_number("--seed", options.seed)
    guest, contents = _guest(options)
    choice = _choice(options)
    # Refused here, where its files still have names: those that a worker is sent have none.
    Machine(guest.setup(REFERENCE, {digest: getattr(options, name) for name, digest in guest.files}))
    folder_path = options.corpus or Path(f"{(options.kernel or options.bios).stem}.fuzz")
    seeds = tuple(cases_in(folder_path))
    is_kernel = any(name == "kernel" for name, _ in guest.files) and is_linux(options.kernel)
    with _workers(options, {digest: contents[name] for name, digest in guest.files}) as workers:
        campaign = Campaign(
            guest,
            choice,
            workers,
            seed=seed,
            seeds=seeds,
            batch=_KERNEL_CASES_A_JOB if is_kernel else _CASES_A_JOB,
            runs=runs,
            is_over=lambda: deadline is not None and time.monotonic() >= deadline,
        )
        return _report(options, campaign, guest, folder_path, started)


def _report(options: argparse.Namespace, campaign: Campaign, guest: Guest, path: Path, started: float) -> int:
    progress, shows = campaign.progress, sys.stderr.isatty()
    folder: Folder | None = None
    told = 0
    try:
        for news in campaign.run():
            if folder is None:
                paths = {name: getattr(options, name) for name, _ in guest.files}
                folder = Folder(path, campaign.guest, paths, progress.reference)
            with _to_the_end():
                folder.keep(news.entries)
                for found in news.found:
                    told += 1
                    where = folder.tell(found)
                    if shows:
                        print("\r\033[K", end="", file=sys.stderr, flush=True)
                    for line in as_text(told, found, where):
                        print(line)
                    sys.stdout.flush()
            if shows:
                print(f"\r{progress_line(progress, time.monotonic() - started)[:79]}\033[K", end="", file=sys.stderr, flush=True)
        code = ExitCode.CHECK_FAILED if any(found.is_legal for found in progress.found.values()) else ExitCode.OK
    except KeyboardInterrupt:
        code = ExitCode.INTERRUPTED  # what has been found is written, and told
    if shows:
        print("\r\033[K", end="", file=sys.stderr, flush=True)
    seconds = time.monotonic() - started
    if folder is not None:
        folder.stats(_stats(campaign, seconds))
    for line in summary(progress):
        print(line)
    kept = "" if folder is None else f"; cases and findings are in {path}"
    print(f"{seconds:.0f} s, {progress.executions / seconds:,.0f} runs a second{kept}")
    return code


@contextmanager
def _to_the_end() -> Iterator[None]:
    """Let what is written and told be so to its end: a first Ctrl-C comes after it."""
    came = False

    def come(*_: object) -> None:
        nonlocal came
        if came:
            raise KeyboardInterrupt
        came = True

    before = signal.signal(signal.SIGINT, come)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        raise KeyboardInterrupt


def _stats(campaign: Campaign, seconds: float) -> dict[str, object]:
    progress = campaign.progress
    hangs = sum(found.suspect.oracle in (HANG, DEADLOCK) for found in progress.found.values())
    return {
        "run_time": round(seconds),
        "execs_done": progress.executions,
        "execs_per_sec": f"{progress.executions / seconds:.2f}",
        "corpus_count": len(progress.corpus),
        "edges_found": len(progress.blocks),
        "saved_crashes": len(progress.found) - hangs,
        "saved_hangs": hangs,
        "command_line": " ".join(campaign.guest.words),
    }


def _guest(options: argparse.Namespace) -> tuple[Guest, dict[str, bytes]]:
    is_kernel = options.kernel is not None and is_linux(options.kernel)
    if options.smp is None and options.mpidr is None:
        options.smp = _CPUS
    if is_kernel:
        options.append = options.append or "earlycon"
        options.until = options.until or f"console:{LINUX_IS_UP.decode()}"
    contents = read_files(options)
    most = words.parse_positive("--max-insns", options.max_insns or str(_MOST_OF_LINUX if is_kernel else _MOST_INSTRUCTIONS))
    files = tuple((name, digest_of(content)) for name, content in contents.items())
    return Guest(machine_words(options), options.conduit, files, options.until, most, _MOST_CALLS), contents


def _choice(options: argparse.Namespace) -> Choice:
    hosts = list(HOSTS.values()) if options.hosts == "all" else [host_named(name) for name in dict.fromkeys(options.hosts.split(","))]
    if options.conduit not in (None, "hvc", "smc"):
        raise UserError(f"--conduit {options.conduit!r}: hvc or smc")
    return Choice(tuple((host.name, versions_of(host)) for host in hosts), options.conduit)


@contextmanager
def _workers(options: argparse.Namespace, files: dict[str, bytes]) -> Iterator[Workers]:
    jobs = words.parse_positive("-j", options.jobs)
    if jobs > _MOST_JOBS:
        raise UserError(f"-j {jobs}: at most {_MOST_JOBS}")
    workers = Workers(processes(jobs) if options.scheduler is None else cluster(options.scheduler), files)
    try:
        yield workers
    finally:
        workers.close()


def parse_time(text: str) -> float:
    """Read a time by the clock on the wall, and return seconds."""
    unit = {"s": 1, "m": 60, "h": 3600}.get(text[-1:])
    number = text[:-1] if unit else text
    try:
        seconds = float(number) * (unit or 1)
    except ValueError:
        seconds = 0
    if not 0 < seconds < 1e9:
        raise UserError(f"--time {text!r} is not a time such as 60s, 10m or 1h")
    return seconds


FUZZ = Command(_add_options, _fuzz)
