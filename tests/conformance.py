"""Replay recorded answers of KVM's own code against the host they were recorded from.

    python -m tests.conformance FILE...

The format is tests/vectors/README.md's. A file's `host` H stands for the modelled host `kvm-H`, asked below the EL2 fast path, as
the recordings were. Prints, for each file, its sequences, steps and agreements, and each sequence's first difference; ends
with 0, or 100 where anything differs, 102 for a wrong call, 103 for a file that cannot be used.
"""

from __future__ import annotations

import gzip
import json
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from firmware.abi import AFFINITY_MASK, PSCI_0_1, PowerState
from firmware.dispatch import Firmware, configuration
from firmware.errors import InputError, RegisterError, UserError
from firmware.host import SPECTRE_STATES, Mitigations
from firmware.hosts import host_named
from firmware.trap import Access, Conduit, Enter, MpState, MpStateValue, Reply, Resume, SystemEvent, Trap

_SYSTEM_EVENT: Final = 24  # KVM_EXIT_SYSTEM_EVENT
_DIFFERS: Final = 100


@dataclass(frozen=True, slots=True)
class Report:
    """What a file's replay showed: counts, and each sequence's first difference."""

    sequences: int
    steps: int
    agreements: int
    differences: tuple[str, ...]


class Replay:
    """One sequence under way: the firmware, and which vCPUs the recording's VMM holds stopped."""

    def __init__(self, sequence: dict[str, Any]) -> None:
        v2, v4, bhb = (SPECTRE_STATES[sequence[key]] for key in ("spectre_v2", "spectre_v4", "spectre_bhb"))
        mitigations = Mitigations(v2, v4, bhb, ssbs=bool(sequence["ssbs"]))
        config = configuration(
            host_named(f"kvm-{sequence['host']}"),
            tuple(int(mpidr, 16) & AFFINITY_MASK for mpidr in sequence["mpidr"]),
            psci=None if sequence["feature_psci_0_2"] else PSCI_0_1,
            mitigations=(mitigations,),
            el2_fast_path=False,
            capabilities=frozenset({"system-suspend"} if sequence["cap_system_suspend"] else ()),
        )
        self.firmware = Firmware(config)
        self.vcpus = range(sequence["vcpus"])

    def step(self, step: dict[str, Any]) -> dict[str, Any]:
        """Do one step; return what the recording would hold of it."""
        answer: dict[str, Any] = getattr(self, "_" + step["op"])(step)
        return answer

    def _reg_list(self, _step: dict[str, Any]) -> dict[str, Any]:
        return {"ids": [hex(register_id) for register_id in self.firmware.reg_list()]}

    def _get(self, step: dict[str, Any]) -> dict[str, Any]:
        self.firmware.handle(Access(0))
        try:
            return {"value": hex(self.firmware.get_one_reg(int(step["reg"], 16)))}
        except RegisterError as error:
            return {"errno": error.errno}

    def _set(self, step: dict[str, Any]) -> dict[str, Any]:
        self.firmware.handle(Access(0))
        try:
            self.firmware.set_one_reg(int(step["reg"], 16), int(step["value"], 16))
        except RegisterError as error:
            return {"errno": error.errno}
        return {"errno": 0}

    def _first_run(self, _step: dict[str, Any]) -> dict[str, Any]:
        # A vCPU is entered that has no pending reset, or the recording would say `enter`.
        self.firmware.has_run = True
        return {}

    def _enter(self, step: dict[str, Any]) -> dict[str, Any]:
        entry = self.firmware.handle(Enter(step["cpu"])).entry
        if entry is None:
            return {"reset": False}
        return {"reset": True, "pc": hex(entry.pc), "x0": hex(entry.x0), "pstate": hex(entry.pstate)}

    def _restart_all(self, _step: dict[str, Any]) -> dict[str, Any]:
        for vcpu in self.vcpus:
            self.firmware.handle(MpState(vcpu, MpStateValue.RUNNABLE))
        return {}

    def _call(self, step: dict[str, Any]) -> dict[str, Any]:
        x0, x1, x2, x3 = (int(value, 16) for value in step["x"])
        reply = self.firmware.handle(Trap(step["cpu"], Conduit(step["conduit"]), (x0, x1, x2, x3), step["imm"]))
        out = [x0, x1, x2, x3]
        for register, value in reply.regs:
            out[register] = value
        answer: dict[str, Any] = {
            "ret": "exit" if reply.resume is Resume.EXIT else "resume",
            "out": [hex(value) for value in out],
            "off": [int(self.firmware.power.states[vcpu] is PowerState.OFF) for vcpu in self.vcpus],
        }
        return answer | _exit(reply)


def _exit(reply: Reply) -> dict[str, Any]:
    for effect in reply.effects:
        if isinstance(effect, SystemEvent):
            return {"exit": {"reason": _SYSTEM_EVENT, "type": int(effect.type), "flags": effect.flags}}
    return {}


def replay(path: Path) -> Report:
    """Replay one file; raise InputError for one that is not such a file."""
    sequences = steps = agreements = 0
    differences = []
    for sequence in _sequences(path):
        sequences += 1
        first = None
        try:
            under_way = Replay(sequence)
            for number, step in enumerate(sequence["steps"]):
                steps += 1
                answer = under_way.step(step)
                recorded = {key: step[key] for key in answer.keys() | (step.keys() & _ANSWERS) if key in step}
                if answer == recorded:
                    agreements += 1
                elif first is None:
                    first = f"{sequence.get('title', f'sequence {sequences}')}: step {number} {step}: answered {answer}"
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise InputError(f"{path}: sequence {sequences} is not in the vectors' format ({type(error).__name__}: {error})") from error
        if first is not None:
            differences.append(first)
    return Report(sequences, steps, agreements, tuple(differences))


_ANSWERS: Final = frozenset({"ids", "value", "errno", "reset", "pc", "x0", "pstate", "ret", "out", "off", "exit"}) - {"value"}


def _sequences(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
            for line in lines:
                yield json.loads(line)
    except (OSError, EOFError, zlib.error, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as vectors: {error}") from error


def main(arguments: list[str]) -> int:
    if not arguments or any(argument.startswith("-") for argument in arguments):
        print("usage: python -m tests.conformance FILE...", file=sys.stderr)
        return UserError.exit_code
    differs = False
    for argument in arguments:
        try:
            report = replay(Path(argument))
        except UserError as error:
            print(error, file=sys.stderr)
            return error.exit_code
        print(f"{argument}: {report.sequences} sequences, {report.steps} steps, {report.agreements} agree")
        for difference in report.differences:
            print(f"  {difference}")
            differs = True
    return _DIFFERS if differs else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
