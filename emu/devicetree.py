"""The device tree a guest is handed: built as QEMU's `virt` does for what this machine has, or the user's own, amended.

The tree lists what the machine has. Without an interrupt controller there is no timer node, and the UART's one interrupt is
`interrupts-extended = <0>`, a line connected to nothing: the binding of arm,pl011 demands the property. The RTC then has none.
Node names follow the bindings (`serial@`, `rtc@`, `interrupt-controller@`), where QEMU 7.2 writes `pl011@`, `pl031@` and `intc@`.
No seeds: the same spec gives the same bytes.
"""
# fdt has no annotations at all.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import fdt

from emu.blob import parse, write
from emu.memory import GICC, GICD, GICR, RTC, UART, Region
from firmware.errors import InputError

Method = Literal["hvc", "smc"]


class PsciIds(NamedTuple):
    """The function IDs a `psci` node lists, which only users of its "arm,psci" string read."""

    cpu_on: int
    cpu_off: int
    cpu_suspend: int | None = None
    migrate: int | None = None


class PsciNode(NamedTuple):
    """What the `psci` node says."""

    compatible: tuple[str, ...]
    method: Method
    ids: PsciIds | None = None


# What QEMU lists beside "arm,psci" from 0.2 on, CPU_OFF being SMC32 only.
STANDARD_IDS: Final = PsciIds(cpu_suspend=0xC400_0001, cpu_off=0x8400_0002, cpu_on=0xC400_0003, migrate=0xC400_0005)


def psci_node(
    version: tuple[int, int] | None, method: Method, ids: PsciIds | None, strings: Sequence[str] | None = None
) -> PsciNode | None:
    """Give the node for an offered PSCI version; None (no firmware) has none.

    ids are those of PSCI 0.1, used at version 0.1 only. strings, a host's column, narrows what the version allows; where it
    leaves nothing, as at 0.1 on a host that never lists "arm,psci", the version's own strings stand.
    """
    if version is None:
        return None
    if version < (0, 2):
        assert ids is not None, "a host that offers PSCI 0.1 has 0.1 function IDs"
        return PsciNode(("arm,psci",), method, ids)
    allowed = ("arm,psci-0.2", "arm,psci") if version < (1, 0) else ("arm,psci-1.0", "arm,psci-0.2", "arm,psci")
    compatible = tuple(string for string in allowed if strings is None or string in strings) or allowed
    return PsciNode(compatible, method, STANDARD_IDS if "arm,psci" in compatible else None)


@dataclass(frozen=True, slots=True)
class Spec:
    """What the tree describes.

    mpidrs       affinity values, the boot CPU's first, without MPIDR's bit 31
    idle_states  CPU_SUSPEND's power_state for standby and for powerdown, where such states are to be listed
    """

    ram: Region
    mpidrs: tuple[int, ...]
    cpu: str
    psci: PsciNode | None
    bootargs: str = ""
    initrd: Region | None = None
    gic: Literal[2, 3] | None = None
    idle_states: tuple[int, int] | None = None


_PHANDLE_CLOCK: Final = 0x8000
_PHANDLE_GIC: Final = 0x8001
_PHANDLE_IDLE_STATE: Final = 0x8002
_PHANDLE_CPU: Final = 0x8100

_UART_PATH: Final = f"serial@{UART.base:x}"
_UART_SPI: Final = 1
_RTC_SPI: Final = 2
_CLOCK_HZ: Final = 24_000_000

# In microseconds of our making, so that Linux's governors choose both: to enter, to leave, and at least to stay.
_IDLE_STATES: Final = (("cpu-retention", (10, 10, 50)), ("cpu-sleep", (100, 100, 500)))

_SPI, _PPI = 0, 1
_LEVEL_HIGH: Final = 4
_TIMER_PPIS: Final = (13, 14, 11, 10)  # secure physical, non-secure physical, virtual, hypervisor


def build(spec: Spec) -> bytes:
    """Write the machine's own tree."""
    tree = fdt.FDT()
    root = tree.root
    _set_strings(root, "compatible", "linux,dummy-virt")
    _set_strings(root, "model", "linux,dummy-virt")
    _set_words(root, "#address-cells", 2)
    _set_words(root, "#size-cells", 2)
    if spec.gic is not None:
        _set_words(root, "interrupt-parent", _PHANDLE_GIC)
    root.append(_memory(spec.ram, 2, 2))
    root.append(_cpus(spec))
    if spec.psci is not None:
        root.append(_psci(spec.psci))
    if spec.gic is not None:
        root.append(_gic(spec.gic))
        root.append(_timer(spec))
    root.append(_clock())
    root.append(_uart(spec.gic))
    root.append(_rtc(spec.gic))
    chosen = fdt.Node("chosen")
    _set_strings(chosen, "stdout-path", f"/{_UART_PATH}")
    root.append(chosen)
    _choose(chosen, spec, 2)
    return write(tree, spec.mpidrs[0] & 0xFFFF_FFFF)


