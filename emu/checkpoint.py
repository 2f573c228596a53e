"""An instant of a machine's to which it goes back again and again: what a fuzzer does ten thousand times a second.

In one process and for one machine; `emu/state.py` is for everything else. Contexts are the engine's here, since nothing leaves it.
"""

from __future__ import annotations

from emu.machine import Machine
from emu.memory import PAGE_BYTES
from emu.pristine import Pristine, PristineError
from emu.state import adopt_beside, capture

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
        try:
            self._memory = []
            for base, buffer in machine.memory.buffers:
                pages = _of(self._pages, base, len(buffer))
                self._memory.append((base, Pristine(buffer, pages)))
                machine.memory.put_behind(base, frozenset(offset for offset, _ in pages))
        except PristineError:
            self._memory = []  # then every page that was touched is copied

    def restore(self) -> None:
        """Make the machine what it was."""
        machine, engine = self._machine, self._machine.engine
        adopt_beside(machine, self._state, self._state.firmware)
        machine.interrupts.put_back(self._interrupts)
        engine.set_contexts(self._contexts, self._state.current)
        if not self._memory:
            machine.memory.replace(self._pages)
            engine.flush_translations()
            return
        for base, region in self._memory:
            for offset, size_bytes in region.restore():
                code = engine.executed_pages(base + offset, size_bytes)
                if code and self._is_translated:
                    engine.flush_translations()  # they are known by virtual addresses
                    code = ()
                for address in code:
                    engine.forget(address, PAGE_BYTES)


def _of(pages: dict[int, bytes], base: int, size_bytes: int) -> list[tuple[int, bytes]]:
    return [(address - base, page) for address, page in pages.items() if base <= address < base + size_bytes]
