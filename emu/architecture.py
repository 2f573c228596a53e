"""A vCPU's registers by architectural name: what a guest at EL1 and EL0 can have changed, and nothing of the engine's.

Left out: the timers' (emu/devices/timer.py has them), the exclusive monitor (a store-exclusive that was to follow fails once, as after
any exception), the cycle counter, and SVE's registers above their low 128 bits, with the predicates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from emu.engine import Engine
from emu.registers import PSTATE_EL, VECTORS, SystemRegister

_SP_SEL: Final = 0x1
_BREAKPOINTS: Final = 6  # of every CPU model offered, as ID_AA64DFR0_EL1 has it
_WATCHPOINTS: Final = 4

_CORE: Final = (*(f"x{number}" for number in range(31)), "pc", "pstate", "fpcr", "fpsr")

# op0, op1, CRn, CRm, op2, as MRS has them (Arm ARM, "AArch64 System Registers").
_SYSTEM: Final[dict[str, SystemRegister]] = {
    "sctlr_el1": (3, 0, 1, 0, 0),
    "cpacr_el1": (3, 0, 1, 0, 2),
    "ttbr0_el1": (3, 0, 2, 0, 0),
    "ttbr1_el1": (3, 0, 2, 0, 1),
    "tcr_el1": (3, 0, 2, 0, 2),
    "spsr_el1": (3, 0, 4, 0, 0),
    "elr_el1": (3, 0, 4, 0, 1),
    "esr_el1": (3, 0, 5, 2, 0),
    "far_el1": (3, 0, 6, 0, 0),
    "par_el1": (3, 0, 7, 4, 0),
    "pmintenset_el1": (3, 0, 9, 14, 1),
    "mair_el1": (3, 0, 10, 2, 0),
    "vbar_el1": (3, 0, 12, 0, 0),
    "contextidr_el1": (3, 0, 13, 0, 1),
    "tpidr_el1": (3, 0, 13, 0, 4),
    "cntkctl_el1": (3, 0, 14, 1, 0),
    "csselr_el1": (3, 2, 0, 0, 0),
    "pmcr_el0": (3, 3, 9, 12, 0),
    "pmcntenset_el0": (3, 3, 9, 12, 1),
    "pmovsclr_el0": (3, 3, 9, 12, 3),
    "pmselr_el0": (3, 3, 9, 12, 5),
    "pmuserenr_el0": (3, 3, 9, 14, 0),
    "pmccfiltr_el0": (3, 3, 14, 15, 7),
    "tpidr_el0": (3, 3, 13, 0, 2),
    "tpidrro_el0": (3, 3, 13, 0, 3),
    "mdscr_el1": (2, 0, 0, 2, 2),
    "oslsr_el1": (2, 0, 1, 1, 4),
    **{f"dbgbvr{number}_el1": (2, 0, 0, number, 4) for number in range(_BREAKPOINTS)},
    **{f"dbgbcr{number}_el1": (2, 0, 0, number, 5) for number in range(_BREAKPOINTS)},
    **{f"dbgwvr{number}_el1": (2, 0, 0, number, 6) for number in range(_WATCHPOINTS)},
    **{f"dbgwcr{number}_el1": (2, 0, 0, number, 7) for number in range(_WATCHPOINTS)},
}

# Of -cpu max: pointer authentication keys.
_SYSTEM_OF_MAX: Final[dict[str, SystemRegister]] = {
    f"ap{key}key{half}_el1": (3, 0, 2, crm, op2)
    for key, crm, first in (("ia", 1, 0), ("ib", 1, 2), ("da", 2, 0), ("db", 2, 2), ("ga", 3, 0))
    for op2, half in ((first, "lo"), (first + 1, "hi"))
}


def system_registers(cpu: str) -> Mapping[str, SystemRegister]:
    """Return the system registers of a CPU model that a guest can change."""
    return {**_SYSTEM, **_SYSTEM_OF_MAX} if cpu == "max" else _SYSTEM


def register_names(cpu: str) -> frozenset[str]:
    return frozenset((*_CORE, "sp_el0", "sp_el1", *VECTORS, *system_registers(cpu)))


def is_vector(name: str) -> bool:
    """Say whether a register is 128 bits wide; all others are 64."""
    return name in VECTORS


def read(engine: Engine, cpu: str) -> dict[str, int]:
    """Return every register of the current vCPU by name."""
    state = {name: engine.reg[name].get() for name in _CORE}
    pstate = state["pstate"]
    # The stack pointer in use is not in its bank.
    on_sp_el1 = bool(pstate & PSTATE_EL and pstate & _SP_SEL)
    state["sp_el0"] = engine.reg["sp_el0"].get() if on_sp_el1 else engine.sp.get()
    state["sp_el1"] = engine.sp.get() if on_sp_el1 else engine.reg["sp_el1"].get()
    state.update({name: engine.vector(name) for name in VECTORS})
    state.update({name: engine.system_register(register) for name, register in system_registers(cpu).items()})
    return state


def write(engine: Engine, cpu: str, state: Mapping[str, int]) -> None:
    """Give the current vCPU these registers, from its power-on state."""
    engine.reset_current()
    for name, register in system_registers(cpu).items():
        engine.set_system_register(register, state[name])
    for name in VECTORS:
        engine.set_vector(name, state[name])
    for name in ("sp_el0", "sp_el1"):
        engine.reg[name].set(state[name])
    pstate = state["pstate"]
    engine.sp.set(state["sp_el1" if pstate & PSTATE_EL and pstate & _SP_SEL else "sp_el0"])
    for name in _CORE:
        engine.reg[name].set(state[name])
    engine.set_pstate(pstate)
    engine.keep_current()
