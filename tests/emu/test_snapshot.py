"""A whole machine in a file, and back: the same run, whatever guest, host and instant; and files that are damaged, or lie."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emu import architecture, snapshot
from emu.cli import main
from emu.devices.pl031 import Pl031
from emu.machine import Machine
from emu.observer import Observer
from emu.outcome import Outcome
from emu.setup import Choices, Setup, make
from emu.snapshot import Snapshot, parts, read, take
from emu.state import adopt, capture
from emu.trap import Record
from emu.words import parse_smp
from firmware.abi import PSCI_0_1, Version
from firmware.errors import InputError, UserError
from firmware.trap import Event, Reply
from guests import catalogue, elf_path
from tests import real

ENOUGH_INSTRUCTIONS: Final = 20_000_000
GUESTS: Final = catalogue()
HEAD: Final = len(b"psci-emu snapshot\n") + 8


def setup_of(guest: str, host: str = "spec", seed: int = 0, psci: str | None = None) -> Setup:
    setup = make(Choices(host=host, psci=psci, mpidrs=parse_smp(GUESTS[guest].smp_option)))
    return dataclasses.replace(setup, kernel=elf_path(guest), max_insns=ENOUGH_INSTRUCTIONS, seed=seed)


class Everything(Observer):
    """Keep whatever can be seen of a run: calls, events, exceptions, console."""

    def __init__(self, machine: Machine, seen: list[object], printed: bytearray) -> None:
        self._seen = seen
        self._printed = printed
        machine.observe(self, calls=None)

    def call(self, record: Record) -> None:
        self._seen.append(record)

    def firmware_event(self, event: Event, reply: Reply) -> None:
        self._seen.append((event, reply))

    def exception(self, number: int, esr: int, far: int | None, pc: int, vector: int) -> None:
        self._seen.append((number, esr, far, pc, vector))

    def console(self, text: bytes) -> None:
        self._printed += text


@dataclasses.dataclass
class Watched:
    """A machine, and everything that it and those before it showed."""

    machine: Machine
    seen: list[object]
    printed: bytearray


def watched(setup: Setup, before: Watched | None = None) -> Watched:
    seen = [] if before is None else list(before.seen)
    printed = bytearray() if before is None else bytearray(before.printed)
    machine = Machine(setup)
    Everything(machine, seen, printed)
    return Watched(machine, seen, printed)


def finished(run: Watched) -> tuple[Outcome, list[object], bytes]:
    outcome = run.machine.run()
    return outcome, run.seen, bytes(run.printed)


def undisturbed(setup: Setup) -> tuple[Outcome, list[object], bytes]:
    return finished(watched(setup))


def through_a_file(taken: Snapshot, folder: Path) -> Snapshot:
    path = folder / "machine.snapshot"
    assert taken.setup.boot is not None
    path.write_bytes(b"".join(parts(taken.setup, taken.setup.boot, taken.state)))
    return read(path)


@pytest.mark.parametrize("seed", [0, 3])
@pytest.mark.parametrize("host", ["spec", "kvm-6.12", "kvm-4.18", "qemu-7"])
@pytest.mark.parametrize("guest", GUESTS)
def test_a_guest_that_was_kept_and_taken_up_again_ends_as_if_nothing_had_been(guest: str, host: str, seed: int, tmp_path: Path) -> None:
    setup = setup_of(guest, host, seed)
    expected = undisturbed(setup)
    run = watched(setup)
    turns = 0
    while run.machine.step(None) is None:
        turns += 1
        if turns > 8 and turns % 13:
            continue
        taken = through_a_file(take(run.machine), tmp_path)

        later = watched(dataclasses.replace(taken.setup, max_insns=ENOUGH_INSTRUCTIONS), run)
        adopt(later.machine, taken.state)

        assert finished(later) == expected, f"turn {turns}"


@pytest.mark.parametrize("host", ["kvm-6.12", "spec"])
def test_a_machine_goes_back_to_what_it_was(host: str) -> None:
    run = watched(setup_of("off-on-again", host))
    for _ in range(3):
        run.machine.step(None)
    kept, seen, printed = capture(run.machine), list(run.seen), bytes(run.printed)
    first = finished(run)

    again = watched(run.machine.setup_as_it_is, Watched(run.machine, seen, bytearray(printed)))
    adopt(again.machine, kept)
    assert finished(again) == (first[0], first[1], first[2])


def test_what_was_written_after_a_snapshot_is_gone_after_it_is_restored() -> None:
    machine = Machine(setup_of("prober"))
    machine.step(None)
    kept = capture(machine)
    machine.memory.write(0x4700_0000, b"later")

    adopt(machine, kept)

    assert machine.memory.read(0x4700_0000, 5) == bytes(5)
    assert capture(machine) == kept


def test_a_reset_after_a_snapshot_loads_what_was_loaded_at_first(tmp_path: Path) -> None:
    setup = setup_of("reset")
    expected = undisturbed(setup)
    run = watched(setup)
    assert run.machine.step(None) is None
    taken = through_a_file(take(run.machine), tmp_path)

    later = watched(taken.setup, run)
    adopt(later.machine, taken.state)

    assert finished(later) == expected


def test_a_run_that_is_over_cannot_be_kept() -> None:
    machine = Machine(setup_of("prober"))
    machine.run()

    with pytest.raises(UserError, match="the run is over"):
        capture(machine)


def test_a_machine_that_waits_for_a_version_change_cannot_be_kept() -> None:
    machine = Machine(dataclasses.replace(setup_of("version-loop", "kvm-6.12", psci="1.0,0.2@call:PSCI_VERSION#7")))
    machine.step(1)

    with pytest.raises(UserError, match="a version change"):
        capture(machine)


@pytest.mark.parametrize("cpu", ["cortex-a57", "max"])
def test_a_linux_kernels_registers_are_all_known_by_name(cpu: str) -> None:
    setup = dataclasses.replace(make(Choices()), kernel=real.kernel(), cpu=cpu, append="earlycon", max_insns=30_000_000)
    machine = Machine(setup)
    machine.run()
    state = architecture.read(machine.engine, cpu)

    other = Machine(dataclasses.replace(setup_of("prober"), cpu=cpu))
    architecture.write(other.engine, cpu, state)

    assert architecture.read(other.engine, cpu) == state
    assert set(state) == architecture.register_names(cpu)


def test_a_linux_kernel_goes_on_from_a_file_to_its_last_psci_line(tmp_path: Path) -> None:
    setup = dataclasses.replace(make(Choices(host="kvm-6.12")), kernel=real.kernel(), append="earlycon", max_insns=40_000_000)
    expected = undisturbed(setup)
    run = watched(setup)
    while run.machine.clock.traps < 4:
        assert run.machine.step(None) is None
    taken = through_a_file(take(run.machine), tmp_path)

    later = watched(dataclasses.replace(taken.setup, max_insns=setup.max_insns), run)
    adopt(later.machine, taken.state)

    assert finished(later) == expected
    assert b"psci: SMC Calling Convention v1.1" in later.printed


# ---- files


@cache
def kept_file() -> bytes:
    machine = Machine(setup_of("off-on-again", "kvm-6.12"))
    for _ in range(3):
        machine.step(None)
    taken = take(machine)
    assert taken.setup.boot is not None
    return b"".join(parts(taken.setup, taken.setup.boot, taken.state))


def sealed(content: bytes) -> bytes:
    return content + hashlib.sha256(content).digest()


def with_header(change: Callable[[dict[str, Any]], None], content: bytes | None = None) -> bytes:
    content = kept_file() if content is None else content
    length = int.from_bytes(content[HEAD - 8 : HEAD], "little")
    header = json.loads(content[HEAD : HEAD + length])
    change(header)
    changed = json.dumps(header).encode()
    return sealed(content[: HEAD - 8] + len(changed).to_bytes(8, "little") + changed + content[HEAD + length : -32])


def refused(content: bytes, folder: Path) -> str:
    path = folder / "lies.snapshot"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        read(path)
    sentence = str(error.value)
    assert "\n" not in sentence
    return sentence


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("snapshots")


def test_what_is_read_is_what_was_written(folder: Path) -> None:
    path = folder / "twice.snapshot"
    path.write_bytes(kept_file())
    first = read(path)
    assert first.setup.boot is not None

    assert b"".join(parts(first.setup, first.setup.boot, first.state)) == kept_file()


def test_a_snapshot_that_says_nothing_of_the_real_time_clock_has_a_new_one(folder: Path) -> None:
    path = folder / "earlier.snapshot"
    path.write_bytes(with_header(lambda header: header.pop("rtc")))

    taken = read(path)
    assert taken.state.rtc == Pl031(taken.setup.wall_clock_s)


@given(at=st.integers(0, 1 << 30), bit=st.integers(0, 7))
@settings(derandomize=True, database=None, deadline=None, max_examples=300)
def test_a_flipped_bit_is_noticed(at: int, bit: int, folder: Path) -> None:
    content = bytearray(kept_file())
    content[at % len(content)] ^= 1 << bit

    assert "damaged" in (sentence := refused(bytes(content), folder)) or "is not a snapshot" in sentence


@given(length=st.integers(0, 1 << 30))
@settings(derandomize=True, database=None, deadline=None, max_examples=100)
def test_a_truncated_file_is_noticed(length: int, folder: Path) -> None:
    content = kept_file()

    refused(content[: length % len(content)] or b"p", folder)


def everywhere(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every value within a JSON document."""
    found = [path] if path else []
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        found += everywhere(each, (*path, key))
    return found


