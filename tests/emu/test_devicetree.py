from __future__ import annotations

import json
import os
import re
import shutil
import struct
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Literal

import fdt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emu.blob import MAX_DTB_BYTES
from emu.devicetree import STANDARD_IDS, PsciIds, PsciNode, Spec, amend, build, psci_node
from emu.memory import GiB, Region, ram
from emu.words import parse_smp
from firmware.errors import InputError
from tests import real

IDS_0_1 = PsciIds(cpu_suspend=0x95C1_BA5E, cpu_off=0x95C1_BA5F, cpu_on=0x95C1_BA60, migrate=0x95C1_BA61)
ALL = ("arm,psci-1.0", "arm,psci-0.2", "arm,psci")
SPEC = Spec(ram(), (0, 1), "arm,cortex-a53", PsciNode(ALL, "hvc", STANDARD_IDS), bootargs="console=ttyAMA0")

dtc = pytest.mark.skipif(shutil.which("dtc") is None, reason="dtc is not installed")


def source(blob: bytes) -> str:
    """Give dtc's sorted source of a blob; a warning fails."""
    done = subprocess.run(["dtc", "-s", "-I", "dtb", "-O", "dts"], input=blob, capture_output=True, check=True)
    assert done.stderr == b""
    return done.stdout.decode()


def node(blob: bytes, name: str) -> str | None:
    """Give one innermost node of dtc's source, or None."""
    match = re.search(rf"\n\t+{re.escape(name)} {{\n([^{{}}]*)}};", source(blob))
    return match and re.sub(r"\s*\n\s*", "\n", match[1].strip())


# psci_node


@pytest.mark.parametrize(
    ("version", "strings", "expected"),
    [
        (None, None, None),
        ((0, 1), None, PsciNode(("arm,psci",), "hvc", IDS_0_1)),
        ((0, 2), None, PsciNode(("arm,psci-0.2", "arm,psci"), "hvc", STANDARD_IDS)),
        ((1, 0), None, PsciNode(ALL, "hvc", STANDARD_IDS)),
        ((1, 3), None, PsciNode(ALL, "hvc", STANDARD_IDS)),
        ((1, 1), ("arm,psci-0.2",), PsciNode(("arm,psci-0.2",), "hvc")),
        ((1, 1), ("arm,psci-0.2", "arm,psci-1.0"), PsciNode(("arm,psci-1.0", "arm,psci-0.2"), "hvc")),
        ((0, 2), ("arm,psci-1.0", "arm,psci-0.2"), PsciNode(("arm,psci-0.2",), "hvc")),
        ((0, 2), ("arm,psci-1.0",), PsciNode(("arm,psci-0.2", "arm,psci"), "hvc", STANDARD_IDS)),
        ((0, 1), ("arm,psci-0.2",), PsciNode(("arm,psci",), "hvc", IDS_0_1)),
    ],
)
def test_the_psci_node_follows_the_offered_version_and_the_hosts_strings(
    version: tuple[int, int] | None, strings: tuple[str, ...] | None, expected: PsciNode | None
) -> None:
    assert psci_node(version, "hvc", IDS_0_1, strings) == expected


@pytest.mark.parametrize("version", [(0, 1), (0, 2), (1, 0), (1, 3)])
def test_wherever_arm_psci_is_listed_cpu_on_and_cpu_off_are_there(version: tuple[int, int]) -> None:
    psci = psci_node(version, "smc", IDS_0_1)

    assert psci is not None
    assert "arm,psci" in psci.compatible
    assert psci.ids is not None


# build


def test_the_same_spec_gives_the_same_bytes_in_another_process() -> None:
    script = f"import sys; from emu.devicetree import *; from emu.memory import *; sys.stdout.buffer.write(build({SPEC!r}))"

    other = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout

    assert build(SPEC) == build(SPEC) == other


