"""QEMU and `-host qemu-7` side by side: the catalogue's guests, and a table of calls, byte for byte.

QEMU runs single-threaded. With a thread for each CPU its answers depend on the race between CPU_ON and the started thread.
"""

from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import capstone
import fdt
import pytest

from emu.machine import Machine
from emu.outcome import ExitCode
from emu.setup import Choices, make
from guests import Guest, catalogue, elf_path
from tests import real
from tests.guests.call_table import (
    IMAGE_BASE,
    LISTINGS,
    READ,
    REPORT,
    SECOND_ENTRY,
    SNIPPETS,
    THEN_AFFINITY_INFO,
    TWICE,
    UNTOUCHED,
    Call,
    Listing,
    hvc,
    image,
    smc,
)

TIMEOUT_S: Final = 30
ENDLESS_S: Final = 3  # for a guest that never ends; what it prints comes within a tenth of that
ENOUGH_INSTRUCTIONS: Final = 100_000_000
GUESTS: Final = catalogue()
COMPARABLE: Final = tuple(guest for guest in GUESTS.values() if guest.qemu is None)

Seen = tuple[int, bytes]


def on_qemu(kernel: Path, smp: int, timeout_s: float = TIMEOUT_S, *, no_reboot: bool = False) -> Seen:
    """Run a kernel on QEMU; return its exit code and what it printed."""
    machine = ["-M", "virt", "-accel", "tcg,thread=single", "-cpu", "cortex-a57", "-smp", str(smp), "-nic", "none"]
    command = [real.qemu(), *machine, "-nographic", "-semihosting", *(["-no-reboot"] if no_reboot else []), "-kernel", str(kernel)]
    done = subprocess.run(command, check=False, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s)
    assert done.stderr == b""
    return done.returncode, done.stdout


def on_model(kernel: Path, smp: int, *, conduit: str | None = None, no_reboot: bool = False) -> Seen:
    """Run a kernel on the modelled QEMU; return the exit code and what it printed."""
    setup = make(Choices(host="qemu-7", mpidrs=tuple(range(smp)), conduit=conduit))
    setup = dataclasses.replace(setup, kernel=kernel, no_reboot=no_reboot, max_insns=ENOUGH_INSTRUCTIONS)
    console = bytearray()
    outcome = Machine(setup, output=console.extend).run()
    return outcome.code, bytes(console)


# ---- the catalogue


@pytest.mark.parametrize("guest", COMPARABLE, ids=lambda guest: guest.name)
@pytest.mark.parametrize("more", [0, 3])
def test_a_guest_prints_and_ends_on_qemu_as_on_its_model(guest: Guest, more: int) -> None:
    kernel, smp = elf_path(guest.name), min(guest.smp + more, 8)

    assert on_model(kernel, smp) == on_qemu(kernel, smp)


@pytest.mark.parametrize("guest", [guest for guest in COMPARABLE if guest.smp > 1], ids=lambda guest: guest.name)
def test_a_guest_that_lacks_cpus_says_so_on_qemu_as_on_its_model(guest: Guest) -> None:
    assert on_model(elf_path(guest.name), 1) == on_qemu(elf_path(guest.name), 1)


@pytest.mark.parametrize("guest", [guest for guest in GUESTS.values() if guest.qemu is not None], ids=lambda guest: guest.name)
def test_a_guest_whose_end_cannot_be_compared_prints_the_same_and_never_ends_on_qemu(guest: Guest) -> None:
    code, console = on_model(elf_path(guest.name), guest.smp)

    with pytest.raises(subprocess.TimeoutExpired) as endless:
        on_qemu(elf_path(guest.name), guest.smp, ENDLESS_S)

    assert code == ExitCode.CRASH
    assert endless.value.stdout == console


# ---- single calls

