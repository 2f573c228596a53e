"""Bad input on the command line: one sentence on standard error, its documented exit code, never a traceback."""

from __future__ import annotations

import gzip
import os
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from emu.cli import _COMMANDS, main
from emu.outcome import ExitCode
from tests.emu.programs import (
    TEXT,
    Bench,
    off,
)

Refuse = Callable[..., str]


@pytest.fixture
def kernel(tmp_path: Path) -> str:
    return str(Bench(tmp_path).file(off(), name="off.bin"))


@pytest.fixture
def refuse(capfd: pytest.CaptureFixture[str], kernel: str) -> Refuse:
    """Run with a good kernel and something wrong; return the sentence."""

    def refuse(*arguments: str, code: int = ExitCode.USAGE, command: tuple[str, ...] = ("run", "-kernel", kernel)) -> str:
        assert main([*command, *arguments]) == code
        out, err = capfd.readouterr()
        assert out == ""
        assert err.startswith("psci-emu: ")
        assert err.count("\n") == 1
        assert err.endswith("\n")
        assert "Traceback" not in err
        return err.removeprefix("psci-emu: ").strip()

    return refuse


UNKNOWN_FUNCTION: Final = "unknown function 'CPU_ONN'; did you mean CPU_ON?"
NOT_A_NUMBER: Final = "is not a number from 0 to 0xffffffffffffffff"