@dtc
@pytest.mark.skipif(shutil.which("qemu-system-aarch64") is None, reason="QEMU is not installed")
@pytest.mark.parametrize("gic", [2, 3])
def test_the_nodes_are_those_of_qemus_virt(tmp_path: Path, gic: Literal[2, 3]) -> None:
    dump = tmp_path / "virt.dtb"
    command = ["qemu-system-aarch64", "-M", f"virt,gic-version={gic},dumpdtb={dump}", "-cpu", "cortex-a53", "-smp", "2", "-m", "128"]
    subprocess.run([*command, "-display", "none", "-nic", "none"], check=True, capture_output=True)
    theirs, ours = dump.read_bytes(), build(replace(SPEC, gic=gic))

    assert node(ours, "psci") == node(theirs, "psci")
    assert node(ours, "timer") == node(theirs, "timer")
    assert node(ours, "memory@40000000") == node(theirs, "memory@40000000")
    assert node(ours, "apb-pclk") == node(theirs, "apb-pclk")
    assert node(ours, "serial@9000000") == node(theirs, "pl011@9000000")
    assert node(ours, "rtc@9010000") == node(theirs, "pl031@9010000")
    assert re.sub("phandle.*", "", node(ours, "cpu@1") or "") == re.sub("phandle.*", "", node(theirs, "cpu@1") or "")


@pytest.mark.parametrize(("version", "cpus"), [(2, 8), (3, 2), (3, 40)])
def test_the_interrupt_controller_and_the_cpus_are_those_of_qemus_virt(tmp_path: Path, version: Literal[2, 3], cpus: int) -> None:
    dump = tmp_path / "virt.dtb"
    command = [real.qemu(), "-M", f"virt,gic-version={version},dumpdtb={dump}", "-cpu", "cortex-a53", "-smp", str(cpus)]
    subprocess.run([*command, "-display", "none", "-nic", "none"], check=True, capture_output=True)
    theirs = fdt.parse_dtb(dump.read_bytes())
    ours = fdt.parse_dtb(build(replace(SPEC, gic=version, mpidrs=parse_smp(str(cpus)))))

    def words(tree: fdt.FDT, path: str) -> dict[str, object]:
        names = ("compatible", "reg", "interrupt-controller", "#interrupt-cells", "#redistributor-regions")
        properties = {each.name: each for each in tree.get_node(path).props}
        return {name: getattr(properties[name], "data", True) for name in names if name in properties}

    assert words(ours, "interrupt-controller@8000000") == words(theirs, "intc@8000000")
    # QEMU names its nodes by the CPUs' numbers.
    numbered = [words(theirs, f"cpus/cpu@{vcpu}")["reg"] for vcpu in range(cpus)]
    assert [words(ours, f"cpus/cpu@{mpidr:x}")["reg"] for mpidr in parse_smp(str(cpus))] == numbered


@dtc
def test_psci_0_1_is_described_by_its_own_string_and_the_hosts_ids() -> None:
    blob = build(replace(SPEC, psci=psci_node((0, 1), "smc", IDS_0_1)))

    assert (node(blob, "psci") or "").split("\n") == [
        'compatible = "arm,psci";',
        "cpu_off = <0x95c1ba5f>;",
        "cpu_on = <0x95c1ba60>;",
        "cpu_suspend = <0x95c1ba5e>;",
        'method = "smc";',
        "migrate = <0x95c1ba61>;",
    ]


@dtc
@pytest.mark.parametrize("mpidrs", [(0,), (0, 1)])
def test_idle_states_are_listed_where_they_are_asked_for(mpidrs: tuple[int, ...]) -> None:
    blob = build(replace(SPEC, mpidrs=mpidrs, idle_states=(0, 0x4000_0000)))

    for mpidr in mpidrs:
        assert (node(blob, f"cpu@{mpidr}") or "").split("\n")[:4] == [
            'compatible = "arm,cortex-a53";',
            "cpu-idle-states = <0x8002 0x8003>;",
            'device_type = "cpu";',
            'enable-method = "psci";',
        ]
    assert 'idle-states {\n\t\t\tentry-method = "psci";' in source(blob)
    assert (node(blob, "cpu-sleep") or "").split("\n") == [
        "arm,psci-suspend-param = <0x40000000>;",
        'compatible = "arm,idle-state";',
        "entry-latency-us = <0x64>;",
        "exit-latency-us = <0x64>;",
        "min-residency-us = <0x1f4>;",
        "phandle = <0x8003>;",
    ]
    assert "arm,psci-suspend-param = <0x00>;" in (node(blob, "cpu-retention") or "")
    assert "idle-states" not in source(build(replace(SPEC, mpidrs=mpidrs)))


