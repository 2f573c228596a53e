"""The listing commands: registers, functions, hosts, guests."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from emu.setup import Choices, make
from firmware import fwregs
from firmware.dispatch import SERVICES
from firmware.hosts import HOSTS
from firmware.table import is_offered
from guests import FOLDER, catalogue
from guests import elf_path as _elf_path
from guests.gallery import GalleryGuest, gallery, gallery_guest, located

_WIDE = 200


def counted(number: int, what: str) -> str:
    """Spell how many there are of something whose plural takes an s."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def show(*columns: str, rows: Sequence[tuple[str, ...]]) -> None:
    """Print an aligned table; plain and unfolded when piped."""
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    console = Console(file=None if is_terminal else io.StringIO(), width=None if is_terminal else _WIDE, highlight=False)
    table = Table(*columns, box=None, header_style="bold", pad_edge=False)
    for row in rows:
        table.add_row(*map(escape, row))
    with console.capture() as capture:
        console.print(table)
    print("\n".join(line.rstrip() for line in capture.get().splitlines()))


def regs(choices: Choices) -> int:
    """List a host's firmware registers: ID, size, value, allowed values, and what each refusal means."""
    firmware = make(choices).firmware()
    config = firmware.config
    rows = []
    for register_id in firmware.reg_list():
        register = fwregs.find(config, register_id)
        locked = "until the first run" if register.locks else "at any time"
        rows.append((register.name, f"{register.id:#018x}", "64", f"{register.get(config):#x}", register.allowed(config), locked))
    if not rows:
        print(f"host {config.host.name} has no firmware registers: it offers PSCI {config.host.latest} and nothing else")
        return 0
    show("register", "ID", "bits", "value", "allowed", "writable", rows=rows)
    print()
    show("refusal", "meaning", rows=list(fwregs.REFUSALS))
    return 0


def functions(choices: Choices) -> int:
    """List every function: IDs, since when, and whether the host serves it as configured."""
    config = make(choices).config
    rows = []
    for service in SERVICES:
        for function in service.functions(config):
            fid32, fid64 = (f"{fid:#010x}" if fid is not None else "-" for fid in (function.fid32, function.fid64))
            since = service.name if service.name.endswith(str(function.since)) else f"{service.name} {function.since}"
            served = "yes" if is_offered(config, service, function) else "no"
            rows.append((function.name, fid32, fid64, since, served, ", ".join(function.args)))
    show("function", "SMC32", "SMC64", "since", config.host.name, "arguments", rows=rows)
    return 0


def hosts() -> int:
    """List the modelled hosts."""
    rows = []
    for host in HOSTS.values():
        offered = dict.fromkeys((["0.1"] if host.offers_0_1 else []) + [str(version) for version in host.versions])
        smccc = "-" if host.smccc is None else str(host.smccc)
        rows.append((host.name, ", ".join(offered), smccc, str(len(host.registers)), host.summary))
    show("host", "PSCI", "SMCCC", "registers", "what it is", rows=rows)
    return 0


def guests(name: str | None) -> int:
    """List the guests and the gallery, or tell one whole."""
    if name is not None:
        return show_guest(name)
    show("guest", "CPUs", "what it is", rows=[(guest.name, str(guest.smp), guest.summary) for guest in catalogue().values()])
    print("\nThe gallery: each makes one mistake that was made, and has a mended twin.\n")
    show("guest", "the mistake", "rule", rows=[(guest.name, guest.title, guest.rule) for guest in gallery().values()])
    print("\npsci-emu guests show NAME tells one whole, with the path that -kernel takes.")
    return 0


def show_guest(name: str) -> int:
    """Tell a guest whole, the gallery's too."""
    if re.fullmatch(r"[gG][0-9]+", name):
        return _show_gallery_guest(gallery_guest(name))
    elf = _elf_path(name)
    guest = catalogue()[name]
    print(f"{guest.name}: {guest.summary}\n\n{guest.lesson.strip()}\n")
    print(f"source  {FOLDER / guest.source}\nimage   {elf}\nrun     psci-emu run -kernel {elf} -smp {guest.smp_option} -d psci")
    return 0


def _show_gallery_guest(guest: GalleryGuest) -> int:
    print(f"{guest.name}: {guest.title}\n\n{guest.story}\n")
    print(f"where     {guest.citation}\nrule      {guest.rule}\nsymptom   {guest.symptom}\nsource    {guest.source}\nimage     {guest.elf}")
    if guest.twin is not None:
        print(f"mended    {guest.twin}, which does not fail on any of these")
    if guest.fails_at:
        print(f"fails     on host spec at PSCI {', '.join(guest.fails_at)}")
    print(f"\nrun       psci-emu run -kernel {guest.elf} {guest.machine} OPTIONS -d psci, with OPTIONS")
    for exposed in guest.exposed:
        print(f"  {located(exposed.firmware)}\n      exit code {exposed.code}" + (f": {exposed.console}" if exposed.console else ""))
    for firmware in guest.spared:
        print(f"  {located(firmware)}\n      gets through")
    return 0