SENTENCES: Final[dict[tuple[str, ...], str]] = {
    ("-host", "kvm6.11"): "unknown host 'kvm6.11'; did you mean kvm-6.15?",
    ("-host", "kvm-9.99"): "host 'kvm-9.99' is not known; KVM/arm64 is known from kvm-3.11 to kvm-7.0",
    ("-host-cpu", "spectre-v5=mitigated"): "unknown CPU property 'spectre-v5=mitigated'; did you mean spectre-v4?",
    ("-host-cpu", "spectre-v2=cured"): "'spectre-v2=cured': spectre-v2 is one of unaffected, mitigated, vulnerable",
    ("-host-cpu", "ssbs=yes"): "'ssbs=yes': ssbs stands alone",
    ("-psci", "9"): "unknown PSCI version '9'; allowed: 0.1, 0.2, 1.0, 1.1, 1.2, 1.3, none",
    ("-psci", "1.4"): "unknown PSCI version '1.4'; allowed: 0.1, 0.2, 1.0, 1.1, 1.2, 1.3, none",
    ("-psci", "1.0", "-host", "qemu-7"): "host qemu-7 has no version register: PSCI 1.1 is all it offers, not 1.0",
    ("-psci", "1.0@call:CPU_ONN#1"): UNKNOWN_FUNCTION,
    ("-psci", "1.9@call:CPU_ON#1"): "unknown PSCI version '1.9'; allowed: 0.1, 0.2, 1.0, 1.1, 1.2, 1.3",
    ("-psci", "1.0@CPU_ON"): "'CPU_ON' is not call:NAME#N with N from 1",
    ("-smccc", "1.7"): "unknown SMCCC version '1.7'; allowed: 1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6",
    ("-smccc", "1.2", "-host", "kvm-6.12"): "host kvm-6.12 does not offer SMCCC 1.2; it offers: 1.1",
    ("-smccc", "1.0", "-host", "qemu-7"): "host qemu-7 does not offer SMCCC 1.0; it offers: none",
    ("-fwreg", "STD_BNAP=1"): "unknown firmware register 'STD_BNAP'; did you mean STD_BMAP?",
    ("-fwreg", "STD_BMAP"): "-fwreg 'STD_BMAP' is not NAME=VALUE; `psci-emu regs` lists the names",
    ("-fwreg", "STD_BMAP=2"): "EINVAL: STD_BMAP does not take 0x2; allowed: 0 to 0x1 (bit 0 TRNG_V1_0)",
    ("-fwreg", "KVM_REG_ARM_STD_BMAP=2"): "EINVAL: STD_BMAP does not take 0x2; allowed: 0 to 0x1 (bit 0 TRNG_V1_0)",
    ("-fwreg", "0x6030000000160000=2"): "EINVAL: STD_BMAP does not take 0x2; allowed: 0 to 0x1 (bit 0 TRNG_V1_0)",
    ("-fwreg", "0x4030000000140000=1"): "EINVAL: 0x4030000000140000 is not the ID of an AArch64 register",
    ("-fwreg", "0x6020000000140000=1"): "ENOENT: register 0x6020000000140000 has another size than the firmware registers' 64 bits",
    ("-conduit", "fax"): "unknown conduit 'fax'; known: both, hvc, none, smc",
    ("-smp", "0"): "-smp '0': cpus must be a number from 1 to 123",
    ("-smp", "124"): "-smp '124': at most 123 CPUs",
    ("-smp", "x"): "-smp 'x': cpus must be a number from 1 to 123",
    ("-smp", "-1"): "-smp '-1': cpus must be a number from 1 to 123",
    ("-smp", "cpus=4,clusters=3"): "-smp 'cpus=4,clusters=3': 4 CPUs do not divide into 3 clusters",
    ("-smp", "sockets=2"): "-smp 'sockets=2': 'sockets' is not offered; allowed: N or cpus=N,clusters=M",
    ("--mpidr", "0,0"): "--mpidr 0x0, 0x0: two CPUs have the same value",
    ("--mpidr", "0x1000000"): "--mpidr 0x1000000 has bits outside Aff3, Aff2, Aff1 and Aff0 (0xff00ffffff)",
    ("--mpidr", "0,1", "-smp", "3"): "--mpidr names 2 CPUs; -smp asks for 3",
    ("--mpidr", ",".join(map(str, range(124)))): "--mpidr names 124 CPUs; at most 123 are offered",
    ("-machine", "virt,gic-version=2", "-smp", "9"): "-machine virt,gic-version=2: a GICv2 has at most 8 CPUs, not 9",
    ("-m", "0"): "-m 0 is below what is allowed: 1 MiB to 255 GiB of RAM",
    ("-m", "999T"): "-m 999T is above what is allowed: 1 MiB to 255 GiB of RAM",
    ("-cpu", "cortex-a58"): "unknown CPU model 'cortex-a58'; did you mean cortex-a57?",
    ("-machine", "pc"): "-machine 'pc' is not offered; allowed: virt",
    (
        "-machine",
        "virt,gic-version=4",
    ): "-machine virt,gic-version=4 is not offered; allowed: gic-version=2|3, idle-states=on|off, dumpdtb=F",
    (
        "-machine",
        "virt,idle-states=on",
        "-dtb",
        "F",
    ): "-machine virt,idle-states=on is about our own device tree; with -dtb it is yours that says",
    (
        "-machine",
        "virt,idle-states=on",
        "-psci",
        "none",
    ): "-machine virt,idle-states=on lists states that PSCI enters, and -psci none has none",
    ("-serial", "tcp:1"): "-serial 'tcp:1' is not offered; allowed: stdio, file:F, none",
    ("-serial", "file:/nonexistent/x"): "-serial file:/nonexistent/x cannot be written: No such file or directory",
    ("-D", "/nonexistent/x", "-d", "psci"): "-D /nonexistent/x cannot be written: No such file or directory",
    ("-d", "psci,pcsi"): "unknown -d category 'pcsi'; did you mean psci?",
    ("-cap", "mte"): "unknown capability 'mte'; known: system-suspend",
    ("--until", "sunset"): "--until 'sunset' is neither call:NAME#N nor console:REGEX",
    ("--until", "call:CPU_ONN#1"): UNKNOWN_FUNCTION,
    ("--until", "call:CPU_ON#0"): "'call:CPU_ON#0' is not call:NAME#N with N from 1",
    ("--until", "console:("): "--until 'console:(': not a regular expression: missing ), unterminated subpattern at position 0",
    ("--max-insns", "0"): "--max-insns '0' is not a number from 1 to 0x7fffffffffffffff",
    ("--timeout", "0"): "--timeout '0' is not a virtual time such as 10s, 500ms or 20us",
    ("--timeout", "1h"): "--timeout '1h' is not a virtual time such as 10s, 500ms or 20us",
    ("--seed", "x"): f"--seed 'x' {NOT_A_NUMBER}",
    ("-accel", "kvm"): "-accel kvm is not offered; allowed: tcg, tcg,thread=single",
    ("-no-reboot=1",): "-no-reboot takes no value, not '1'",
    ("-bios", "/nonexistent"): "-kernel and -bios exclude each other; give one of them",
    ("stray",): "unrecognized arguments: stray",
    ("-m",): "-m needs a value",
}


