"""The interrupt controller in a snapshot: a run goes on as if nothing had been; and what no controller can hold is refused."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emu.devices.gic_bank import ISACTIVER, ISPENDR
from emu.gicfile import ControllerLine, controller_of, line_of
from emu.interrupts import controller
from emu.machine import Machine
from emu.setup import Choices
from emu.snapshot import parts, read, take
from emu.state import adopt
from firmware.errors import InputError
from tests.emu.gicprograms import IRQ_CLEAR, gic_on, sends
from tests.emu.programs import NOP, WFI, Bench, Label, Part, add, b, exits, kept, movz, vectors_here
from tests.emu.test_interrupts import TWO, VERSIONS, handles, ping_pong

MPIDRS = (0, 1)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def through_a_file(machine: Machine, folder: Path) -> Machine:
    taken = take(machine)
    assert taken.setup.boot is not None
    path = folder / "machine.snapshot"
    path.write_bytes(b"".join(parts(taken.setup, taken.setup.boot, taken.state)))
    taken = read(path)
    other = Machine(dataclasses.replace(taken.setup, max_insns=machine.setup.max_insns))
    adopt(other, taken.state)
    return other


@VERSIONS
@pytest.mark.parametrize("seed", [0, 3])
def test_a_run_that_is_kept_after_every_turn_ends_as_if_nothing_had_been(bench: Bench, gic: int, seed: int, tmp_path: Path) -> None:
    program = ping_pong(gic, [WFI])
    whole = bench.machine(*program, gic=gic, choices=TWO, seed=seed)
    expected = (whole.run(), kept(whole), whole.clock.now_ns, whole.interrupts.controller)
    machine = bench.machine(*program, gic=gic, choices=TWO, seed=seed)

    while (outcome := machine.step(None)) is None:
        machine = through_a_file(machine, tmp_path)

    assert (outcome, kept(machine), machine.clock.now_ns, machine.interrupts.controller) == expected


@VERSIONS
def test_an_interrupt_that_is_pending_or_active_stays_so(bench: Bench, gic: int, tmp_path: Path) -> None:
    program: list[Part] = [vectors_here(), gic_on(gic), movz(19, 0), sends(gic, 1), [NOP] * 5, IRQ_CLEAR, [NOP] * 5, exits(7)]
    program += [handles(gic, [NOP] * 5, add(19, 19, 1))]
    machine = bench.machine(*program, gic=gic)
    seen = set()

    while (outcome := machine.step(1)) is None:
        machine = through_a_file(machine, tmp_path)
        line = line_of(machine.interrupts.controller)
        assert line is not None
        bank = msgspec.to_builtins(line)["cpus" if gic == 2 else "redistributors"][0]["bank"]
        seen.add((bank["pending"] != "0x0", bank["active"] != "0x0"))

    assert (outcome.code, kept(machine)[0]) == (7, 1)
    assert seen == {(False, False), (True, False), (False, True)}


# ---- hostile ones


def fields(version: int) -> dict[str, Any]:
    fresh = controller(version, MPIDRS)
    assert fresh is not None
    content: dict[str, Any] = msgspec.to_builtins(line_of(fresh))
    return content


def rebuilt(content: dict[str, Any], mpidrs: tuple[int, ...] = MPIDRS) -> Any:
    line = msgspec.json.decode(json.dumps(content), type=ControllerLine)
    return controller_of(line, mpidrs)


@VERSIONS
def test_a_controller_comes_back_as_it_was(gic: int) -> None:
    assert rebuilt(fields(gic)) == controller(gic, MPIDRS)


Change = Callable[[dict[str, Any]], Any]

V2_LIES: dict[str, tuple[Change, str]] = {
    "a CPU interface too few": (lambda gic: gic["cpus"].pop(), "CPU interfaces"),
    "a target beyond": (lambda gic: gic.update(targets="04" * 288), "targets"),
    "targets too few": (lambda gic: gic.update(targets="00"), "a list of bytes"),
    "an SGI in the SPIs' bank": (lambda gic: gic["bank"].update(pending="0x1"), "interrupts"),
    "an SPI in a vCPU's bank": (lambda gic: gic["cpus"][0]["bank"].update(active="0x100000000"), "interrupts"),
    "a priority of eight bits": (lambda gic: gic["bank"].update(priority="01" * 288), "priorities"),
    "a sender beyond": (lambda gic: gic["cpus"][0].update(sources="04" + "00" * 15), "senders"),
    "a pending SGI without a sender": (lambda gic: gic["cpus"][0]["bank"].update(pending="0x1"), "senders"),
    "a sender of what is not pending": (lambda gic: gic["cpus"][0].update(sources="01" + "00" * 15), "senders"),
    "a disabled SGI": (lambda gic: gic["cpus"][0]["bank"].update(enabled="0x0"), "interrupts"),
    "a level-triggered SGI": (lambda gic: gic["cpus"][0]["bank"].update(edge="0x0"), "interrupts"),
    "an SGI with a line": (lambda gic: gic["cpus"][0]["bank"].update(level="0x1"), "interrupts"),
    "a control bit": (lambda gic: gic["cpus"][0].update(ctlr=0x20), "CPU interfaces"),
    "a mask of eight bits": (lambda gic: gic["cpus"][0]["priorities"].update(pmr=0xFF), "CPU interfaces"),
    "a binary point": (lambda gic: gic["cpus"][0]["priorities"].update(bpr0=1), "CPU interfaces"),
    "an aliased binary point": (lambda gic: gic["cpus"][0]["priorities"].update(bpr1=2), "CPU interfaces"),
    "a binary point in common with nobody": (lambda gic: gic["cpus"][0]["priorities"].update(ctlr=0x8C01), "CPU interfaces"),
    "a GICv3's enables": (lambda gic: gic["cpus"][0]["priorities"].update(enables=1), "CPU interfaces"),
}
V3_LIES: dict[str, tuple[Change, str]] = {
    "a redistributor too few": (lambda gic: gic["redistributors"].pop(), "redistributors"),
    "an SGI in the distributor": (lambda gic: gic["bank"].update(enabled="0x1"), "interrupts"),
    "an SPI in a redistributor": (lambda gic: gic["redistributors"][1]["bank"].update(level="0x100000000"), "interrupts"),
    "a level-triggered SGI": (lambda gic: gic["redistributors"][0]["bank"].update(edge="0x0"), "interrupts"),
    "an SGI with a line": (lambda gic: gic["redistributors"][0]["bank"].update(level="0x1"), "interrupts"),
    "a priority of eight bits": (lambda gic: gic["redistributors"][0]["bank"].update(priority="ff" * 32), "priorities"),
    "a control bit": (lambda gic: gic["redistributors"][0]["interface"].update(ctlr=0x8C04), "CPU interfaces"),
    "a mask of eight bits": (lambda gic: gic["redistributors"][0]["interface"].update(pmr=0xFF), "CPU interfaces"),
    "a binary point": (lambda gic: gic["redistributors"][0]["interface"].update(bpr1=2), "CPU interfaces"),
    "a waker bit": (lambda gic: gic["redistributors"][0].update(waker=1), "redistributors"),
    "a router bit": (lambda gic: gic["router"].__setitem__(40, "0x80000000"), "routers"),
    "a router of an SGI": (lambda gic: gic["router"].__setitem__(0, "0x1"), "routers"),
}
LIES = [(2, name, *lie) for name, lie in V2_LIES.items()] + [(3, name, *lie) for name, lie in V3_LIES.items()]


@pytest.mark.parametrize(("gic", "name", "change", "words"), LIES, ids=[f"GICv{gic}-{name}" for gic, name, *_ in LIES])
def test_what_no_controller_can_hold_is_refused_in_one_sentence(gic: int, name: str, change: Change, words: str) -> None:
    content = fields(gic)
    change(content)

    with pytest.raises(ValueError, match=words) as error:
        rebuilt(content)

    assert str(error.value) == f"its interrupt controller cannot have such {words}", name


@pytest.mark.parametrize(
    ("gic", "change"),
    [
        (2, lambda gic: gic.update(version=4)),
        (2, lambda gic: gic.update(colour="red")),
        (2, lambda gic: gic.update(ctlr=4)),
        (2, lambda gic: gic["bank"].update(pending="-1")),
        (2, lambda gic: gic["bank"].update(pending="0x" + "f" * 73)),
        (2, lambda gic: gic["bank"].update(priority="0")),
        (2, lambda gic: gic["cpus"][0]["priorities"].update(ap0=1 << 32)),
        (3, lambda gic: gic["router"].pop()),
        (3, lambda gic: gic["redistributors"].extend(gic["redistributors"] * 62)),
    ],
)
def test_what_is_not_of_its_form_is_refused(gic: int, change: Change) -> None:
    content = fields(gic)
    change(content)

    with pytest.raises(msgspec.ValidationError):
        rebuilt(content)


def test_a_gicv2_has_no_more_than_eight_vcpus() -> None:
    content = fields(2)
    content["cpus"] *= 5

    with pytest.raises(msgspec.ValidationError):
        rebuilt(content, tuple(range(10)))


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(each for key, below in inner for each in places(below, (*path, key)))]


WRONG: Final[st.SearchStrategy[object]] = st.sampled_from(
    [None, -1, 1, 7, 0xFF, 1 << 31, 1 << 62, "", "0x", "0xf", "0x1ffff", "0x" + "f" * 72, "ff" * 16, "f8" * 32, "f8" * 288, []]
)


@pytest.mark.parametrize("version", [2, 3])
@given(place=st.integers(1, 1 << 30), value=WRONG)
@settings(derandomize=True, database=None, deadline=None, max_examples=300)
def test_a_field_that_was_altered_is_refused_or_makes_another_controller_that_works(version: int, place: int, value: object) -> None:
    content = fields(version)
    every = places(content)[1:]
    *way, last = every[place % len(every)]
    target: Any = content
    for key in way:
        target = target[key]
    target[last] = value
    try:
        gic = rebuilt(content)
    except (ValueError, msgspec.ValidationError):
        return

    assert rebuilt(msgspec.to_builtins(line_of(gic))) == gic
    for vcpu in range(len(MPIDRS)):
        gic.signals(vcpu)
        if version == 2:
            assert 0 <= gic.read_cpu_interface(0xC, 4, vcpu) < 1 << 13
            assert 0 <= gic.read_distributor(ISPENDR, 4, vcpu) < 1 << 32
        else:
            assert 0 <= gic.read_register(vcpu, (3, 0, 12, 12, 0)) <= 1023
            assert 0 <= gic.read_distributor(ISACTIVER + 4, 4) < 1 << 32


def test_a_snapshot_whose_controller_lies_is_refused_by_name(bench: Bench, tmp_path: Path) -> None:
    machine = bench.machine(gic_on(2), Label("stay"), b("stay"), gic=2, choices=Choices())
    machine.step(None)
    machine.interrupts.controller.cpus[0].bank.pending = 1  # type: ignore[union-attr]
    taken = take(machine)
    assert taken.setup.boot is not None
    path = tmp_path / "lies.snapshot"
    path.write_bytes(b"".join(parts(taken.setup, taken.setup.boot, taken.state)))

    with pytest.raises(InputError, match="cannot have such senders") as error:
        read(path)

    assert "\n" not in str(error.value)