# Neither of these returns on QEMU. CPU_SUSPEND is refused wherever it stands below: with a good power_state it is a WFI.
CPU_OFF: Final = (0x8400_0002, 0x95C1_BA5F)
SYSTEM_OFF, SYSTEM_RESET = 0x8400_0008, 0x8400_0009
LEAVES: Final = frozenset({*CPU_OFF, SYSTEM_OFF, SYSTEM_RESET})
CPU_SUSPENDS: Final = (0x8400_0001, 0xC400_0001, 0x95C1_BA5E)
CPU_ONS: Final = (0x8400_0003, 0xC400_0003, 0x95C1_BA60)
AFFINITY_INFOS: Final = (0x8400_0004, 0xC400_0004)
PSCI_FEATURES: Final = 0x8400_000A

PSCI_IDS: Final = tuple(base + number for base in (0x8400_0000, 0xC400_0000) for number in range(0x20))
PSCI_0_1_IDS: Final = tuple(range(0x95C1_BA5D, 0x95C1_BA64))
OTHER_IDS: Final = (
    *(0x8000_0000, 0x8000_0001, 0x8000_0002, 0xC000_0002, 0x8000_3FFF, 0x8000_7FFF, 0x8000_8000, 0x8000_FF01),  # Arch
    *(0x8100_0000, 0x8200_0000, 0x8300_0000, 0x8400_0020, 0x8400_0050, 0x8400_0051, 0x8400_0053, 0xC400_0053),  # CPU to TRNG
    *(0xC500_0020, 0xC500_0021, 0x8600_0000, 0x8600_FF01, 0xC600_FC00, 0x8700_0000),  # hypervisors
    *(0x0, 0x1, 0x0400_0000, 0x8401_0000, 0x8400_1000, 0x8410_0000, 0x7FFF_FFFF, 0xFFFF_FFFF),  # no ID of anything
)
IDS: Final = tuple(fid for fid in (*PSCI_IDS, *PSCI_0_1_IDS, *OTHER_IDS) if fid not in LEAVES)
HIGH_HALVES: Final = (0x1_0000_0000, 0x8000_0000_0000_0000, 0xFFFF_FFFF_0000_0000)
# The upper 17 bits of a power_state are what QEMU looks at, so each of these is refused where it is one.
BAD: Final = ((0xFFFF_FFFF_FFFF_FFF0, 0x1, 0x5), (0xFFFF_0000, 0x0, 0x0), (0x0002_0000, 0x4008_0002, 0xFFFF_FFFF))
TARGETS: Final = (0x0, 0x1, 0x2, 0x3, 0x100, 0x1_0000, 0x0100_0000, 0x8000_0000, 0x8000_0001, 0x1_0000_0001, 0xFFFF_FFFF, (1 << 64) - 1)
IMMEDIATES: Final = (0x0, 0x1, 0x8000, 0xFFFF)

SETTLE: Final = 30_000  # turns of the delay loop: more than a slice, so that a started CPU has come and gone