@pytest.mark.parametrize("arguments", SENTENCES, ids=" ".join)
def test_a_wrong_option_is_one_sentence(refuse: Refuse, arguments: tuple[str, ...]) -> None:
    assert refuse(*arguments) == SENTENCES[arguments]


@pytest.mark.parametrize(
    ("host", "value", "errno"),
    [("kvm-6.12", "1.3", "EINVAL"), ("kvm-6.12", "1.2", "EINVAL"), ("spec", "0x99", "EINVAL"), ("qemu-7", "1.1", "ENOENT")],
)
def test_a_register_value_the_host_refuses_names_the_errno(refuse: Refuse, host: str, value: str, errno: str) -> None:
    assert refuse("-host", host, "-fwreg", f"PSCI_VERSION={value}").startswith(f"{errno}: ")


def test_a_version_the_host_refuses_names_the_errno(refuse: Refuse) -> None:
    assert refuse("-host", "kvm-6.12", "-psci", "1.3").startswith("EINVAL: PSCI_VERSION does not take 0x10003")


def test_a_version_change_the_host_refuses_is_refused_before_anything_runs(refuse: Refuse) -> None:
    assert refuse("-host", "kvm-6.12", "-psci", "1.3@call:SYSTEM_OFF#1").startswith("EINVAL: ")
    assert refuse("-psci", "0.1@call:SYSTEM_OFF#1").startswith("EINVAL: ")


@pytest.mark.parametrize("option", ["device", "drive", "enable-kvm", "s", "S", "snapshot", "netdev", "smbios", "chardev", "gdb", "loadvm"])
@pytest.mark.parametrize("dashes", ["-", "--"])
def test_an_option_we_do_not_have_is_refused_by_name(refuse: Refuse, option: str, dashes: str) -> None:
    sentence = refuse(dashes + option, "x")

    assert re.match(rf"option '?-{option}'? is not offered by psci-emu run", sentence)


