"""Architectural exception entry to EL1 (Arm ARM, AArch64.TakeException), which the engine leaves to us."""

from __future__ import annotations

from typing import Any, Final

from emu.engine import Engine
from emu.outcome import GuestCrash
from emu.registers import PSTATE_EL, SCTLR_EL1, SPSR_EL1
from firmware.abi import ENTRY_PSTATE, MASK32, MASK64

# Exceptions as the engine numbers them (Unicorn 2.1.4, qemu/target/arm/cpu.h).
EXCP_UDEF: Final = 1
EXCP_SWI: Final = 2
EXCP_PREFETCH_ABORT: Final = 3
EXCP_DATA_ABORT: Final = 4
EXCP_IRQ: Final = 5
EXCP_BKPT: Final = 7
EXCP_HVC: Final = 11
EXCP_SMC: Final = 13

EXCEPTION_NAMES: Final = {
    EXCP_UDEF: "undefined instruction",
    EXCP_SWI: "SVC",
    EXCP_PREFETCH_ABORT: "prefetch abort",
    EXCP_DATA_ABORT: "data abort",
    EXCP_IRQ: "IRQ",
    EXCP_BKPT: "BRK",
}

# Offsets within a vector table by what comes,
SYNCHRONOUS: Final = 0x000
IRQ: Final = 0x080

# and by where it comes from.
_FROM_SP_ELX: Final = 0x200
_FROM_LOWER_EL: Final = 0x400

# ESR_EL1: EC in bits 31:26, IL in bit 25.
ESR_UNDEFINED: Final = 0x0200_0000  # EC 0, unknown reason, IL 1
# ESR_EL1 of a synchronous external abort: EC by kind and whether it comes from a lower exception level, IL 1, DFSC or IFSC 0x10.
EC_INSTRUCTION_ABORT_LOWER: Final = 0x20
EC_DATA_ABORT_LOWER: Final = 0x24
ISS_EXTERNAL_ABORT: Final = 0x10
ISS_WNR: Final = 1 << 6
ISS_FNV: Final = 1 << 10
ESR_IL: Final = 1 << 25
ESR_PC_ALIGNMENT: Final = 0x8A00_0000  # EC 0x22, IL 1
EC_SHIFT: Final = 26
EC_WFX: Final = 0x01

_SP_SEL: Final = 0x1
_PAN: Final = 1 << 22
_SCTLR_M: Final = 1 << 0
_PAGE_BYTES: Final = 0x1000
_LARGEST_ACCESS_BYTES: Final = 64
_SPAN: Final = 1 << 23  # SCTLR_EL1.SPAN: PAN is left alone


class Exceptions:
    """Enter EL1 on the current vCPU; notice a guest that cannot handle even its own vector."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.entered: dict[int, tuple[int, str]] = {}  # by vCPU: the vector last entered, and why

    def forget(self) -> None:
        """Forget what was entered, as after a system reset."""
        self.entered.clear()

    def enter(self, why: str, esr: int | None, far: int | None, return_address: int, offset: int = SYNCHRONOUS) -> int:
        """Take an exception to EL1 and return the vector's address; raise GuestCrash if it comes from that very vector.

        why       the exception in words, for that sentence
        esr, far  what ESR_EL1 and FAR_EL1 become; None leaves them
        """
        engine = self._engine
        pstate = engine.pstate.get()
        if pstate & PSTATE_EL == 0:
            offset += _FROM_LOWER_EL
        elif pstate & _SP_SEL:
            offset += _FROM_SP_ELX
        vector = engine.reg["vbar_el1"].get() + offset
        before, first = self.entered.get(engine.current, (None, ""))
        if return_address == vector == before:
            raise GuestCrash(f"{first}, and its vector {vector:#x} cannot be executed: {why}")
        self.entered[engine.current] = (vector, why)
        if not (pstate & PSTATE_EL and pstate & _SP_SEL):
            # Writing PSTATE banks no stack pointer.
            engine.reg["sp_el0"].set(engine.sp.get())
            engine.sp.set(engine.reg["sp_el1"].get())
        engine.reg["elr_el1"].set(return_address)
        if esr is not None:
            engine.reg["esr_el1"].set(esr)
        if far is not None:
            engine.reg["far_el1"].set(far)
        pan = pstate & _PAN if engine.system_register(SCTLR_EL1) & _SPAN else 0
        engine.pstate.set(ENTRY_PSTATE | pan)
        engine.set_system_register(SPSR_EL1, pstate)
        engine.pc.set(vector)
        return vector

    def external_abort(self, why: str, is_fetch: bool, is_write: bool, address: int) -> tuple[int, int, int]:
        """Take a synchronous external abort at the current instruction; return (ESR, FAR, vector).

        address  physical; the virtual one is worked out where the MMU is on, and FnV says where that fails
        """
        engine = self._engine
        pc = engine.pc.get()
        same_el = int(bool(engine.pstate.get() & PSTATE_EL))
        ec = (EC_INSTRUCTION_ABORT_LOWER if is_fetch else EC_DATA_ABORT_LOWER) + same_el
        esr = ec << EC_SHIFT | ESR_IL | ISS_EXTERNAL_ABORT
        far = pc
        if not is_fetch:
            va = _accessed_va(engine, pc, address) if engine.system_register(SCTLR_EL1) & _SCTLR_M else address
            esr |= (ISS_WNR if is_write else 0) | (ISS_FNV if va is None else 0)
            far = va or 0
        return esr, far, self.enter(why, esr, far, pc)


def _accessed_va(engine: Engine, pc: int, address: int) -> int | None:
    """Work out which virtual address the load or store at pc goes to, from its operands; None where that is not it."""
    import capstone  # noqa: PLC0415  on the way to an abort, not before

    word = engine.instruction_at(pc)
    decoder = capstone.Cs(capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM)
    decoder.detail = True
    instruction = None if word is None else next(decoder.disasm(word.to_bytes(4, "little"), pc), None)
    for operand in [] if instruction is None else instruction.operands:
        if operand.type != capstone.arm64.ARM64_OP_MEM:
            continue
        base, index = (_value(engine, instruction, register) for register in (operand.mem.base, operand.mem.index))
        if base is None or index is None:
            continue
        if operand.ext == capstone.arm64.ARM64_EXT_SXTW:
            index = (index & MASK32 ^ 0x8000_0000) - 0x8000_0000
        va: int = base + operand.mem.disp + (index << operand.shift.value) & MASK64
        # An access of up to 64 bytes may begin below the byte that failed.
        if (address - va) % _PAGE_BYTES < _LARGEST_ACCESS_BYTES:
            return va
    return None


def _value(engine: Engine, instruction: Any, register: int) -> int | None:
    """Return what a base or index register holds; None for one that is not a general register, as in a vector's addresses."""
    name = instruction.reg_name(register) if register else "xzr"
    if name in ("xzr", "wzr"):
        return 0
    whole = {"fp": "x29", "lr": "x30"}.get(name, "x" + name[1:] if name[0] == "w" else name)
    if whole not in engine.reg:
        return None
    return engine.reg[whole].get() & (MASK32 if name[0] == "w" else MASK64)