def amend(user_dtb: bytes, spec: Spec, psci_keep: bool, name: str = "device tree") -> bytes:
    """Fit the user's tree to this run as QEMU does, or raise InputError, naming it by name.

    The memory nodes, /chosen's bootargs and initrd, and /psci are replaced; the rest is the user's, CPUs included.
    As its IDs and method would not match ours, /firmware/psci goes with /psci (QEMU leaves it). psci_keep leaves both.
    """
    tree = parse(user_dtb, name)
    root = tree.root
    address_cells = _cells(root, "#address-cells", name)
    size_cells = _cells(root, "#size-cells", name)
    for cells, last in ((address_cells, spec.ram.end - 1), (size_cells, spec.ram.size_bytes)):
        if last >> 32 * cells:
            raise InputError(f"{name}: its root has one cell for what needs two ({last:#x}); use a smaller -m, or two cells")
    for node in [node for node in root.nodes if node.name.partition("@")[0] == "memory"]:
        root.remove_subnode(node.name)
    root.append(_memory(spec.ram, address_cells, size_cells))
    chosen = root.get_subnode("chosen")
    if chosen is None:
        chosen = fdt.Node("chosen")
        root.append(chosen)
    _choose(chosen, spec, address_cells)
    if not psci_keep:
        root.remove_subnode("psci")
        firmware = root.get_subnode("firmware")
        if firmware is not None:
            firmware.remove_subnode("psci")
        if spec.psci is not None:
            root.append(_psci(spec.psci))
    return write(tree, tree.header.boot_cpuid_phys)


def _memory(ram: Region, address_cells: int, size_cells: int) -> fdt.Node:
    node = fdt.Node(f"memory@{ram.base:x}")
    _set_strings(node, "device_type", "memory")
    _set_words(node, "reg", *_wide(ram.base, address_cells), *_wide(ram.size_bytes, size_cells))
    return node


def _cpus(spec: Spec) -> fdt.Node:
    cpus = fdt.Node("cpus")
    # Aff3 is MPIDR bits 39:32: one cell does for all CPUs that have none.
    cells = 2 if any(mpidr >> 32 for mpidr in spec.mpidrs) else 1
    _set_words(cpus, "#address-cells", cells)
    _set_words(cpus, "#size-cells", 0)
    clusters: dict[int, list[int]] = {}
    for vcpu, mpidr in enumerate(spec.mpidrs):
        clusters.setdefault(mpidr >> 8, []).append(vcpu)
    if len(clusters) > 1:
        cpus.append(_cpu_map(list(clusters.values())))
    for vcpu, mpidr in enumerate(spec.mpidrs):
        cpu = fdt.Node(f"cpu@{mpidr:x}")
        _set_strings(cpu, "device_type", "cpu")
        _set_strings(cpu, "compatible", spec.cpu)
        _set_words(cpu, "reg", *_wide(mpidr, cells))
        idles = spec.psci is not None and spec.idle_states is not None
        # A single CPU is enabled already, and QEMU says nothing either; but Linux idles by the method that enables.
        if idles or (spec.psci is not None and len(spec.mpidrs) > 1):
            _set_strings(cpu, "enable-method", "psci")
        if idles:
            _set_words(cpu, "cpu-idle-states", *(_PHANDLE_IDLE_STATE + number for number in range(len(_IDLE_STATES))))
        _set_words(cpu, "phandle", _PHANDLE_CPU + vcpu)
        cpus.append(cpu)
    if spec.psci is not None and spec.idle_states is not None:
        cpus.append(_idle_states(spec.idle_states))
    return cpus


def _idle_states(power_states: tuple[int, int]) -> fdt.Node:
    # Without `local-timer-stop`: what wakes a CPU is its timer, which goes on.
    states = fdt.Node("idle-states")
    _set_strings(states, "entry-method", "psci")
    for number, ((name, latencies), power_state) in enumerate(zip(_IDLE_STATES, power_states, strict=True)):
        state = fdt.Node(name)
        _set_strings(state, "compatible", "arm,idle-state")
        _set_words(state, "arm,psci-suspend-param", power_state)
        for what, microseconds in zip(("entry-latency", "exit-latency", "min-residency"), latencies, strict=True):
            _set_words(state, f"{what}-us", microseconds)
        _set_words(state, "phandle", _PHANDLE_IDLE_STATE + number)
        states.append(state)
    return states


def _cpu_map(clusters: list[list[int]]) -> fdt.Node:
    socket = fdt.Node("socket0")
    for number, vcpus in enumerate(clusters):
        cluster = fdt.Node(f"cluster{number}")
        for position, vcpu in enumerate(vcpus):
            core = fdt.Node(f"core{position}")
            _set_words(core, "cpu", _PHANDLE_CPU + vcpu)
            cluster.append(core)
        socket.append(cluster)
    return fdt.Node("cpu-map", socket)