def test_an_unknown_command_is_refused_with_the_nearest(refuse: Refuse) -> None:
    assert refuse(command=("gests",)) == "unknown command 'gests'; did you mean guests?"


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (("guests", "probr"), "unknown guest 'probr'; did you mean prober?"),
        (("demo", "version"), "unknown demo 'version'; did you mean versions?"),
        (("regs", "-psci", "7"), "unknown PSCI version '7'; allowed: 0.1, 0.2, 1.0, 1.1, 1.2, 1.3, none"),
        (("functions", "-host", "xenn"), "unknown host 'xenn'; did you mean xen?"),
        (("hosts", "spec"), "unrecognized arguments: spec"),
        (("run",), "nothing to run; give -kernel F or -bios F"),
        (("run", "-bios", "x", "-kernel", "y"), "-kernel and -bios exclude each other; give one of them"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_every_command_refuses_in_one_sentence(refuse: Refuse, command: tuple[str, ...], sentence: str) -> None:
    assert refuse(command=command).startswith(sentence)


def test_an_option_of_another_command_is_refused_by_name(refuse: Refuse) -> None:
    assert "-kernel" in refuse(command=("regs", "-kernel", "x"))


@pytest.mark.parametrize(
    "option",
    [
        "-psci",
        "-conduit",
        "-host",
        "-smccc",
        "-fwreg",
        "-cap",
        "-smp",
        "-mpidr",
        "-m",
        "-cpu",
        "-machine",
        "-serial",
        "-d",
        "-D",
        "-until",
        "-max-insns",
        "-timeout",
        "-seed",
        "-psci-node",
        "-accel",
    ],
)
def test_an_empty_value_is_refused(refuse: Refuse, option: str) -> None:
    refuse(option, "")


@pytest.mark.parametrize("option", ["--seed", "--max-insns", "--mpidr"])
def test_a_wrong_number_is_refused_with_its_option(refuse: Refuse, option: str) -> None:
    assert option.lstrip("-") in refuse(option, "zz")


def test_a_stated_option_without_its_value_is_told_to_need_one(refuse: Refuse) -> None:
    assert refuse("-accel") == "-accel needs a value"


@pytest.mark.parametrize("text", ["1.0,1.1", "none,1.0", "1.0,none"])
def test_two_versions_at_once_are_refused(refuse: Refuse, text: str) -> None:
    refuse("-psci", text)


NOT_UTF8: Final = os.fsdecode(b"\xff")


@pytest.mark.parametrize(
    "arguments",
    [("-host", NOT_UTF8), ("-fwreg", f"{NOT_UTF8}=1"), ("-psci", NOT_UTF8), ("-smp", NOT_UTF8), ("-m", NOT_UTF8), ("-" + NOT_UTF8, "x")],
    ids=str,
)
def test_bytes_that_are_no_text_are_refused_like_any_other(refuse: Refuse, arguments: tuple[str, ...]) -> None:
    refuse(*arguments)


def test_a_regular_expression_may_hold_any_byte(kernel: str) -> None:
    assert main(["run", "-kernel", kernel, "--until", f"console:{NOT_UTF8}"]) in (ExitCode.OK, ExitCode.CHECK_FAILED)


@pytest.mark.parametrize("digits", ["٣", "1_0", " 1", "1e3", "0b1", "--1", "+1", "1" * 5000], ids=range(8))
def test_only_plain_numbers_are_numbers(refuse: Refuse, digits: str) -> None:
    refuse("-smp", digits)
    refuse("--seed", digits)
    refuse("--max-insns", digits)
    refuse("-fwreg", f"STD_BMAP={digits}")


# ---- files


def elf(machine: int = 183, kind: int = 1) -> bytes:
    return struct.pack("<4sBBB9xHHIQQQIHHHHHH", b"\x7fELF", 2, kind, 1, 2, machine, 1, TEXT, 64, 0, 0, 64, 56, 0, 64, 0, 0)


FILES: Final = {
    "empty": (b"", "is empty"),
    "truncated ELF": (elf()[:50], "is a broken or truncated ELF"),
    "x86 ELF": (elf(62), "is an ELF for X86-64; allowed is AArch64"),
    "arm ELF": (elf(40), "is an ELF for ARM; allowed is AArch64"),
    "ELF without segments": (elf(), "has nothing to load"),
    "corrupt gzip": (gzip.compress(bytes(1000))[:10] + b"\xff" * 40, "is a corrupt gzip file"),
    "truncated gzip": (gzip.compress(os.urandom(1000))[:500], "is a truncated gzip file"),
    "big-endian Image": (struct.pack("<IIQQQ24x4sI", 0, 0, 0, 1 << 20, 1, b"ARM\x64", 0), "is a big-endian arm64 Image"),
    "oversized Image": (struct.pack("<IIQQQ24x4sI", 0, 0, 0, 1 << 40, 0, b"ARM\x64", 0), "which is not all within RAM"),
    "device tree": (b"\xd0\x0d\xfe\xed" + bytes(100), "is a device tree blob or FIT image"),
}


@pytest.mark.parametrize("name", FILES)
def test_an_image_that_cannot_be_used_is_an_input_error(refuse: Refuse, tmp_path: Path, name: str) -> None:
    content, what = FILES[name]
    path = tmp_path / "image"
    path.write_bytes(content)

    assert what in refuse(command=("run", "-kernel", str(path)), code=ExitCode.INPUT)


@pytest.mark.parametrize("option", ["-kernel", "-bios", "-initrd", "-dtb"])
@pytest.mark.parametrize("what", ["missing", "folder", "fifo"])
def test_a_path_that_is_no_file_is_an_input_error(refuse: Refuse, tmp_path: Path, kernel: str, option: str, what: str) -> None:
    path = tmp_path / what
    if what == "folder":
        path.mkdir()
    elif what == "fifo":
        os.mkfifo(path)
    command = ("run", option, str(path)) if option in ("-kernel", "-bios") else ("run", "-kernel", kernel, option, str(path))

    assert refuse(command=command, code=ExitCode.INPUT).startswith(str(path))


def test_an_image_larger_than_ram_is_an_input_error(refuse: Refuse, tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"\x1f" * (1 << 20))

    assert "is not all within RAM" in refuse(command=("run", "-kernel", str(path), "-m", "1"), code=ExitCode.INPUT)


def test_an_initrd_that_does_not_fit_is_an_input_error(refuse: Refuse, tmp_path: Path) -> None:
    path = tmp_path / "initrd"
    path.write_bytes(bytes(8 << 20))

    refuse("-initrd", str(path), "-m", "8", code=ExitCode.INPUT)
    refuse("-initrd", str(path), "-m", "4", code=ExitCode.INPUT)


DTB_MAGIC: Final = b"\xd0\x0d\xfe\xed"


@pytest.mark.parametrize("content", [b"x", DTB_MAGIC, DTB_MAGIC + b"\xff" * 36, DTB_MAGIC + bytes(100)], ids=range(4))
def test_a_broken_device_tree_is_an_input_error(refuse: Refuse, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "tree"
    path.write_bytes(content)

    assert refuse("-dtb", str(path), code=ExitCode.INPUT).startswith(f"{path} is not a usable device tree blob: ")


def test_a_device_tree_may_be_cut_anywhere(refuse: Refuse, tmp_path: Path, kernel: str) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert main(["run", "-kernel", kernel, "-machine", f"virt,dumpdtb={whole}"]) == 0

    for size in range(1, whole.stat().st_size, 97):
        cut.write_bytes(whole.read_bytes()[:size])
        refuse("-dtb", str(cut), code=ExitCode.INPUT)


# ---- output files

INPUTS: Final = ("-kernel", "-bios", "-initrd", "-dtb", "-symbols")
OUTPUTS: Final = {"-serial": "file:{}", "-D": "{}", "--trace": "{}", "-machine": "virt,dumpdtb={}"}


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("given", INPUTS)
@pytest.mark.parametrize("link", ["itself", "symbolic link", "hard link"])
def test_no_output_overwrites_an_input(refuse: Refuse, tmp_path: Path, kernel: str, given: str, output: str, link: str) -> None:
    precious, name = tmp_path / "precious", tmp_path / "precious"
    precious.write_bytes(b"years of work")
    if link != "itself":
        name = tmp_path / "link"
        (name.symlink_to if link == "symbolic link" else name.hardlink_to)(precious)
    kernel_too = () if given in ("-kernel", "-bios") else ("-kernel", kernel)

    sentence = refuse(given, str(precious), output, OUTPUTS[output].format(name), command=("run", *kernel_too))

    assert sentence.endswith(f" {name} would overwrite the file of {given}")
    assert precious.read_bytes() == b"years of work"


def test_no_output_overwrites_another(refuse: Refuse, tmp_path: Path) -> None:
    path = tmp_path / "new"

    assert refuse("-D", str(path), "--trace", str(path)) == f"--trace {path} would overwrite the file of -D"
    assert not path.exists()


def test_the_null_device_takes_every_output(kernel: str) -> None:
    assert main(["run", "-kernel", kernel, "-D", os.devnull, "--trace", os.devnull, "-serial", f"file:{os.devnull}"]) == 0


@pytest.mark.parametrize("group", ["snapshot"])
def test_a_command_of_two_words_is_refused_with_its_second_words(refuse: Refuse, group: str) -> None:
    offered = [name for name in _COMMANDS if name.startswith(f"{group} ")]

    assert refuse(command=(group,)) == f"{group} is no command by itself; offered: {', '.join(offered)}"
    assert refuse(command=(group, "frob")) == f"unknown command '{group} frob'; did you mean snapshot info?"


def test_a_group_of_commands_tells_its_own(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["snapshot", "--help"]) == ExitCode.OK

    out, err = capfd.readouterr()
    assert [line.split()[:2] for line in out.splitlines() if line.startswith("  ")] == [
        ["snapshot", word] for word in ("save", "load", "info", "diff")
    ]
    assert err == ""


@pytest.mark.parametrize("command", [("snapshot", "save", "x.snapshot"), ("migrate", "-from", "kvm-6.12", "-to", "kvm-6.12")])
@pytest.mark.parametrize("point", ["console:(", "tomorrow"])
def test_a_wrong_point_is_refused_under_the_name_of_its_option(refuse: Refuse, kernel: str, command: tuple[str, ...], point: str) -> None:
    assert refuse("-at", point, "-kernel", kernel, command=command).startswith(f"--at {point!r}")
