"""A run as a rule sees it: the calls in order, the device tree, what was printed and how it ended. Nothing here runs anything."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from emu import blob
from emu.outcome import WELL
from firmware.abi import AFFINITY_MASK, FAST_CALL, MASK32, OWNER_MASK, OWNER_SHIFT, SMC64, Version
from firmware.faults import as_code

_STANDARD_SECURE: Final = 4
_PSCI_NUMBERS: Final = 0x20
_DEEPEST: Final = 4  # /firmware/psci and what a user's own tree may have


class Site(NamedTuple):
    """Where a call comes from.

    address      where the caller is, or the address it was called to return to
    name         symbol+offset, None where there is no symbol
    instruction  the caller's own instruction, of which DWARF may know the line
    """

    address: int
    name: str | None
    instruction: int

    def __str__(self) -> str:
        return self.name or f"{self.address:#x}"


class Call(NamedTuple):
    """A call and its reply.

    function  its name, None for an ID without one
    x         x0 to x3 of the caller
    returned  x0 of the reply, None where the call does not return to the caller
    words     how it reads: the call and its result
    """

    vcpu: int
    conduit: str
    imm: int
    x: tuple[int, int, int, int]
    function: str | None
    returned: int | None
    site: Site
    words: str

    @property
    def fid(self) -> int:
        return self.x[0] & MASK32

    @property
    def code(self) -> int | None:
        """The result as the signed 32-bit number that a return code is."""
        return None if self.returned is None else as_code(self.returned)

    @property
    def number(self) -> int | None:
        """The function number within PSCI, None for other services."""
        is_psci = self.fid & FAST_CALL and self.fid >> OWNER_SHIFT & OWNER_MASK == _STANDARD_SECURE
        number = self.fid & ~(FAST_CALL | SMC64 | _STANDARD_SECURE << OWNER_SHIFT)
        return number if is_psci and number < _PSCI_NUMBERS else None


class Tree(NamedTuple):
    """What the device tree says: the psci node's strings, conduit and 0.1 IDs, and every CPU's MPIDR. No strings: no psci node."""

    compatible: tuple[str, ...] = ()
    method: str | None = None
    ids: frozenset[int] = frozenset()
    mpidrs: tuple[int, ...] = ()

    @property
    def promises_1_0(self) -> bool:
        """Whether the strings alone tell that there is PSCI 1.0."""
        return "arm,psci-1.0" in self.compatible

    @property
    def is_0_1_alone(self) -> bool:
        return self.compatible == ("arm,psci",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """One run of a guest.

    firmware  what it ran on, in a user's words
    cpus_up   how many vCPUs ran
    """

    firmware: str
    tree: Tree
    calls: tuple[Call, ...]
    cpus_up: int
    console: str
    code: int
    sentence: str

    @property
    def failed(self) -> bool:
        """Whether the guest, and not its host's VMM, came to grief."""
        return self.code not in WELL

    @property
    def outcome(self) -> tuple[bool, int]:
        """How it went, the better the less."""
        return self.failed, -self.cpus_up

    def of(self, *functions: str) -> Iterator[Call]:
        """Yield the calls of these functions."""
        return (call for call in self.calls if call.function in functions)

    def has(self, function: str) -> bool:
        return any(self.of(function))


def version_of(call: Call) -> Version | None:
    """Return the version that a call answered, None where the answer is an error or none."""
    code = call.code
    return None if code is None or code < 0 else Version.from_word(code)


# ---- the device tree


def read_tree(dtb: bytes, label: str) -> Tree:
    """Read what rules ask of a device tree; raise InputError, naming it by label, for a blob that is not intact."""
    if not dtb:
        return Tree()
    root = blob.parse(dtb, label).root
    psci = next((node for node in _nodes(root) if _is_psci(node)), None)
    mpidrs = tuple(_mpidrs(root))
    if psci is None:
        return Tree(mpidrs=mpidrs)
    method = _strings(psci, "method")
    ids = (int.from_bytes(_bytes(psci, name), "big") for name in ("cpu_on", "cpu_off", "cpu_suspend", "migrate"))
    return Tree(_strings(psci, "compatible"), method[0] if method else None, frozenset(filter(None, ids)), mpidrs)


def _nodes(node: Any, depth: int = 0) -> Iterator[Any]:
    yield node
    if depth < _DEEPEST:
        for child in node.nodes:
            yield from _nodes(child, depth + 1)


def _is_psci(node: Any) -> bool:
    return any(string == "arm,psci" or string.startswith("arm,psci-") for string in _strings(node, "compatible"))


def _mpidrs(root: Any) -> Iterator[int]:
    cpus = next((node for node in root.nodes if node.name == "cpus"), None)
    for node in [] if cpus is None else cpus.nodes:
        reg = _bytes(node, "reg")
        if node.name.partition("@")[0] == "cpu" and len(reg) in (4, 8):
            yield int.from_bytes(reg, "big") & AFFINITY_MASK


def _bytes(node: Any, name: str) -> bytes:
    found = node.get_property(name)
    if found is None:
        return b""
    # blob.parse leaves every property its bytes, but for the two that count cells.
    return bytes(found.data) if isinstance(found.data, bytes | bytearray) else struct.pack(f">{len(found.data)}I", *found.data)


def _strings(node: Any, name: str) -> tuple[str, ...]:
    text = _bytes(node, name).rstrip(b"\0").decode("ascii", "backslashreplace")
    return tuple(text.split("\0")) if text else ()
