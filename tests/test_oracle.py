"""The oracle against the recorded answers of KVM's own code, and what those leave out."""

from __future__ import annotations

import ast
import gzip
import json
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Final

import pytest

from tests.oracle import HOSTS, Enter, Errno, Mp, MpState, Oracle, Power, RegisterAccess, Reset, Resume, Trap, Vcpu, Woken, call
from tests.oracle.columns import KVM_6_12, SPEC

VECTORS: Final = Path(__file__).parent / "vectors"
ENTRY: Final = 0x4008_0000
CPU_ON: Final = 0xC400_0003
PSCI_VERSION_REG: Final = 0x6030_0000_0014_0000

SYSTEM_EVENT: Final = 24
EVENT_TYPES: Final = {"off": 1, "reset": 2, "suspend": 5}


def sequences(file: str) -> Iterator[dict[str, Any]]:
    with gzip.open(VECTORS / f"{file}.jsonl.gz", "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def oracle_of(sequence: dict[str, Any]) -> Oracle:
    return Oracle(
        f"kvm-{sequence['host']}",
        mpidrs=[int(mpidr, 16) for mpidr in sequence["mpidr"]],
        feature_psci_0_2=sequence["feature_psci_0_2"],
        cap_system_suspend=sequence["cap_system_suspend"],
        spectre_v2=sequence["spectre_v2"],
        spectre_v4=sequence["spectre_v4"],
        spectre_bhb=sequence["spectre_bhb"],
        ssbs=sequence["ssbs"],
    )


def replay_call(oracle: Oracle, step: dict[str, Any]) -> dict[str, Any]:
    before = [int(x, 16) for x in step["x"]]
    x0, x1, x2, x3 = before
    outcome = oracle.step(Trap(step["cpu"], step["conduit"], step["imm"], x0, x1, x2, x3))
    exits = outcome.resume is Resume.EXIT
    said: dict[str, Any] = {
        "ret": "exit" if exits else "resume",
        "out": [hex(outcome.regs.get(f"x{n}", x)) for n, x in enumerate(before)],
        "off": [int(vcpu.power is Power.OFF) for vcpu in outcome.states],
    }
    if exits:
        ((kind, flags),) = outcome.effects
        said["exit"] = {"reason": SYSTEM_EVENT, "type": EVENT_TYPES[kind], "flags": flags}
    if outcome.resume is Resume.WAIT:
        oracle.step(Woken(step["cpu"]))  # the recorder's WFI did not wait
    return said


def replay(oracle: Oracle, step: dict[str, Any]) -> dict[str, Any]:
    """What the oracle says to one recorded step, in the recording's fields."""
    match step["op"]:
        case "reg_list":
            return {"ids": [f"0x{reg:x}" for reg in oracle.list_registers()]}
        case "get":
            errno, value = oracle.get_register(int(step["reg"], 16))
            return {"errno": errno} if value is None else {"value": hex(value)}
        case "set":
            return {"errno": oracle.set_register(int(step["reg"], 16), int(step["value"], 16))}
        case "first_run":
            oracle.world = replace(oracle.world, has_run=True)
            return {}
        case "restart_all":
            for vcpu in range(len(oracle.states)):
                oracle.step(MpState(vcpu, Mp.RUNNABLE))
            return {}
        case "enter":
            regs = oracle.step(Enter(step["cpu"])).regs
            applied = {name: hex(regs[name]) for name in ("pc", "x0", "pstate") if regs}
            return {"reset": bool(regs), **applied}
        case "call":
            return replay_call(oracle, step)
        case op:
            raise AssertionError(f"unknown op {op!r}")


INPUTS: Final = frozenset(("op", "cpu", "conduit", "imm", "x", "reg"))


@pytest.mark.parametrize(
    ("file", "steps"),
    [("kvm-6.12-structured", 20_915), ("kvm-6.12-random", 11_399), ("kvm-4.19-structured", 14_702), ("kvm-4.19-random", 11_053)],
)
def test_the_kvm_columns_agree_with_every_recorded_step(file: str, steps: int) -> None:
    compared = 0
    for number, sequence in enumerate(sequences(file)):
        oracle = oracle_of(sequence)
        for index, step in enumerate(sequence["steps"]):
            said = replay(oracle, step)
            recorded = {key: value for key, value in step.items() if key not in INPUTS and (step["op"], key) != ("set", "value")}
            assert said == recorded, f"sequence {number}, step {index}: {step}"
            compared += 1
    assert compared == steps


def disagrees(host: str) -> bool:
    for file in (f"{host}-structured", f"{host}-random"):
        for sequence in sequences(file):
            oracle = oracle_of(sequence)
            for step in sequence["steps"]:
                said = replay(oracle, step)
                if any(step.get(key) != value for key, value in said.items()):
                    return True
    return False


# Columns in which `spec` differs but which no recorded step depends on: they rest on the reference pages alone.
UNPINNED: Final = frozenset(("name", "registers", "sve_hint_masked", "soc_id", "off_by_smc_skips"))


@pytest.mark.parametrize(
    "column",
    [field.name for field in fields(KVM_6_12) if getattr(KVM_6_12, field.name) != getattr(SPEC, field.name) and field.name not in UNPINNED],
)
def test_the_vectors_notice_any_column_taken_from_spec(column: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(HOSTS, "kvm-6.12", replace(KVM_6_12, **{column: getattr(SPEC, column)}))

    assert disagrees("kvm-6.12")


# What the vectors leave out.


def kvm(host: str = "kvm-6.12") -> Oracle:
    return Oracle(host, vcpus=2)


@pytest.mark.parametrize(("host", "applies"), [("kvm-6.12", True), ("kvm-4.19", False), ("spec", True)])
def test_a_register_access_applies_a_pending_reset_where_the_column_says_so(host: str, applies: bool) -> None:
    oracle = kvm(host)
    call(oracle, CPU_ON, 1, ENTRY, 7)

    outcome = oracle.step(RegisterAccess(1))

    assert bool(outcome.regs) is applies


def test_kvm_applies_a_reset_once_and_no_mp_state_drops_it() -> None:
    oracle = kvm()
    oracle.step(Trap(0, "hvc", 0, CPU_ON, 1, ENTRY, 7, big_endian=True))
    oracle.step(MpState(1, Mp.STOPPED))
    oracle.step(MpState(1, Mp.RUNNABLE))

    assert oracle.step(Enter(1)).regs == {"pc": ENTRY, "x0": 7, "pstate": 0x3C5, "ee": 1}
    assert oracle.step(Enter(1)).regs == {}


def test_a_system_reset_drops_pending_resets_and_keeps_the_registers_values() -> None:
    oracle = kvm()
    oracle.set_register(PSCI_VERSION_REG, 0x2)
    call(oracle, CPU_ON, 1, ENTRY)

    outcome = oracle.step(Reset())

    assert outcome.states == (Vcpu(Power.ON), Vcpu(Power.OFF))
    assert oracle.get_register(PSCI_VERSION_REG) == (Errno.OK, 0x2)


def test_a_vcpu_the_vmm_suspended_reports_its_wake_up_and_stays() -> None:
    oracle = kvm()
    oracle.step(MpState(1, Mp.SUSPENDED))

    outcome = oracle.step(Woken(1))

    assert (outcome.resume, outcome.effects) == (Resume.EXIT, frozenset({("woken", 1)}))
    assert outcome.states[1].power is Power.SUSPENDED
    assert outcome.visible() == (0, 0)


def test_kvm_4_19_resets_the_target_inside_cpu_on() -> None:
    oracle = kvm("kvm-4.19")

    outcome = call(oracle, CPU_ON, 1, ENTRY, 7)

    assert outcome.remote == {1: {"pc": ENTRY, "x0": 7, "pstate": 0x3C5, "ee": 0}}
    assert oracle.step(Enter(1)).regs == {}


@pytest.mark.parametrize(
    ("host", "reg", "errno"),
    [
        ("kvm-6.12", 0x6020_0000_0014_0000, Errno.ENOENT),
        ("kvm-4.19", 0x6020_0000_0014_0000, Errno.EINVAL),
        ("kvm-6.12", 0x4030_0000_0014_0000, Errno.EINVAL),
        ("kvm-6.12", 0x6030_0001_0014_0000, Errno.EINVAL),
        ("kvm-6.12", 0x6030_0000_1014_0000, Errno.ENOENT),
        ("kvm-4.19", 0x6030_0000_0016_0000, Errno.ENOENT),
        ("kvm-6.12", 0x6030_0000_0016_0003, Errno.ENOENT),
        ("spec", 0x6030_0000_0016_0003, Errno.OK),
    ],
)
def test_an_ill_formed_register_id_gets_its_errno(host: str, reg: int, errno: Errno) -> None:
    assert kvm(host).get_register(reg)[0] == errno


def test_the_oracle_imports_nothing_of_the_code_under_test() -> None:
    for source in sorted((Path(__file__).parent / "oracle").glob("*.py")):
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not {name.partition(".")[0] for name in names} & {"firmware", "emu"}, source.name