@dtc
def test_without_firmware_there_is_neither_a_psci_node_nor_an_enable_method() -> None:
    assert "psci" not in source(build(replace(SPEC, psci=None)))


@dtc
def test_without_an_interrupt_controller_there_is_no_timer_and_interrupts_go_nowhere() -> None:
    text = source(build(SPEC))

    assert "timer" not in text
    assert "interrupt-controller" not in text
    assert "interrupts-extended = <0x00>;" in text
    assert "interrupts =" not in text


@dtc
def test_cpus_in_one_cluster_have_no_map_and_in_several_they_have() -> None:
    assert "cpu-map" not in source(build(replace(SPEC, mpidrs=(0, 1, 2, 3))))

    text = re.sub(r"\s+", "", source(build(replace(SPEC, mpidrs=(0, 1, 0x100)))))
    assert "cluster0{core0{cpu=<0x8100>;};core1{cpu=<0x8101>;};};cluster1{core0{cpu=<0x8102>;};};" in text


@dtc
def test_reg_has_two_cells_only_where_some_cpu_has_aff3() -> None:
    assert "reg = <0x10000>;" in (node(build(replace(SPEC, mpidrs=(0, 0x1_0000))), "cpu@10000") or "")
    assert "reg = <0x01 0x100>;" in (node(build(replace(SPEC, mpidrs=(0, 0x1_0000_0100))), "cpu@100000100") or "")


@dtc
def test_chosen_has_the_console_the_command_line_and_the_initrd() -> None:
    blob = build(replace(SPEC, initrd=Region(0x1_0000_0000, 0x64)))

    assert (node(blob, "chosen") or "").split("\n") == [
        'bootargs = "console=ttyAMA0";',
        "linux,initrd-end = <0x01 0x64>;",
        "linux,initrd-start = <0x01 0x00>;",
        'stdout-path = "/serial@9000000";',
    ]


@pytest.mark.parametrize("bootargs", ["grüße", "\udcff", "a" * 100_000, '"\\\n'])
def test_any_command_line_is_passed_on_as_its_bytes(bootargs: str) -> None:
    assert bootargs.encode("utf-8", "surrogateescape") + b"\0" in build(replace(SPEC, bootargs=bootargs))


SPECS = [
    replace(SPEC, gic=gic, mpidrs=mpidrs, psci=psci_node(version, "hvc", IDS_0_1, strings), initrd=initrd, idle_states=idle)
    for gic in (None, 2, 3)
    for mpidrs in ((0,), (0, 1, 0x100, 0x101), (0, 0x1_0000_0100))
    for version, strings in ((None, None), ((0, 1), None), ((0, 2), None), ((1, 3), None), ((1, 3), ("arm,psci-0.2",)))
    for initrd, idle in ((None, None), (Region(0x4400_0000, 100), None), (None, (0, 0x1_0000)))
]


@dtc
def test_dtc_finds_nothing_to_warn_about() -> None:
    for spec in SPECS[::7]:
        source(build(spec))


# amend

TINY = build(replace(SPEC, bootargs=""))


@dtc
def test_the_machines_own_tree_amended_is_the_machines_own_tree() -> None:
    for spec in (SPEC, replace(SPEC, gic=2), replace(SPEC, gic=3, idle_states=(0, 0x1_0000))):
        assert source(amend(build(spec), replace(spec, idle_states=None), psci_keep=False)) == source(build(spec))


