"""The three cases of the 2018 mail, each run with a real guest and ended with the sentence that says what happened."""

from __future__ import annotations

import dataclasses

from emu.livemove import run_case
from emu.machine import Machine
from emu.matrix import DEFAULT_GUEST, Case, Matrix
from emu.migrationtext import tell_registers, verdicts
from emu.outcome import ExitCode
from emu.setup import Choices, make
from firmware.host import Mitigations
from guests import elf_path

_MITIGATED = Mitigations()


def silent_upgrade() -> int:
    """Move a guest from a host of before to one of after, with no register to say what it had."""
    _moved("kvm-4.15", "kvm-4.16", DEFAULT_GUEST, "do-nothing")
    _moved("kvm-4.17", "kvm-5.18", "0.2", "pseudo-register")
    print(
        "The first guest was at PSCI 0.2 and found itself at 1.0: nobody had asked it. "
        "What would have saved it is the register: the second guest's 0.2 travelled in PSCI_VERSION and stayed 0.2."
    )
    return ExitCode.OK


def lost_mitigation() -> int:
    """Move a guest that uses the Spectre-v2 workaround to a host that has none."""
    _moved("kvm-4.16", "kvm-4.15", DEFAULT_GUEST, "do-nothing")
    _moved("kvm-4.17", "kvm-4.15", DEFAULT_GUEST, "pseudo-register")
    print(
        "The first guest lost ARCH_WORKAROUND_1 and was not told. "
        "What would have saved it is the register: the old host does not know PSCI_VERSION, so the second guest's move was refused "
        "and it goes on where it was, mitigated."
    )
    return ExitCode.OK


def catches_fire() -> int:
    """Start a guest that knows PSCI 0.2 alone, on a host that offers more."""
    first = _started("kvm-4.16", None)
    second = _started("kvm-4.17", "0.2")
    print(
        f"The first guest found PSCI 1.0 and caught fire (exit code {first}). "
        f"What would have saved it is the register: with PSCI_VERSION set to 0.2 the second one lives (exit code {second})."
    )
    return ExitCode.OK


def _moved(source: str, destination: str, guest: str, policy: str) -> None:
    version = "" if guest == DEFAULT_GUEST else f" set to PSCI {guest}"
    print(f"== a guest{version} moves from {source} to {destination}, policy {policy}")
    case = Case(source, destination, guest, policy, _MITIGATED, _MITIGATED)
    live = run_case(case, Matrix().answer(case))
    for line in live.before:
        print(f"   on {source}: {line}")
    tell_registers(live.moved.migration)
    for sentence in verdicts(live.moved.migration):
        print(sentence)
    place = source if live.moved.machine is None else destination
    for line in live.after:
        print(f"   on {place}: {line}")
    print()


def _started(host: str, psci: str | None) -> int:
    print(f"== a guest that knows PSCI 0.2 alone starts on {host}" + ("" if psci is None else f", PSCI_VERSION set to {psci}"))
    text = bytearray()
    setup = dataclasses.replace(make(Choices(host=host, psci=psci)), kernel=elf_path("hardcoded-0.2"))
    outcome = Machine(setup, output=text.extend).run()
    print("".join(f"   {line}\n" for line in text.decode().splitlines()) + f"   {outcome.sentence}\n")
    return outcome.code
