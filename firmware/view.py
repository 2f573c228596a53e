"""What a guest sees of its firmware when it asks everything that has no effect: the version, every discovery call, every mitigation.

A guest that asked before a move and one that asks after it see two of these; `firmware/migration.py` compares them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from firmware.abi import MASK32, PSCI_1_0, Version
from firmware.dispatch import Firmware, rows
from firmware.host import Config
from firmware.trap import Conduit, Resume, Trap

WORKAROUNDS: Final = ("SMCCC_ARCH_WORKAROUND_1", "SMCCC_ARCH_WORKAROUND_2", "SMCCC_ARCH_WORKAROUND_3")

_VERSION_CALLS: Final = {"PSCI_VERSION": 0x8400_0000, "SMCCC_VERSION": 0x8000_0000}
_PSCI_FEATURES: Final = 0x8400_000A
_ARCH_FEATURES: Final = 0x8000_0001

# An answer: w0 as a signed number, or what happened in place of one, such as "UNDEF".
Answer = int | str


class Question(NamedTuple):
    """A call without effect: a function, and for a discovery call the function it is asked about (its ID behind it, where it has two)."""

    function: str
    about: str = ""

    def __str__(self) -> str:
        return f"{self.function}({self.about})" if self.about else self.function


class View(NamedTuple):
    """Every answer: for each question, one for each vCPU."""

    answers: dict[Question, tuple[Answer, ...]]

    def of(self, function: str, about: str = "") -> tuple[Answer, ...]:
        return self.answers[Question(function, about)]

    @property
    def version(self) -> Version | None:
        """The PSCI version that the guest is told; None where it cannot ask, as under 0.1, whatever it gets for asking."""
        word = self.of("PSCI_VERSION")[0]
        return Version.from_word(word) if isinstance(word, int) and word >= 0 else None

    @property
    def leads_to_mitigations(self) -> bool:
        """Whether a guest that asks in the right order gets as far as ARCH_FEATURES (DEN 0028, "Discovery"): not below PSCI 1.0."""
        known = self.of("PSCI_FEATURES", "SMCCC_VERSION")[0]
        return self.version is not None and self.version >= PSCI_1_0 and isinstance(known, int) and known >= 0

    def workaround(self, name: str) -> tuple[Answer, ...]:
        """Return ARCH_FEATURES' answers about a workaround, by vCPU."""
        return self.of("SMCCC_ARCH_FEATURES", name)


def view(config: Config, conduit: Conduit) -> View:
    """Ask every question over a conduit, on every vCPU; nothing is changed by it."""
    firmware = Firmware(config)
    vcpus = range(len(config.mpidrs))
    return View({question: tuple(_ask(firmware, vcpu, conduit, *regs) for vcpu in vcpus) for question, regs in _questions(config)})


def _questions(config: Config) -> Iterator[tuple[Question, tuple[int, int]]]:
    for name, fid in _VERSION_CALLS.items():
        yield Question(name), (fid, 0)
    named = [(function, fid) for _, function in rows(config) for fid in function.fids]
    for discovery, discovery_fid in (("PSCI_FEATURES", _PSCI_FEATURES), ("SMCCC_ARCH_FEATURES", _ARCH_FEATURES)):
        for function, fid in named:
            about = function.name if len(function.fids) == 1 else f"{function.name} {fid:#010x}"
            yield Question(discovery, about), (discovery_fid, fid)


def _ask(firmware: Firmware, vcpu: int, conduit: Conduit, fid: int, about: int) -> Answer:
    reply = firmware.handle(Trap(vcpu, conduit, (fid, about, 0, 0)))
    if reply.resume is not Resume.NEXT:
        return reply.resume.name
    word = dict(reply.regs).get(0, fid) & MASK32
    return word - (1 << 32) if word >> 31 else word