@dtc
@pytest.mark.skipif(shutil.which("qemu-system-aarch64") is None, reason="QEMU is not installed")
def test_qemus_own_tree_loses_nothing_but_what_is_replaced(tmp_path: Path) -> None:
    dump = tmp_path / "virt.dtb"
    command = ["qemu-system-aarch64", "-M", f"virt,dumpdtb={dump}", "-cpu", "cortex-a53", "-smp", "2", "-m", "128"]
    subprocess.run([*command, "-display", "none", "-nic", "none"], check=True, capture_output=True)
    theirs = subprocess.run(["dtc", "-s", "-I", "dtb", "-O", "dts", dump], capture_output=True, check=True, text=True).stdout

    amended = amend(dump.read_bytes(), replace(SPEC, bootargs=""), psci_keep=False)

    ours = subprocess.run(["dtc", "-s", "-I", "dtb", "-O", "dts"], input=amended, capture_output=True, check=True).stdout.decode()
    assert ours == theirs


@dtc
def test_memory_chosen_and_psci_are_replaced_and_the_rest_is_the_users() -> None:
    user = compiled(
        """
        / { #address-cells = <2>; #size-cells = <2>; model = "mine";
            memory@80000000 { device_type = "memory"; reg = <0 0x80000000 0 0x1000>; };
            memory@90000000 { device_type = "memory"; reg = <0 0x90000000 0 0x1000>; };
            memory-controller { mine; };
            chosen { bootargs = "old"; mine = "kept"; };
            psci { compatible = "arm,psci"; method = "smc"; cpu_on = <1>; cpu_off = <2>; };
            firmware { psci { compatible = "arm,psci-1.0"; method = "smc"; }; optee { method = "smc"; }; };
        };
        """
    )

    blob = amend(user, replace(SPEC, initrd=Region(0x4400_0000, 4)), psci_keep=False)

    text = source(blob)
    assert node(blob, "memory@40000000") == node(build(SPEC), "memory@40000000")
    assert node(blob, "psci") == node(build(SPEC), "psci")
    assert text.count("memory@") == 1
    assert text.count("psci {") == 1
    assert "memory-controller {" in text
    assert "optee {" in text
    assert 'model = "mine";' in text
    assert (node(blob, "chosen") or "").split("\n") == [
        'bootargs = "console=ttyAMA0";',
        "linux,initrd-end = <0x00 0x44000004>;",
        "linux,initrd-start = <0x00 0x44000000>;",
        'mine = "kept";',
    ]


@dtc
def test_psci_keep_leaves_the_users_node_and_no_firmware_removes_it() -> None:
    user = compiled('/ { #address-cells = <2>; #size-cells = <2>; psci { compatible = "arm,psci-0.2"; method = "smc"; }; };')

    assert node(amend(user, SPEC, psci_keep=True), "psci") == 'compatible = "arm,psci-0.2";\nmethod = "smc";'
    assert node(amend(user, replace(SPEC, psci=None), psci_keep=False), "psci") is None


@dtc
def test_an_empty_command_line_leaves_the_users() -> None:
    user = compiled('/ { #address-cells = <2>; #size-cells = <2>; chosen { bootargs = "mine"; }; };')

    assert node(amend(user, replace(SPEC, bootargs=""), psci_keep=False), "chosen") == 'bootargs = "mine";'


@dtc
def test_cells_are_the_users() -> None:
    user = compiled("/ { #address-cells = <1>; #size-cells = <1>; };")

    assert "reg = <0x40000000 0x8000000>;" in (node(amend(user, SPEC, psci_keep=False), "memory@40000000") or "")
    with pytest.raises(InputError, match="one cell for what needs two"):
        amend(user, replace(SPEC, ram=ram(4 * GiB)), psci_keep=False)


@dtc
@pytest.mark.parametrize(
    "cells",
    [
        "#size-cells = <1>;",
        "#address-cells = <0>; #size-cells = <1>;",
        "#address-cells = <3>; #size-cells = <1>;",
        "#address-cells; #size-cells;",
    ],
)
def test_a_root_without_usable_cells_is_refused(cells: str) -> None:
    with pytest.raises(InputError, match=r"mine\.dtb: #address-cells of its root is .*; allowed are 1 and 2 cells"):
        amend(compiled(f"/ {{ {cells} }};"), SPEC, psci_keep=False, name="mine.dtb")