@cache
def places() -> list[tuple[Any, ...]]:
    content = kept_file()
    return everywhere(json.loads(content[HEAD : HEAD + int.from_bytes(content[HEAD - 8 : HEAD], "little")]))


WRONG: Final[st.SearchStrategy[object]] = st.sampled_from(
    [None, -1, 1 << 62, 1 << 70, "", "0x", "0xffffffffffffffff", "lies", [], {}, True, 3.5, [None], "0x" + "f" * 40]
)


@given(place=st.integers(0, 1 << 30), value=WRONG)
@settings(derandomize=True, database=None, deadline=None, max_examples=600)
def test_a_field_that_was_altered_is_refused_or_makes_another_machine_that_runs(place: int, value: object, folder: Path) -> None:
    def alter(header: Any) -> None:
        *way, last = places()[place % len(places())]
        for key in way:
            header = header[key]
        header[last] = value

    path = folder / "altered.snapshot"
    path.write_bytes(with_header(alter))
    try:
        taken = read(path)
    except InputError:
        return
    machine = Machine(dataclasses.replace(taken.setup, max_insns=taken.state.instructions + 100_000))
    adopt(machine, taken.state)
    machine.run()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda header: header.update(colour="red"), "unknown field `colour`"),
        (lambda header: header["vcpus"][0].update(sixth_sense=1), "unknown field `sixth_sense`"),
        (lambda header: header["uart"].update(baud=1), "unknown field `baud`"),
        (lambda header: header.update(schema=2), "it has schema 2; 1 is read"),
        (lambda header: header["config"].update(host="kvm-9.99"), "host 'kvm-9.99' is not known"),
        (lambda header: header["config"].update(mitigations=[["", "mitigated", "mitigated", False]]), "mitigations ('', "),
        (lambda header: header["vcpus"][0]["registers"].pop("ttbr0_el1"), "a register 'ttbr0_el1' too few"),
        (lambda header: header["vcpus"][0]["registers"].update(x31="0x0"), "a register 'x31' too many"),
        (lambda header: header["vcpus"][0]["registers"].update(pstate="0x3c9"), "pstate 0x3c9 is not of EL0 or EL1"),
        (lambda header: header.update(asked=[0, 3]), "its user asked for PSCI 0.3, which does not exist"),
        (lambda header: header["vcpus"].pop(), "it names CPUs beyond the 2 it has"),
        (lambda header: header["pages"][0].update(pages=1 << 40), "are not in memory"),
        (lambda header: header["config"].update(ram=["0x40000000", "0x3fc0000000"]), None),
    ],
)
def test_a_header_that_lies_is_refused_by_name(change: Callable[[dict[str, Any]], None], words: str | None, folder: Path) -> None:
    content = with_header(change)
    if words is None:  # 255 GiB of RAM are a machine like any other: nothing is allocated that is not used
        (folder / "large.snapshot").write_bytes(content)
        assert read(folder / "large.snapshot").setup.ram_bytes == 255 << 30
        return

    assert words in refused(content, folder)


