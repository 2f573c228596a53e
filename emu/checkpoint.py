"""An instant of a machine's to which it goes back again and again: what a fuzzer does ten thousand times a second.

In one process and for one machine; `emu/state.py` is for everything else. Contexts are the engine's here, since nothing leaves it.
"""

from __future__ import annotations

from emu.machine import Machine
from emu.pristine import Pristine, PristineError
from emu.state import adopt_beside, capture
from firmware.dispatch import FirmwareState

_SCTLR_M = 1 << 0


class Checkpoint:
    """Keep a machine as it is between two turns; `restore` puts it back.

    Raises UserError for a machine that cannot be kept (emu/state.py).
    """

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._state = capture(machine)
        self._interrupts = machine.interrupts.keep()
        self._contexts = machine.engine.contexts()
        self._is_translated = any(vcpu.registers["sctlr_el1"] & _SCTLR_M for vcpu in self._state.vcpus)
        self._pages = machine.memory.content()
        self._code: tuple[int, ...] = ()  # of what may change, the pages from which anything has been executed
        self._code_changes = -1
        try:
            self._memory: Pristine | None = Pristine(machine.memory.buffers, self._pages)
        except PristineError:
            self._memory = None  # then every page that was touched is copied
            return
        for base, buffer in machine.memory.buffers:
            machine.memory.put_behind(base, frozenset(page - base for page in self._pages if base <= page < base + len(buffer)))

    def restore(self, firmware: FirmwareState | None = None) -> None:
        """Make the machine what it was; with `firmware`, which is a state of what it is served by now, all but that."""
        machine, engine = self._machine, self._machine.engine
        adopt_beside(machine, self._state, self._state.firmware if firmware is None else firmware)
        machine.interrupts.put_back(self._interrupts)
        engine.set_contexts(self._contexts, self._state.current)
        if self._memory is None:
            machine.memory.replace(self._pages)
            engine.flush_translations()
            return
        if self._memory.look() or engine.executed_changes != self._code_changes:
            self._code_changes = engine.executed_changes
            self._code = tuple(page for range_ in self._memory.ranges for page in engine.executed_pages(*range_))
        # What has been translated is what memory holds: where that is as it was, it stays.
        patched = [difference for page in self._code if (difference := self._memory.difference(page)) is not None]
        self._memory.restore()
        if patched and self._is_translated:
            engine.flush_translations()  # they are known by virtual addresses
            return
        for address, size_bytes in patched:
            engine.forget(address, size_bytes)
