"""Architectural exception entry to EL1 (Arm ARM, AArch64.TakeException), which the engine leaves to us."""

from __future__ import annotations

from typing import Final

from emu.engine import Engine
from emu.outcome import GuestCrash
from emu.registers import SCTLR_EL1, SPSR_EL1
from firmware.abi import ENTRY_PSTATE

SYNCHRONOUS: Final = 0x000

# Offsets within a vector table by where the exception comes from.
_FROM_SP_EL0: Final = 0x000
_FROM_SP_ELX: Final = 0x200
_FROM_LOWER_EL: Final = 0x400

# ESR_EL1: EC in bits 31:26, IL in bit 25.
ESR_UNDEFINED: Final = 0x0200_0000  # EC 0, unknown reason, IL 1
ESR_PC_ALIGNMENT: Final = 0x8A00_0000  # EC 0x22, IL 1
EC_SHIFT: Final = 26
EC_WFX: Final = 0x01

_SP_SEL: Final = 0x1
_EL_MASK: Final = 0xC
_PAN: Final = 1 << 22
_SPAN: Final = 1 << 23  # SCTLR_EL1.SPAN: PAN is left alone


class Exceptions:
    """Enter EL1 on the current vCPU; notice a guest that cannot handle even its own vector."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._vectors: dict[int, int] = {}  # by vCPU: the vector last entered

    def forget(self) -> None:
        """Forget what was entered, as after a system reset."""
        self._vectors.clear()

    def enter(self, esr: int, far: int | None, return_address: int, offset: int = SYNCHRONOUS) -> int:
        """Take an exception to EL1 and return the vector's address; raise GuestCrash if it comes from that very vector."""
        engine = self._engine
        pstate = engine.pstate.get()
        if pstate & _EL_MASK == 0:
            offset += _FROM_LOWER_EL
        elif pstate & _SP_SEL:
            offset += _FROM_SP_ELX
        vector = engine.reg["vbar_el1"].get() + offset
        if return_address == vector == self._vectors.get(engine.current):
            raise GuestCrash(f"exception at the first instruction of its own vector {vector:#x} (ESR_EL1 {esr:#x})")
        self._vectors[engine.current] = vector
        if not (pstate & _EL_MASK and pstate & _SP_SEL):
            # Writing PSTATE banks no stack pointer.
            engine.reg["sp_el0"].set(engine.sp.get())
            engine.sp.set(engine.reg["sp_el1"].get())
        engine.reg["elr_el1"].set(return_address)
        engine.reg["esr_el1"].set(esr)
        if far is not None:
            engine.reg["far_el1"].set(far)
        pan = pstate & _PAN if engine.system_register(SCTLR_EL1) & _SPAN else 0
        engine.pstate.set(ENTRY_PSTATE | pan)
        engine.set_system_register(SPSR_EL1, pstate)
        engine.pc.set(vector)
        return vector