def test_a_stream_that_unpacks_to_more_than_the_header_says_is_refused(folder: Path) -> None:
    def fewer(header: dict[str, Any]) -> None:
        header["pages"].pop()

    assert "its memory is not the" in refused(with_header(fewer), folder)


def test_a_promise_of_gigabytes_from_a_few_bytes_is_refused(folder: Path) -> None:
    def more(header: dict[str, Any]) -> None:
        header["config"]["ram"] = ["0x40000000", "0x3fc0000000"]
        header["pages"] = [{"address": "0x50000000", "pages": 1 << 25}]

    assert "unpack to" in refused(with_header(more), folder)


def test_memory_that_hardly_packs_at_all_and_memory_that_packs_too_well_are_both_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "_FREELY_UNPACKED_BYTES", 0)
    machine = Machine(setup_of("prober"))
    machine.memory.write(0x4700_0000, b"\x01" * (4 << 20))
    taken = take(machine)

    assert through_a_file(taken, folder).state == taken.state


def test_the_registers_in_which_two_snapshots_differ_are_told_in_the_order_of_the_architecture(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for number in (1, 2):
        arguments = ("-kernel", str(elf_path("version-loop")), "-at", f"call:PSCI_VERSION#{number}")
        assert main(["snapshot", "save", str(tmp_path / str(number)), *arguments]) == 0
    capfd.readouterr()

    assert main(["snapshot", "diff", str(tmp_path / "1"), str(tmp_path / "2")]) == 100

    told = re.findall(r"^cpu0 (x\d+):", capfd.readouterr().out, re.MULTILINE)
    assert told == sorted(told, key=lambda name: int(name[1:]))
    assert len(told) > 4


def to_when_it_was_the_snapshots_own(header: dict[str, Any]) -> None:
    header["host_is"] = header["config"].pop("host_is")


def to_before_it_was_there(header: dict[str, Any]) -> None:
    del header["config"]["host_is"]


def test_a_snapshot_of_before_tells_of_0_1_alone_that_it_was_asked_for(tmp_path: Path) -> None:
    for psci, asked in (("0.1", PSCI_0_1), ("1.0", None)):
        take(Machine(setup_of("version-loop", "kvm-6.12", psci=psci))).save(tmp_path / "now")
        (tmp_path / "earlier").write_bytes(with_header(lambda header: header.pop("asked"), (tmp_path / "now").read_bytes()))

        assert read(tmp_path / "now").setup.asked == Version(*map(int, psci.split(".")))
        assert read(tmp_path / "earlier").setup.asked == asked


@pytest.mark.parametrize("now", ['latest = "1.0"', 'node-compatible = ["arm,psci-0.2"]', 'serves = { remove = ["AFFINITY_INFO"] }'])
def test_a_host_of_the_users_own_that_has_changed_is_refused(now: str, tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text('based-on = "kvm-6.12"\nnode-compatible = ["arm,psci"]\n')
    kept = take(Machine(setup_of("version-loop", str(mine))))
    kept.save(tmp_path / "kept")
    assert read(tmp_path / "kept").setup.config.host.name == str(mine)

    mine.write_text(f'based-on = "kvm-6.12"\n{now}\n')

    with pytest.raises(InputError, match=r"mine\.toml is no longer what it was when this was recorded"):
        read(tmp_path / "kept")
    for earlier in (to_when_it_was_the_snapshots_own, to_before_it_was_there):
        (tmp_path / "earlier").write_bytes(with_header(earlier, (tmp_path / "kept").read_bytes()))
        if earlier is to_before_it_was_there:
            assert read(tmp_path / "earlier").setup.config.host.name == str(mine)
            continue
        with pytest.raises(InputError, match=r"mine\.toml is no longer what it was"):
            read(tmp_path / "earlier")