EVERY_ID: Final = tuple(Call((fid, *arguments)) for fid in IDS for arguments in BAD)
FEATURES: Final = tuple(
    Call((PSCI_FEATURES, fid, 0x1, 0x2)) for fid in (*IDS, *LEAVES, *(high | fid for high in HIGH_HALVES for fid in PSCI_IDS[:0x10]))
)
JUNK: Final = tuple(Call((high | fid, *BAD[0])) for high in HIGH_HALVES for fid in (*PSCI_IDS, *PSCI_0_1_IDS, *OTHER_IDS))
AFFINITY: Final = tuple(
    Call((fid, target, level, 0x7))
    for fid in AFFINITY_INFOS
    for target in TARGETS
    for level in (0, 1, 2, 3, 4, 0xFFFF_FFFF, 0x1_0000_0000, (1 << 64) - 1)
)
REFUSED_ON: Final = tuple(
    Call((fid, target, entry, 0x99))
    for fid in CPU_ONS
    for target in TARGETS
    for entry in (SECOND_ENTRY + 1, SECOND_ENTRY + 2, SECOND_ENTRY + 3, SECOND_ENTRY, 0x0, 1 << 63)
    if target != 0x1 or entry % 4
)
REFUSED_SUSPEND: Final = tuple(
    Call((fid, power_state | low, SECOND_ENTRY, 0x3))
    for fid in CPU_SUSPENDS
    for power_state in (0x0002_0000, 0x0100_0000, 0x0200_0000, 0x4000_0000, 0x8000_0000, 0xFFFE_0000, 0x1_0002_0000)
    for low in (0x0, 0x1, 0x1_0000)
)
UNDEFINED_OR_NOT: Final = tuple(
    Call((fid, *BAD[0]), conduit(immediate))
    for conduit in (hvc, smc)
    for immediate in IMMEDIATES
    for fid in (0x8400_0000, 0xC400_0003, 0x8400_000A, 0x8000_0000, 0x95C1_BA60, 0x8600_FF01, 0x0)
)
STARTS: Final = tuple(
    call
    for fid in CPU_ONS
    for context_id in (0x0, 0x1122_3344_5566_7788, (1 << 64) - 1)
    for call in (
        Call((0x8400_0004, 0x1, 0x0)),
        Call((fid, 0x1, SECOND_ENTRY, context_id), delay=SETTLE),
        *(Call((0, REPORT + offset), READ) for offset in range(0, 0x40, 0x10)),
    )
)
TABLES: Final = {
    "every function ID": EVERY_ID,
    "PSCI_FEATURES": FEATURES,
    "upper halves of x0": JUNK,
    "AFFINITY_INFO": AFFINITY,
    "CPU_ON refused": REFUSED_ON,
    "CPU_SUSPEND refused": REFUSED_SUSPEND,
    "immediates and SMC": UNDEFINED_OR_NOT,
    "CPU_ON": STARTS,
}


def lines(calls: Sequence[Call], seen: Seen) -> list[str]:
    """Spell each call with what it gave, so that a difference names its call."""
    code, console = seen
    answers = console.decode("ascii").splitlines()
    assert len(answers) == len(calls), answers[-3:]
    return [f"{call}: {answer}" for call, answer in zip(calls, answers, strict=True)] + [f"exit code {code}"]


@pytest.mark.parametrize("table", TABLES)
def test_qemu_and_its_model_answer_every_call_of_a_table_alike(table: str, tmp_path: Path) -> None:
    calls, kernel = TABLES[table], tmp_path / "calls.bin"
    kernel.write_bytes(image(calls))

    assert lines(calls, on_model(kernel, 2)) == lines(calls, on_qemu(kernel, 2))


def test_calls_change_no_register_but_x0_and_only_smc_is_undefined(tmp_path: Path) -> None:
    calls, kernel = UNDEFINED_OR_NOT, tmp_path / "calls.bin"
    kernel.write_bytes(image(calls))

    code, console = on_model(kernel, 2)

    assert code == ExitCode.OK
    for call, line in zip(calls, console.decode("ascii").splitlines(), strict=True):
        x0, x1, x2, x3, rest, esr = (int(word, 16) for word in line.split())
        undefined = call.by[0][1].startswith("smc")
        assert (x1, x2, x3) == call.x[1:], call
        assert (rest, esr) == (UNTOUCHED, 0x0200_0000 if undefined else 0), call  # EC 0: unknown reason; IL: a 32-bit instruction
        assert not undefined or x0 == call.x[0], call


def test_over_smc_the_model_answers_what_it_answers_over_hvc(tmp_path: Path) -> None:
    by_hvc, by_smc = tmp_path / "hvc.bin", tmp_path / "smc.bin"
    by_hvc.write_bytes(image(FEATURES))
    by_smc.write_bytes(image([dataclasses.replace(call, by=smc()) for call in FEATURES]))

    assert on_model(by_smc, 2, conduit="smc") == on_model(by_hvc, 2)


