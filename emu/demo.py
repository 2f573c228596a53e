"""`psci-emu demo`: short shows, each a guest run under several firmwares."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Final

from emu import migrationdemos
from emu.hosts import host_of
from emu.lists import show
from emu.machine import Machine
from emu.report import Log
from emu.setup import Choices, make
from emu.words import parse_smp
from guests import elf_path

_CONCLUSION: Final = re.compile(r"^ *conclusion: (?P<key>[^=]+?) = (?P<value>.*)$", re.MULTILINE)
_CPUS: Final = "2"


def versions(host: str) -> int:
    """Let a two-CPU guest probe its firmware once per PSCI version; print every call, then what it concluded under each."""
    model = host_of(host)
    offered = (["0.1"] if model.offers_0_1 else []) + [str(version) for version in model.versions]
    conclusions: dict[str, dict[str, str]] = {}
    for version in [*offered, "none"]:
        print(f"== PSCI {version} on {host}", flush=True)
        text = bytearray()
        setup = make(Choices(host=host, psci=version, mpidrs=parse_smp(_CPUS), rest={"kernel": elf_path("prober")}))
        machine = Machine(setup, output=text.extend)
        Log(machine, frozenset({"psci"}), sys.stdout)
        outcome = machine.run()
        print(f"   {outcome.sentence}, exit code {outcome.code}\n", flush=True)
        for match in _CONCLUSION.finditer(text.decode()):
            conclusions.setdefault(match["key"], {})[version] = match["value"].strip()
    rows = [(key, *(values.get(version, "-") for version in [*offered, "none"])) for key, values in conclusions.items()]
    print("What the guest concluded:")
    show("", *(f"PSCI {version}" for version in [*offered, "none"]), rows=rows)
    return 0


# By name; a host's name is what `versions` alone looks at.
DEMOS: Final[dict[str, Callable[[str], int]]] = {
    "versions": versions,
    "silent-upgrade": lambda _host: migrationdemos.silent_upgrade(),
    "lost-mitigation": lambda _host: migrationdemos.lost_mitigation(),
    "catches-fire": lambda _host: migrationdemos.catches_fire(),
}