def _psci(psci: PsciNode) -> fdt.Node:
    node = fdt.Node("psci")
    _set_strings(node, "compatible", *psci.compatible)
    _set_strings(node, "method", psci.method)
    if psci.ids is not None:
        ids = psci.ids
        for name, fid in (("cpu_suspend", ids.cpu_suspend), ("cpu_off", ids.cpu_off), ("cpu_on", ids.cpu_on), ("migrate", ids.migrate)):
            if fid is not None:
                _set_words(node, name, fid)
    return node


def _gic(version: Literal[2, 3]) -> fdt.Node:
    node = fdt.Node(f"interrupt-controller@{GICD.base:x}")
    _set_strings(node, "compatible", "arm,cortex-a15-gic" if version == 2 else "arm,gic-v3")
    frames = (GICD, GICC if version == 2 else GICR)
    _set_words(node, "reg", *(word for frame in frames for number in (frame.base, frame.size_bytes) for word in _wide(number, 2)))
    if version == 3:
        _set_words(node, "#redistributor-regions", 1)
    node.append(fdt.Property("interrupt-controller"))
    _set_words(node, "#interrupt-cells", 3)
    _set_words(node, "#address-cells", 0)
    _set_words(node, "phandle", _PHANDLE_GIC)
    return node


def _timer(spec: Spec) -> fdt.Node:
    # GICv2's binding puts the CPUs a PPI goes to into bits 15:8.
    cpu_mask = (1 << min(len(spec.mpidrs), 8)) - 1 << 8 if spec.gic == 2 else 0
    node = fdt.Node("timer")
    _set_strings(node, "compatible", "arm,armv8-timer", "arm,armv7-timer")
    node.append(fdt.Property("always-on"))
    _set_words(node, "interrupts", *(word for ppi in _TIMER_PPIS for word in (_PPI, ppi, cpu_mask | _LEVEL_HIGH)))
    return node


def _clock() -> fdt.Node:
    node = fdt.Node("apb-pclk")
    _set_strings(node, "compatible", "fixed-clock")
    _set_words(node, "#clock-cells", 0)
    _set_words(node, "clock-frequency", _CLOCK_HZ)
    _set_strings(node, "clock-output-names", "clk24mhz")
    _set_words(node, "phandle", _PHANDLE_CLOCK)
    return node


def _uart(gic: int | None) -> fdt.Node:
    node = fdt.Node(_UART_PATH)
    _set_strings(node, "compatible", "arm,pl011", "arm,primecell")
    _set_words(node, "reg", *_wide(UART.base, 2), *_wide(UART.size_bytes, 2))
    if gic is None:
        _set_words(node, "interrupts-extended", 0)
    else:
        _set_words(node, "interrupts", _SPI, _UART_SPI, _LEVEL_HIGH)
    _set_words(node, "clocks", _PHANDLE_CLOCK, _PHANDLE_CLOCK)
    _set_strings(node, "clock-names", "uartclk", "apb_pclk")
    return node


def _rtc(gic: int | None) -> fdt.Node:
    node = fdt.Node(f"rtc@{RTC.base:x}")
    _set_strings(node, "compatible", "arm,pl031", "arm,primecell")
    _set_words(node, "reg", *_wide(RTC.base, 2), *_wide(RTC.size_bytes, 2))
    if gic is not None:
        _set_words(node, "interrupts", _SPI, _RTC_SPI, _LEVEL_HIGH)
    _set_words(node, "clocks", _PHANDLE_CLOCK)
    _set_strings(node, "clock-names", "apb_pclk")
    return node


def _choose(chosen: fdt.Node, spec: Spec, address_cells: int) -> None:
    if spec.bootargs:
        # As bytes: the library's strings are ASCII only, a command line need not be.
        chosen.set_property("bootargs", spec.bootargs.encode("utf-8", "surrogateescape") + b"\0")
    if spec.initrd is not None:
        _set_words(chosen, "linux,initrd-start", *_wide(spec.initrd.base, address_cells))
        _set_words(chosen, "linux,initrd-end", *_wide(spec.initrd.end, address_cells))


def _set_words(node: fdt.Node, name: str, *words: int) -> None:
    node.set_property(name, list(words))


def _set_strings(node: fdt.Node, name: str, *strings: str) -> None:
    node.set_property(name, list(strings))


def _wide(value: int, cells: int) -> list[int]:
    return [value >> 32 * cell & 0xFFFF_FFFF for cell in reversed(range(cells))]


def _cells(root: fdt.Node, name: str, label: str) -> int:
    cells = root.get_property(name)
    value = cells.value if isinstance(cells, fdt.PropWords) and len(cells) == 1 else None
    if value not in (1, 2):
        raise InputError(f"{label}: {name} of its root is {'missing' if cells is None else 'neither 1 nor 2'}; allowed are 1 and 2 cells")
    return int(value)
