"""Debian's arm64 kernel, unmodified, to the end of its PSCI probing: what it prints and calls on every host, version and conduit.

`make kernels` fetches it. The same kernel on QEMU, and its own account of where it crashed, say whether we are right. That kernel probes
as drivers/firmware/psci/psci.c and drivers/firmware/smccc do since Linux 5.15: `predicted` below is that sequence.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import os
import re
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import fdt
import pytest

from emu.machine import Machine
from emu.outcome import ExitCode
from emu.report import Log
from emu.setup import Choices, make
from tests import kernels, real

ENOUGH_INSTRUCTIONS: Final = 40_000_000
TIMEOUT_S: Final = 60
# The first line after all of the probing.
AFTER_PROBING: Final = r"percpu: Embedded [^\n]*\n"
LAST_PSCI_LINE: Final = r"psci: SMC Calling Convention [^\n]*\n"
LINKED: Final = 0xFFFF_8000_0800_0000  # KIMAGE_VADDR of a 6.1 kernel with 48-bit addresses
LOADED: Final = 0x4000_0000
STDOUT_PATH: Final = "earlycon"  # without a value: the console is the device tree's stdout-path

VERSIONS: Final = ("0.1", "0.2", "1.0", "1.1", "1.2", "1.3", "none")
SMCCC: Final = {"spec": "1.3", "kvm-6.12": "1.1", "qemu-7": "1.0"}
PLACES: Final = (
    *(("spec", version) for version in VERSIONS),
    *(("kvm-6.12", version) for version in ("0.1", "0.2", "1.0", "1.1", "none")),
    *(("qemu-7", version) for version in ("1.1", "none")),
)
CONDUITS: Final = ("hvc", "smc")


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    """What can be seen of a run: its exit code, what it printed, and the -d log."""

    code: int
    console: str
    log: str

    @property
    def psci_lines(self) -> list[str]:
        return re.findall(r"\] (psci: .*?)\r?$", self.console, re.MULTILINE)

    @property
    def calls(self) -> list[str]:
        """Spell each call, in order, without its answer."""
        return re.findall(r"cpu0 (?:hvc|smc) +\S+ +(\S+\(.*?\)) = ", self.log)

    @property
    def offers_osi(self) -> bool:
        """Say whether the kernel was told of OS-initiated mode (PSCI_FEATURES of CPU_SUSPEND, bit 0)."""
        told = re.search(r"PSCI_FEATURES\(psci_func_id=CPU_SUSPEND\) = 0x([0-9a-f]+)", self.log)
        return told is not None and bool(int(told[1], 16) & 1)

    @property
    def places(self) -> list[str]:
        """Name the place of each call."""
        return re.findall(r"cpu0 (?:hvc|smc) +(\S+)", self.log)


def machine_of(
    host: str = "spec",
    version: str | None = None,
    conduit: str | None = None,
    *,
    until: str = AFTER_PROBING,
    append: str = STDOUT_PATH,
    dtb: Path | None = None,
    console: bytearray | None = None,
) -> Machine:
    setup = make(Choices(host=host, psci=version, conduit=conduit))
    pattern = re.compile(until.encode())
    setup = dataclasses.replace(setup, kernel=real.kernel(), append=append, dtb=dtb, until=pattern, max_insns=ENOUGH_INSTRUCTIONS)
    return Machine(setup, output=bytearray().extend if console is None else console.extend)


def boot(
    host: str = "spec", version: str | None = None, conduit: str | None = None, until: str = AFTER_PROBING, dtb: Path | None = None
) -> Run:
    """Start the kernel, and let it go on until it prints something."""
    console, lines = bytearray(), io.StringIO()
    machine = machine_of(host, version, conduit, until=until, dtb=dtb, console=console)
    Log(machine, frozenset({"psci"}), lines)
    outcome = machine.run()
    return Run(outcome.code, console.decode("ascii"), lines.getvalue())


probed = functools.cache(boot)


def lines_predicted(host: str, version: str, *, osi: bool = False) -> list[str]:
    if version == "none":
        return []
    if version == "0.1":
        return ["psci: probing for conduit method from DT.", "psci: Using PSCI v0.1 Function IDs from DT"]
    return [
        "psci: probing for conduit method from DT.",
        f"psci: PSCIv{version} detected in firmware.",
        "psci: Using standard PSCI v0.2 function IDs",
        "psci: Trusted OS migration not required",
        *([f"psci: SMC Calling Convention v{SMCCC[host]}"] if version != "0.2" else []),
        *(["psci: OSI mode supported."] if osi else []),
    ]


def calls_predicted(host: str, version: str, conduit: str, *, osi: bool) -> list[str]:
    if version in ("none", "0.1"):
        return []
    calls = ["PSCI_VERSION()", "MIGRATE_INFO_TYPE()"]
    if version == "0.2":
        return calls
    calls += ["PSCI_FEATURES(psci_func_id=SMCCC_VERSION)"]
    smccc = SMCCC[host]
    if smccc != "1.0":
        calls += ["SMCCC_VERSION()", "TRNG_VERSION()"]
    if smccc >= "1.2":
        calls += ["SMCCC_ARCH_FEATURES(arch_func_id=SMCCC_ARCH_SOC_ID)"]
        calls += [f"SMCCC_ARCH_SOC_ID(SoC_ID_type={kind})" for kind in ("0x0", "0x1")]
    calls += [f"PSCI_FEATURES(psci_func_id={name})" for name in ("CPU_SUSPEND", "SYSTEM_SUSPEND", "SYSTEM_RESET2")]
    if smccc != "1.0" and conduit == "hvc":
        calls += ["VENDOR_HYP_CALL_UID()", *(["VENDOR_HYP_FEATURES()"] if host == "kvm-6.12" else [])]
    return [*calls, *(["SET_SUSPEND_MODE(mode=0x0)"] if osi else [])]


everywhere = pytest.mark.parametrize(("host", "version"), PLACES, ids=lambda word: word)
both_conduits = pytest.mark.parametrize("conduit", CONDUITS)


@everywhere
@both_conduits
def test_the_kernel_prints_of_psci_what_the_version_and_the_host_make_it_print(host: str, version: str, conduit: str) -> None:
    kernel = probed(host, version, conduit)

    assert kernel.code == ExitCode.OK
    assert kernel.psci_lines == lines_predicted(host, version, osi=kernel.offers_osi)


@everywhere
@both_conduits
def test_the_kernel_calls_what_its_source_says_and_nothing_else(host: str, version: str, conduit: str) -> None:
    kernel = probed(host, version, conduit)

    assert kernel.calls == calls_predicted(host, version, conduit, osi=kernel.offers_osi)
    assert set(re.findall(r"cpu0 (hvc|smc) ", kernel.log)) <= {conduit}


@pytest.mark.parametrize(("host", "version"), [("spec", None), ("kvm-6.12", None), ("kvm-6.12", "0.2"), ("spec", "0.1")], ids=str)
def test_mitigations_are_asked_for_once_smccc_1_1_is_known(host: str, version: str | None) -> None:
    # On a Cortex-A57: arch/arm64/kernel/proton-pack.c.
    kernel = boot(host, version, until=r"CPU features: detected: ARM errat[^\n]*\n")

    asked = [call for call in kernel.calls if "WORKAROUND" in call]
    names = ["SMCCC_ARCH_WORKAROUND_1", "SMCCC_ARCH_WORKAROUND_2"]
    assert asked == ([f"SMCCC_ARCH_FEATURES(arch_func_id={name})" for name in names] if version is None else [])


def test_earlycon_without_a_value_is_the_uart_of_the_stdout_path() -> None:
    assert "earlycon: pl11 at MMIO 0x0000000009000000" in probed("spec", "1.3", "hvc").console


# ---- the end of a run, and its repetition


@pytest.mark.parametrize("line", lines_predicted("spec", "1.3"))
def test_until_ends_the_run_with_the_line_it_names(line: str) -> None:
    kernel = boot(until=re.escape(line) + r"[^\n]*\n")

    assert kernel.code == ExitCode.OK
    assert kernel.console.endswith(f"{line}\r\n")


def test_a_second_run_has_the_same_console_and_log_to_the_byte() -> None:
    first, second = (on_the_command_line() for _ in range(2))

    code, console, log = first
    assert code == 0
    assert console.endswith(b"psci: SMC Calling Convention v1.1\r\n")
    assert log.count(b"PSCI_VERSION() = 0x10001 (1.1)") == 1
    assert second == first


def on_the_command_line() -> tuple[int, bytes, bytes]:
    options = [
        "-kernel",
        str(real.kernel()),
        "-append",
        STDOUT_PATH,
        "-host",
        "kvm-6.12",
        "-d",
        "psci,int",
        "--until",
        f"console:{LAST_PSCI_LINE}",
    ]
    command = [sys.executable, "-m", "emu", "run", *options]
    done = subprocess.run(command, check=False, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT_S)
    return done.returncode, done.stdout, done.stderr


# ---- symbols


@both_conduits
def test_call_sites_are_told_by_the_kernels_own_names(conduit: str) -> None:
    kernel = probed("spec", "1.3", conduit)

    functions = [place.partition("+")[0] for place in kernel.places]

    assert functions == [
        "psci_0_2_get_version",
        "psci_migrate_info_type",
        *["psci_probe"] * 2,
        *["arm_smccc_version_init"] * 4,
        *["psci_probe"] * 3,
        *(["kvm_init_hyp_services"] if conduit == "hvc" else []),
        *["psci_set_osi_mode"] * kernel.offers_osi,
    ]


@pytest.mark.parametrize("seed", [None, 0x1234_5678_9ABC_DEF0], ids=["as linked", "KASLR"])
def test_a_place_is_named_as_the_kernel_itself_names_it(seed: int | None, tmp_path: Path) -> None:
    # No conduit is served: the first call is undefined, and the kernel tells where that was and how it came there.
    dtb = None if seed is None else seeded(tmp_path / "seeded.dtb", seed)
    kernel = boot(conduit="none", until=r"\] lr : [^\n]*\n", dtb=dtb)

    told = dict(re.findall(r"\] (pc|lr) : (\S+)/0x", kernel.console))

    # The call comes from a function that does nothing but make calls; its caller is what the log tells.
    assert told["pc"] == "__arm_smccc_hvc+0x4"
    assert told["lr"].startswith("__invoke_psci_fn_hvc+")
    assert [place.partition("+")[0] for place in kernel.places] == ["psci_0_2_get_version"]


def test_kaslr_moves_the_kernel_and_no_name(tmp_path: Path) -> None:
    places, addresses = [], []
    for dtb in (None, seeded(tmp_path / "seeded.dtb", 0x0FED_CBA9_8765_4321)):
        machine = machine_of(dtb=dtb)
        machine.run()
        found = [record.pc for record in machine.trap_path.recent()]
        addresses.append(found)
        places.append([machine.board.symbols.resolve(pc) for pc in found])

    moved = {there - here for here, there in zip(*addresses, strict=True)}
    assert len(moved) == 1
    assert moved != {0}
    assert places[0] == places[1]
    assert None not in places[0]


def test_an_address_from_before_the_mmu_was_on_has_the_same_name() -> None:
    machine = machine_of()
    machine.run()

    for record in machine.trap_path.recent():
        assert machine.board.symbols.resolve(record.pc - LINKED + LOADED) == machine.board.symbols.resolve(record.pc)


def seeded(path: Path, seed: int) -> Path:
    """Write our own device tree with a seed for KASLR in it."""
    tree = fdt.parse_dtb(machine_of(conduit="none").board.device_tree)
    tree.get_node("chosen").set_property("kaslr-seed", [seed >> 32, seed & 0xFFFF_FFFF])
    path.write_bytes(tree.to_dtb(version=17))
    return path


# ---- QEMU


def on_qemu(until: str, *options: str) -> str:
    """Let QEMU run the kernel until it has printed a line, and return what it has printed to there."""
    machine = ["-M", "virt", "-cpu", "cortex-a57", "-accel", "tcg,thread=single", "-nographic", "-nic", "none"]
    command = [real.qemu(), *machine, "-kernel", str(real.kernel()), "-append", STDOUT_PATH, *options]
    printed, pattern, deadline = b"", re.compile(until.encode()), time.monotonic() + TIMEOUT_S
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            assert process.stdout is not None
            while (match := pattern.search(printed)) is None:
                ready, _, _ = select.select([process.stdout], [], [], max(0, deadline - time.monotonic()))
                more = os.read(process.stdout.fileno(), 1 << 16) if ready else b""
                assert more, f"QEMU ended or hung after {printed[-200:]!r}"
                printed += more
        finally:
            process.kill()
    return printed[: match.end()].decode("ascii")


@pytest.mark.parametrize("tree", ["ours", "QEMU's"])
def test_on_qemu_the_kernel_prints_what_it_prints_on_its_model_with_the_same_device_tree(tree: str, tmp_path: Path) -> None:
    dtb = tmp_path / "tree.dtb"
    dtb.write_bytes(machine_of("qemu-7").board.device_tree if tree == "ours" else qemus_tree(tmp_path / "dump.dtb"))

    ours, theirs = boot("qemu-7", until=LAST_PSCI_LINE, dtb=dtb), on_qemu(LAST_PSCI_LINE, "-dtb", str(dtb))

    assert without_times(ours.console) == without_times(theirs)
    assert ours.psci_lines == Run(0, theirs, "").psci_lines == lines_predicted("qemu-7", "1.1")


def qemus_tree(path: Path) -> bytes:
    """Let QEMU write its device tree, and take from it the seeds and the megabyte of padding, with which the kernel refuses it."""
    machine = ["-M", f"virt,dumpdtb={path}", "-cpu", "cortex-a57", "-nic", "none", "-display", "none"]
    subprocess.run([real.qemu(), *machine, "-kernel", str(real.kernel())], check=True, capture_output=True, timeout=TIMEOUT_S)
    tree = fdt.parse_dtb(path.read_bytes())
    for seed in ("kaslr-seed", "rng-seed"):
        tree.get_node("chosen").remove_property(seed)
    return bytes(tree.to_dtb(version=17))


def without_times(console: str) -> list[str]:
    return re.sub(r"^\[ *\d+\.\d+\] ", "", console.replace("\r", ""), flags=re.MULTILINE).splitlines()


# ---- how the kernel got here


def test_the_newest_kernel_is_the_one_with_the_highest_number() -> None:
    names = [
        "linux-image-6.1.0-9-cloud-arm64",
        "linux-image-6.1.0-10-cloud-arm64",
        "linux-image-6.1.0-11-cloud-arm64-dbg",
        "linux-image-arm64",
    ]

    assert kernels.newest(names) == "linux-image-6.1.0-10-cloud-arm64"
    assert kernels.newest(names[2:]) is None


def test_a_file_that_is_not_what_was_downloaded_is_told(tmp_path: Path) -> None:
    (tmp_path / "Image").write_bytes(b"as downloaded")
    (tmp_path / "SHA256SUMS").write_text(f"{hashlib.sha256(b'as downloaded').hexdigest()}  Image\n", encoding="ascii")

    assert kernels.fetch(tmp_path) is False

    (tmp_path / "Image").write_bytes(b"changed")
    with pytest.raises(kernels.FetchError, match=r"Image is not what was downloaded; remove .* and fetch again"):
        kernels.fetch(tmp_path)


def test_a_folder_without_sums_is_told(tmp_path: Path) -> None:
    with pytest.raises(kernels.FetchError, match="is damaged"):
        kernels.fetch(tmp_path)