@pytest.mark.parametrize(("fid", "expected"), [(SYSTEM_OFF, ExitCode.OK), (SYSTEM_RESET, ExitCode.RESET)])
def test_a_call_that_ends_the_machine_prints_nothing_more(fid: int, expected: ExitCode, tmp_path: Path) -> None:
    before, kernel = Call((0x8400_0000,)), tmp_path / "calls.bin"
    kernel.write_bytes(image([before, Call((fid,)), before]))

    (code, console), on_the_real_one = on_model(kernel, 1, no_reboot=True), on_qemu(kernel, 1, no_reboot=True)

    assert code == expected
    assert len(lines([before], (code, console))) == 2
    assert on_the_real_one == (0, console)  # -no-reboot: QEMU's exit code does not tell a reset from an end


# ---- the device tree


@pytest.mark.parametrize(
    ("node", "smp"),
    [(node, smp) for node in ("psci", "cpus", "memory@40000000") for smp in (1, 4, 8)],
)
def test_the_device_tree_says_of_psci_cpus_and_memory_what_qemus_says(node: str, smp: int, tmp_path: Path) -> None:
    blob, kernel = tmp_path / "qemu.dtb", elf_path("prober")
    machine = ["-M", f"virt,dumpdtb={blob}", "-cpu", "cortex-a57", "-smp", str(smp), "-nic", "none", "-display", "none"]
    subprocess.run([real.qemu(), *machine, "-kernel", str(kernel)], check=True, capture_output=True, timeout=TIMEOUT_S)
    setup = dataclasses.replace(make(Choices(host="qemu-7", mpidrs=tuple(range(smp)))), kernel=kernel)

    assert properties(Machine(setup).board.device_tree, node) == properties(blob.read_bytes(), node)


def properties(blob: bytes, path: str) -> dict[str, dict[str, list[Any]]]:
    """Return the properties of a node and of its children, without phandles, which are anybody's choice, and QEMU's cpu-map."""
    top = fdt.parse_dtb(blob).get_node(path)
    nodes = [top, *(node for node in top.nodes if node.name != "cpu-map")]
    return {node.name: {prop.name: list(getattr(prop, "data", [])) for prop in node.props if prop.name != "phandle"} for node in nodes}


# ---- where QEMU and its model differ

# A CPU that loops where it was started, so that it cannot have gone off again meanwhile.
LOOPS: Final = IMAGE_BASE + 0x448
INVALID, ALREADY_ON = (1 << 64) - 2, (1 << 64) - 4


@pytest.mark.parametrize(("asked", "second"), [(THEN_AFFINITY_INFO, 0), (TWICE, ALREADY_ON)], ids=["AFFINITY_INFO", "CPU_ON"])
def test_a_cpu_that_was_just_started_is_on(asked: Listing, second: int, tmp_path: Path) -> None:
    # QEMU sets power_state in work that it queues for the target (target/arm/arm-powerctl.c). Single-threaded, the caller is kicked out
    # for it before its next instruction; with a thread for each CPU it may come first, and the target is OFF to it.
    calls, kernel = [Call((0xC400_0003, 0x1, LOOPS, 0x5), asked)], tmp_path / "calls.bin"
    kernel.write_bytes(image(calls))

    for code, console in (on_qemu(kernel, 2), on_model(kernel, 2)):
        words = [int(word, 16) for word in console.split()]
        assert (code, len(words)) == (0, 6)
        assert (words[0], words[3]) == (second, 0)


# ---- the table's guest itself


@pytest.mark.parametrize("place", [*LISTINGS, *range(1, len(SNIPPETS) + 1)])
def test_the_machine_code_of_the_call_table_is_what_stands_beside_it(place: int) -> None:
    listing, address = (LISTINGS[place], place) if place in LISTINGS else (SNIPPETS[place - 1], 0x1100)
    code = b"".join(word.to_bytes(4, "little") for word, _ in listing)

    decoded = capstone.Cs(capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM).disasm_lite(code, address)

    assert [f"{name} {operands}".strip() for _, _, name, operands in decoded] == [text for _, text in listing]