@dtc
def test_reserved_memory_and_the_boot_cpu_are_kept() -> None:
    user = compiled("/memreserve/ 0x40000000 0x1000; / { #address-cells = <2>; #size-cells = <2>; };", "-b", "7")

    amended = amend(user, SPEC, psci_keep=False)

    assert "/memreserve/\t0x0000000040000000 0x0000000000001000;" in source(amended)
    assert struct.unpack_from(">I", amended, 28) == (7,)


def compiled(text: str, *options: str) -> bytes:
    done = subprocess.run(
        ["dtc", "-q", "-f", "-I", "dts", "-O", "dtb", *options], input=("/dts-v1/;" + text).encode(), capture_output=True, check=True
    )
    return done.stdout


# hostile blobs

BEGIN, END_NODE, PROP, NOP, END = (struct.pack(">I", token) for token in (1, 2, 3, 4, 9))
ROOT = BEGIN + bytes(4)
CELLS = PROP + struct.pack(">III", 4, 0, 2) + PROP + struct.pack(">III", 4, 15, 2)
STRINGS = b"#address-cells\0#size-cells\0reg\0"
REG = 27


def blob(structure: bytes, strings: bytes = STRINGS, version: int = 17, reserved: bytes = bytes(16)) -> bytes:
    """Write a blob of that structure block."""
    struct_at = 40 + len(reserved)
    strings_at = struct_at + len(structure)
    sizes = (strings_at + len(strings), struct_at, strings_at, 40, version, 16, 0, len(strings), len(structure))
    return struct.pack(">10I", 0xD00D_FEED, *sizes) + reserved + structure + strings


def prop(size_bytes: int, value: bytes, name_at: int = REG) -> bytes:
    return PROP + struct.pack(">II", size_bytes, name_at) + value


def child(name: bytes, content: bytes = b"") -> bytes:
    return BEGIN + name + bytes(4 - len(name) % 4) + content + END_NODE


def refusal(content: bytes) -> str:
    with pytest.raises(InputError) as caught:
        amend(content, SPEC, psci_keep=False, name="mine.dtb")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_nops_as_qemu_leaves_them_are_skipped() -> None:
    plain = blob(ROOT + CELLS + END_NODE + END)

    assert amend(blob(NOP + ROOT + NOP + CELLS + NOP + END_NODE + NOP + END), SPEC, psci_keep=False) == amend(plain, SPEC, psci_keep=False)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it has 0 bytes, and a header alone has 40"),
        (b"\xd0\x0d\xfe\xed", "it has 4 bytes, and a header alone has 40"),
        (b"/dts-v1/;" + bytes(40), "it begins with 0x2f647473, not 0xd00dfeed"),
        (bytes(MAX_DTB_BYTES + 1), "it has 2097153 bytes; allowed are 2097152, as in Linux"),
        (blob(ROOT + CELLS + END_NODE + END, version=16), "its version is 16, compatible with 16; 17 is read"),
        (blob(ROOT + CELLS + END_NODE + END)[:-1], "its header promises more than its 134 bytes"),
        (blob(END), "a token 0x9 stands where it may not"),
        (blob(END_NODE), "a token 0x2 stands where it may not"),
        (blob(prop(0, b"")), "a token 0x3 stands where it may not"),
        (blob(ROOT + END_NODE + ROOT + END_NODE + END), "a token 0x1 stands where it may not"),
        (blob(ROOT + END), "a token 0x9 stands where it may not"),
        (blob(ROOT + b"\0\0\0\x07"), "a token 0x7 stands where it may not"),
        (blob(ROOT + CELLS + END_NODE), "it ends in the middle of its structure"),
        (blob(ROOT + PROP), "it ends in the middle of its structure"),
        (blob(ROOT + prop(0xFFFF_FFFF, b"")), "a property of 4294967295 bytes runs past its end"),
        (blob(ROOT + prop(0, b"", 0xFFFF_FFFF)), "a name in it does not end"),
        (blob(BEGIN + b"abcd"), "a name in it does not end"),
        (blob(ROOT + child(b"a/b")), "'a/b' is no name for a node or property"),
        (blob(ROOT + child(b"")), "'' is no name for a node or property"),
        (blob(ROOT + child(b"\xff\n")), "'\\xff\\n' is no name for a node or property"),
        (blob(ROOT + prop(0, b"") + prop(0, b"")), "the name 'reg' is used twice in one node"),
        (blob(ROOT + child(b"a") + child(b"a")), "the name 'a' is used twice in one node"),
        (blob(ROOT + (BEGIN + b"a\0\0\0") * 100), "its nodes are more than 64 deep"),
        (blob(ROOT + NOP * 131_072), "it has more than 131072 tokens"),
        (blob(ROOT, reserved=b"\1" * 16 * 1025 + bytes(16)), "it reserves more than 1024 regions of memory"),
        (blob(ROOT + b"".join(prop(0, b"", 2 * at) for at in range(8193)), b"x\0" * 9000), "the name 'x' is used twice in one node"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_a_broken_blob_is_refused_in_one_sentence(content: bytes, why: str) -> None:
    assert refusal(content) == f"mine.dtb is not a usable device tree blob: {why}"


def names(count: int) -> bytes:
    return b"".join(b"%05d\0" % number for number in range(count))


def test_too_many_property_names_are_refused() -> None:
    each = b"".join(child(b"n%d" % number, prop(0, b"", 6 * number)) for number in range(22_000))

    assert refusal(blob(ROOT + each + END_NODE + END, names(22_000))).endswith("its property names have more than 131072 bytes")


@pytest.mark.parametrize(
    "structure",
    [
        b"".join(prop(100, bytes(100), 27 + 6 * number) for number in range(8000)),
        b"".join(child(b"%05d" % number) for number in range(60_000)),
        b"".join(child(b"%05d" % number, prop(1, bytes(4))) for number in range(40_000)),
    ],
    ids=["properties", "nodes", "nodes with a property"],
)
def test_the_largest_blobs_are_amended_within_seconds(structure: bytes) -> None:
    content = blob(ROOT + CELLS + structure + END_NODE + END, STRINGS[:27] + names(8000))
    started = time.process_time()

    amended = amend(content, SPEC, psci_keep=False)

    assert len(amended) > len(structure)
    assert time.process_time() - started < 20


@given(st.integers(0, len(TINY) - 1))
def test_a_truncated_blob_is_refused(size_bytes: int) -> None:
    assert refusal(TINY[:size_bytes])


@given(st.lists(st.tuples(st.integers(0, len(TINY) - 1), st.integers(0, 255)), min_size=1, max_size=8))
def test_a_damaged_blob_is_amended_or_refused_and_never_amended_into_a_broken_one(damage: list[tuple[int, int]]) -> None:
    content = bytearray(TINY)
    for position, value in damage:
        content[position] = value
    try:
        amended = amend(bytes(content), SPEC, psci_keep=False)
    except InputError:
        return
    assert amend(amended, SPEC, psci_keep=False)


# the kernel's bindings


def bindings() -> Path | None:
    """Find the processed schema that `make bindings` leaves."""
    path = Path(os.environ.get("PSCI_EMU_DT_SCHEMA", Path(__file__).parents[2] / ".cache" / "dt-schema.json"))
    return path if path.is_file() else None


@pytest.mark.nightly  # needs dtschema and Linux's bindings, a download of 140 MB processed for half a minute
def test_the_bindings_of_linux_approve_every_tree(tmp_path: Path) -> None:
    schema = bindings()
    validate = shutil.which("dt-validate") or shutil.which("dt-validate", path=Path(sys.executable).parent)
    if schema is None or validate is None:
        pytest.skip("needs dtschema, and the processed bindings in .cache/dt-schema.json or where PSCI_EMU_DT_SCHEMA says")
    paths = []
    for number, spec in enumerate(SPECS):
        paths.append(tmp_path / f"{number}.dtb")
        paths[-1].write_bytes(build(spec))
    json.loads(schema.read_text())

    done = subprocess.run([validate, "--show-unmatched", "--schema", schema, *paths], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
