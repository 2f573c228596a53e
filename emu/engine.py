"""The Unicorn engine: memory, registers by name, one context per vCPU, exact slices, hooks.

1. `emu/unicorn.py` is Unicorn's C interface; this file uses it, and what is cut out of it: registers, sieve, syndrome and trap.
2. One engine for the machine; a vCPU is a saved context. A slice is a number of instructions, never a timer: a stop from another
   thread re-executes loads and stores. It ends with a block (`emu/budget.py`); a run that is exact to the instruction makes the engine
   forget its translations, as does the next slice.
3. `stop` is called between instructions only, from an interrupt callback; never from a device callback.
4. No callback lets an exception escape into C: it is kept in `failure` and raised again by `run`.

The exclusive monitor compares by value, as QEMU's does: a store-exclusive succeeds when memory holds what the load-exclusive
read, whatever happened in between.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from emu import unicorn
from emu.budget import BLOCK, Budget
from emu.memory import PAGE_BYTES, Region
from emu.registers import (
    CNTHCTL_EL2,
    CPTR_EL3,
    HCR_EL2,
    HPFAR_EL2,
    PSTATE_EL,
    REGISTERS,
    SCR_EL3,
    SCTLR_EL1,
    SPSR_EL1,
    VECTORS,
    VMPIDR_EL2,
    VTCR_EL2,
    VTTBR_EL2,
    ZCR_EL2,
    ZCR_EL3,
    Register,
    SystemRegister,
)
from emu.sieve import served
from emu.stage2 import TABLES, VTCR, VTTBR, Stage2
from emu.syndrome import Syndrome, daif_syndrome
from emu.unicorn import Context, check, library
from firmware.abi import ENTRY_PSTATE

if TYPE_CHECKING:
    from emu.coverage import Coverage
    from emu.teletype import Teletype

_SCR: Final = 0x501 | 3 << 16  # SCR_EL3: non-secure, HVC enabled, EL2 is AArch64, pointer authentication is EL1's own (APK, API)
# HCR_EL2: EL1 is AArch64; WFI traps, so that a stop and a wait cannot be confused; pointer authentication is EL1's own (APK, API).
_HCR: Final = 1 << 31 | 1 << 13 | 3 << 40
_HCR_VM: Final = 1  # stage 2 translation
_EL1PCTEN_EL1PCEN: Final = 3
_SVE_FOR_EL1: Final = 0x100  # CPTR_EL3.EZ
_SVE_LENGTH: Final = 0xF
_MPIDR_RES1: Final = 0x8000_0000

CPU_MODELS: Final = {
    "cortex-a53": unicorn.UC_CPU_ARM64_A53,
    "cortex-a57": unicorn.UC_CPU_ARM64_A57,
    "cortex-a72": unicorn.UC_CPU_ARM64_A72,
    "max": unicorn.UC_CPU_ARM64_MAX,
}

_UNMAPPED: Final = {
    unicorn.UC_ERR_READ_UNMAPPED: "read from",
    unicorn.UC_ERR_WRITE_UNMAPPED: "write to",
    unicorn.UC_ERR_FETCH_UNMAPPED: "instruction fetch from",
}

_INTERRUPT: Final = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint32)
_INVALID: Final = ctypes.CFUNCTYPE(
    ctypes.c_bool, ctypes.c_void_p, ctypes.c_int, ctypes.c_uint64, ctypes.c_int, ctypes.c_int64, ctypes.c_void_p
)
_MMIO_READ: Final = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint, ctypes.c_void_p)
_MMIO_WRITE: Final = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint, ctypes.c_uint64, ctypes.c_void_p)

_ZERO: Final = unicorn.pointer(0)
_FOUR: Final = ctypes.c_size_t(4)
_PROT_READ: Final = ctypes.c_int(unicorn.UC_PROT_READ)
_CP_REG: Final = unicorn.UC_ARM64_REG_CP_REG
_TLB_FLUSH: Final = unicorn.control(unicorn.UC_CTL_TLB_FLUSH)
_TB_FLUSH: Final = unicorn.control(unicorn.UC_CTL_TB_FLUSH)
_TB_REMOVE: Final = unicorn.control(unicorn.UC_CTL_TB_REMOVE_CACHE, 2)
_MAP_NORESERVE: Final = getattr(mmap, "MAP_NORESERVE", 0)


# ESR_EL2 of an abort from EL1 or EL0.
_EC_SHIFT: Final = 26
_EC_INSTRUCTION_ABORT_LOWER: Final = 0x20
_FSC_KIND, _FSC_PERMISSION = 0x3C, 0x0C
_WNR: Final = 1 << 6
_SCTLR_M: Final = 1


class EngineError(Exception):
    """The engine could not go on, and this is what it said."""


class UnmappedAccess(EngineError):  # noqa: N818  an abort on the bus, which the guest may well handle
    """The guest touched physical memory that is not there; nothing of the instruction has happened."""

    def __init__(self, kind: int, address: int) -> None:
        super().__init__(f"{_UNMAPPED[kind]} unmapped address {address:#x}")
        self.is_fetch = kind == unicorn.UC_ERR_FETCH_UNMAPPED
        self.is_write = kind == unicorn.UC_ERR_WRITE_UNMAPPED
        self.address = address


class _CpReg(ctypes.Structure):
    # uc_arm64_cp_reg
    _fields_ = [(name, ctypes.c_uint32) for name in ("crn", "crm", "op0", "op1", "op2")] + [("value", ctypes.c_uint64)]


class Engine:
    """A machine's CPUs and memory.

    cpu     one of CPU_MODELS
    mpidrs  affinity fields of each vCPU's MPIDR_EL1
    """

    def __init__(self, cpu: str, mpidrs: tuple[int, ...]) -> None:
        self._uc = unicorn.Uc(CPU_MODELS[cpu])
        self.handle = self._uc.handle
        self.reg = {name: Register(self.handle, number) for name, number in REGISTERS.items()}
        self.x = tuple(self.reg[f"x{number}"] for number in range(31))
        self.pc, self.pstate, self.sp = self.reg["pc"], self.reg["pstate"], self.reg["sp"]
        self.current = 0
        self.failure: BaseException | None = None
        self._keep: list[object] = []  # what C holds pointers to
        self._cp_regs: dict[SystemRegister, tuple[_CpReg, Any]] = {}  # those that were asked for, ready for C
        self._is_exact = True
        self._coverage: Coverage | None = None
        self._word = ctypes.c_uint32()
        self._vector = (ctypes.c_uint8 * 16)()
        stop, read = (ctypes.cast(function, ctypes.c_void_p) for function in (library.uc_emu_stop, library.uc_reg_read))
        self._budget = Budget(stop, read, REGISTERS["pstate"])
        self.was_stopped = False
        self._hook(unicorn.UC_HOOK_BLOCK, self._budget.callback, user_data=self._budget.argument)
        self._go_to_el1(cpu)
        self._syndrome = Syndrome(self.handle)
        # A context is a vCPU's whole state; the second set stays as at power-on.
        self._contexts = [self._power_on_context(mpidr) for mpidr in mpidrs]
        self._pristine = [self._power_on_context(mpidr) for mpidr in mpidrs]
        self._load(self._contexts[0])

    def _go_to_el1(self, cpu: str) -> None:
        self.set_system_register(SCR_EL3, _SCR)
        self.set_system_register(CNTHCTL_EL2, _EL1PCTEN_EL1PCEN)
        if cpu == "max":
            for register, value in ((CPTR_EL3, _SVE_FOR_EL1), (ZCR_EL3, _SVE_LENGTH), (ZCR_EL2, _SVE_LENGTH)):
                self.set_system_register(register, value)
        self.set_pstate(ENTRY_PSTATE)
        self.set_system_register(HCR_EL2, _HCR)

    def _power_on_context(self, mpidr: int) -> Context:
        self.set_system_register(VMPIDR_EL2, _MPIDR_RES1 | mpidr)
        return Context(self.handle)

    # ---- memory and devices

    def map_ram(self, region: Region) -> mmap.mmap:
        """Map zeroed memory; the returned buffer is the guest's memory itself. Raises OSError if the host has too little."""
        buffer = mmap.mmap(-1, region.size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            buffer.madvise(mmap.MADV_HUGEPAGE)  # a kernel touches most of its memory: a twentieth off the way to its psci lines
        self._map(region, unicorn.UC_PROT_ALL, buffer)
        return buffer

    def _map(self, region: Region, permissions: int, buffer: mmap.mmap) -> None:
        self._keep.append(buffer)
        where = (ctypes.c_uint64(region.base), ctypes.c_size_t(region.size_bytes))
        check(library.uc_mem_map_ptr(self.handle, *where, ctypes.c_uint32(permissions), ctypes.byref(ctypes.c_char.from_buffer(buffer))))

    def guard_execution(self) -> None:
        """Let no page be executable before it is first executed: stores are several times as fast then (`emu/stage2.py`).

        From then on every abort whose target is EL2 belongs to `stage_2_abort`.
        """
        self._stage_2 = Stage2()
        self._map(TABLES, unicorn.UC_PROT_READ | unicorn.UC_PROT_WRITE, self._stage_2.memory)
        for context in (*self._pristine, *self._contexts):
            self._load(context)
            self.set_system_register(VTCR_EL2, VTCR)
            self.set_system_register(VTTBR_EL2, VTTBR)
            self.set_system_register(HCR_EL2, _HCR | _HCR_VM)
            library.uc_context_save(self.handle, context.pointer)
        self._load(self._contexts[self.current])

    def stage_2_abort(self, esr: int, far: int) -> UnmappedAccess | None:
        """Let a page be executed, or written, for the first time; return what else an abort to EL2 means."""
        page = self.system_register(HPFAR_EL2) >> 4 << 12
        is_fetch = esr >> _EC_SHIFT == _EC_INSTRUCTION_ABORT_LOWER
        if esr & _FSC_KIND == _FSC_PERMISSION:
            if is_fetch:
                self._stage_2.let_execute(page, far)
            else:
                self._forget_page(page)
                self._stage_2.let_write(page, far, self.pc.get())
                self._budget.retry()
                if self._coverage is not None:
                    self._coverage.retry()
            library.uc_ctl(self.handle, _TLB_FLUSH)
            return None
        kind = unicorn.UC_ERR_WRITE_UNMAPPED if esr & _WNR else unicorn.UC_ERR_READ_UNMAPPED
        return UnmappedAccess(unicorn.UC_ERR_FETCH_UNMAPPED if is_fetch else kind, page | far & 0xFFF if self.is_translated else far)

    def _forget_page(self, page: int) -> None:
        # The engine forgets by virtual address; with the MMU off that is the physical one.
        sctlr = self.system_register(SCTLR_EL1)
        self.set_system_register(SCTLR_EL1, sctlr & ~_SCTLR_M)
        library.uc_ctl(self.handle, _TLB_FLUSH)
        self.forget(page, PAGE_BYTES)
        self.set_system_register(SCTLR_EL1, sctlr)

    def map_device(
        self, region: Region, read: Callable[[int, int], int], write: Callable[[int, int, int], None], front: Teletype | None = None
    ) -> None:
        """Route accesses of 1, 2 or 4 bytes to read(offset, size) and write(offset, size, value); 8 bytes come as two halves.

        front  what answers some of them before they come to Python
        """

        def on_read(_uc: int, offset: int, size: int, _user: int) -> int:
            try:
                return read(offset, size)
            except BaseException as error:
                self.fail(error)
                return 0

        def on_write(_uc: int, offset: int, size: int, value: int, _user: int) -> None:
            try:
                write(offset, size, value)
            except BaseException as error:
                self.fail(error)

        reader, writer = _MMIO_READ(on_read), _MMIO_WRITE(on_write)
        self._keep += (reader, writer)
        first: tuple[Any, Any] = (reader, writer)
        argument = None
        if front is not None:
            self._keep.append(front)
            first, argument = front.in_front_of(reader, writer), front.argument
        base, size = ctypes.c_uint64(region.base), ctypes.c_size_t(region.size_bytes)
        check(library.uc_mmio_map(self.handle, base, size, first[0], argument, first[1], argument))

    def flush_translations(self) -> None:
        """Forget translated code: needed after the host wrote to memory that may hold some."""
        check(library.uc_ctl(self.handle, _TB_FLUSH))

    def forget(self, address: int, size_bytes: int) -> None:
        """Forget the translated code of a range of virtual addresses, as the current vCPU sees them."""
        library.uc_ctl(self.handle, _TB_REMOVE, ctypes.c_uint64(address), ctypes.c_uint64(address + size_bytes))

    @property
    def executed_changes(self) -> int:
        """How often there have been other pages from which anything has been executed."""
        return self._stage_2.changes

    def executed_pages(self, address: int, size_bytes: int) -> tuple[int, ...]:
        """Return the pages of a range of physical addresses from which anything has been executed."""
        executed = self._stage_2.executed
        if len(executed) < size_bytes // PAGE_BYTES:
            return tuple(page for page in executed if address <= page < address + size_bytes)
        return tuple(page for page in range(address, address + size_bytes, PAGE_BYTES) if page in executed)

    def read_virtual(self, address: int, size_bytes: int) -> bytes | None:
        """Read through the current vCPU's translation; None where that faults."""
        buffer = ctypes.create_string_buffer(size_bytes)
        error = library.uc_vmem_read(self.handle, ctypes.c_uint64(address), _PROT_READ, buffer, ctypes.c_size_t(size_bytes))
        return None if error else buffer.raw

    def instruction_at(self, address: int) -> int | None:
        """Return the instruction word at a virtual address, or None where it cannot be fetched."""
        if address % 4 or library.uc_vmem_read(self.handle, ctypes.c_uint64(address), _PROT_READ, ctypes.byref(self._word), _FOUR):
            return None
        return self._word.value

    # ---- registers

    def system_register(self, register: SystemRegister) -> int:
        """Return a system register's raw value, without the side effects of MRS."""
        named, argument = self._named(register)
        check(library.uc_reg_read(self.handle, _CP_REG, argument))
        return int(named.value)

    def set_system_register(self, register: SystemRegister, value: int) -> None:
        """Write a system register raw; the engine's cached flags follow."""
        named, argument = self._named(register)
        named.value = value
        check(library.uc_reg_write(self.handle, _CP_REG, argument))

    def _named(self, register: SystemRegister) -> tuple[_CpReg, Any]:
        named = self._cp_regs.get(register)
        if named is None:
            op0, op1, crn, crm, op2 = register
            cp_reg = _CpReg(crn, crm, op0, op1, op2)
            named = self._cp_regs[register] = cp_reg, unicorn.pointer(ctypes.addressof(cp_reg))
        return named

    def set_pstate(self, value: int) -> None:
        # Writing PSTATE leaves the cached flags behind; a system-register write rebuilds them.
        self.pstate.set(value)
        self.set_system_register(SPSR_EL1, self.system_register(SPSR_EL1))

    def vector(self, name: str) -> int:
        """Return a SIMD register of the current vCPU, 128 bits."""
        check(library.uc_reg_read(self.handle, ctypes.c_int(VECTORS[name]), self._vector))
        return int.from_bytes(bytes(self._vector), "little")

    def set_vector(self, name: str, value: int) -> None:
        """Write a SIMD register of the current vCPU, 128 bits."""
        self._vector[:] = list(value.to_bytes(16, "little"))
        check(library.uc_reg_write(self.handle, ctypes.c_int(VECTORS[name]), self._vector))

    def exception_syndrome(self) -> tuple[int, int, int]:
        """Return (ESR, FAR, target exception level) of the exception whose callback is running."""
        esr, far, target_el = self._syndrome.read()
        return esr or daif_syndrome(self.instruction_at(self.pc.get()) or 0), far, target_el

    # ---- vCPUs

    def switch(self, vcpu: int) -> None:
        """Make another vCPU current."""
        if vcpu != self.current:
            library.uc_context_save(self.handle, self._contexts[self.current].pointer)
            self._load(self._contexts[vcpu])
            self.current = vcpu

    def register_of(self, vcpu: int, name: str) -> int:
        """Return a register of any vCPU, without making it current: a callback may ask."""
        if vcpu == self.current:
            return self.reg[name].get()
        box = ctypes.c_uint64()
        context = self._contexts[vcpu].pointer
        check(library.uc_context_reg_read(context, ctypes.c_int(REGISTERS[name]), ctypes.byref(box)))
        return box.value

    def set_register_of(self, vcpu: int, name: str, value: int) -> None:
        """Write a register of any vCPU, without making it current."""
        if vcpu == self.current:
            self.reg[name].set(value)
            return
        box = ctypes.c_uint64(value)
        context = self._contexts[vcpu].pointer
        check(library.uc_context_reg_write(context, ctypes.c_int(REGISTERS[name]), ctypes.byref(box)))

    def keep_current(self) -> None:
        """Bring the saved context of the current vCPU up to date."""
        library.uc_context_save(self.handle, self._contexts[self.current].pointer)

    def contexts(self) -> tuple[Context, ...]:
        """Return a copy of every vCPU's context: this engine's own, and of no use to another."""
        self.keep_current()
        return tuple(context.copy() for context in self._contexts)

    def set_contexts(self, contexts: Sequence[Context], current: int) -> None:
        """Give every vCPU a context back.

        Where the MMU is off before and after, what the TLB holds is right: the engine flushes it when that changes, and all is mapped
        one to one. A flush costs a microsecond, and its consequences several.
        """
        was_translated = self.is_translated
        for vcpu, context in enumerate(contexts):
            if vcpu != current:
                self._contexts[vcpu].become(context)
        library.uc_context_restore(self.handle, contexts[current].pointer)
        self.current = current
        if was_translated or self.is_translated:
            library.uc_ctl(self.handle, _TLB_FLUSH)

    @property
    def is_translated(self) -> bool:
        """Whether the current vCPU's MMU is on."""
        return bool(self.system_register(SCTLR_EL1) & _SCTLR_M)

    def reset_current(self) -> None:
        """Give the current vCPU its power-on state."""
        self._load(self._pristine[self.current])

    def reset_all(self) -> None:
        """Give every vCPU its power-on state and make the first one current."""
        for vcpu in reversed(range(len(self._contexts))):
            self._load(self._pristine[vcpu])
            library.uc_context_save(self.handle, self._contexts[vcpu].pointer)
        self.current = 0

    def _load(self, context: Context) -> None:
        library.uc_context_restore(self.handle, context.pointer)
        library.uc_ctl(self.handle, _TLB_FLUSH)  # the TLB is not part of a context

    # ---- running

    def run(self, count: int) -> int:
        """Run the current vCPU for exactly `count` instructions, or fewer if it is stopped; return how many.

        Raises EngineError where the guest touched memory that is not there, and again whatever a callback raised.
        """
        assert count > 0, "0 would be without end"
        if not self._is_exact:
            self.flush_translations()  # what was translated for slices does not count
            self._is_exact = True
        self._budget.lift()
        self._start(count)
        return min(count, self._budget.run)

    def run_slice(self, count: int) -> int:
        """Run the current vCPU up to the first block that begins after `count` instructions; return how many have been run.

        Blocks are counted as they begin: one that an exception leaves counts whole. Raises as `run` does.
        """
        self._is_exact = False
        self._budget.left = count
        self._start(0)
        return count - self._budget.left

    def watch_for_unmasked(self, watch: bool) -> None:
        """End a run before the first block at which PSTATE.I is clear."""
        self._budget.watches = watch

    def _start(self, count: int) -> None:
        self.was_stopped = False
        error = self._emulate(count)
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure
        if error:
            raise self._describe(error)

    def _emulate(self, count: int) -> int:
        return int(library.uc_emu_start(self.handle, ctypes.c_uint64(self.pc.get()), _ZERO, _ZERO, ctypes.c_size_t(count)))

    def stop(self) -> None:
        """End the slice before the next instruction; for interrupt callbacks only."""
        self.was_stopped = True
        library.uc_emu_stop(self.handle)

    def fail(self, error: BaseException) -> None:
        """Keep what a callback raised, and end the run."""
        if self.failure is None:
            self.failure = error
        library.uc_emu_stop(self.handle)

    def _describe(self, error: int) -> EngineError:
        if error not in _UNMAPPED:
            return EngineError(f"the engine stopped: {unicorn.described(error)}")
        # The address is told to a memory hook only, and a memory hook slows every store down: install it for one retry.
        addresses: list[int] = []

        def on_invalid(_uc: int, _access: int, address: int, _size: int, _value: int, _user: int) -> bool:
            addresses.append(address)
            return False

        callback = _INVALID(on_invalid)
        hook = self._add_hook(unicorn.UC_HOOK_MEM_INVALID, callback)
        self._budget.lift()
        watches, self._budget.watches = self._budget.watches, False  # it would stop before the access
        self._emulate(1 if self._is_exact else 0)  # the other kind of run would flush all translations
        self._budget.watches = watches
        check(library.uc_hook_del(self.handle, hook))
        assert addresses, "an access that was refused is refused again"
        return UnmappedAccess(error, addresses[0])

    # ---- hooks

    def hook_interrupts(self, callback: Callable[[int, int], None]) -> None:
        """Call back with (engine handle, exception number) at every exception; the callback must not raise."""
        self._hook(unicorn.UC_HOOK_INTR, _INTERRUPT(callback))

    def hook_system_registers(
        self,
        readers: Mapping[SystemRegister, Callable[[], int]],
        writers: Mapping[SystemRegister, Callable[[int], None]],
        may: Callable[[SystemRegister], bool],
    ) -> None:
        """Serve MRS by readers[register]() and MSR by writers[register](value); all others stay the engine's.

        may  whether EL0 may access the register; where it may not, the engine raises the exception it should
        """
        mrs, msr = served(self.handle, readers, writers, lambda register: bool(self.pstate.get() & PSTATE_EL) or may(register), self.fail)
        for sieve, instruction in ((mrs, unicorn.UC_ARM64_INS_MRS), (msr, unicorn.UC_ARM64_INS_MSR)):
            self._keep.append(sieve)
            self._hook(unicorn.UC_HOOK_INSN, sieve.callback, instruction, user_data=sieve.argument)

    def hook_blocks(self, callback: Callable[[int, int], None]) -> None:
        """Call back with (address, size in bytes) before every translated block; slow."""

        def on_block(_uc: int, address: int, size_bytes: int, _user: int) -> None:
            try:
                callback(address, size_bytes)
            except BaseException as error:
                self.fail(error)

        self._hook(unicorn.UC_HOOK_BLOCK, BLOCK(on_block))

    def cover(self, coverage: Coverage) -> None:
        """Note which blocks are come to from now on."""
        self._coverage = coverage
        self._hook(unicorn.UC_HOOK_BLOCK, coverage.callback, user_data=coverage.argument)
        self.flush_translations()  # what has been translated calls those that were there then

    def _hook(self, kind: int, callback: Any, *extra: int, user_data: ctypes.c_void_p | None = None) -> None:
        self._keep.append(callback)
        self._add_hook(kind, callback, *extra, user_data=user_data)

    def _add_hook(self, kind: int, callback: Any, *extra: int, user_data: ctypes.c_void_p | None = None) -> ctypes.c_size_t:
        hook = ctypes.c_size_t()
        everywhere = (ctypes.c_uint64(1), ctypes.c_uint64(0))
        rest = tuple(ctypes.c_int(value) for value in extra)
        check(library.uc_hook_add(self.handle, ctypes.byref(hook), ctypes.c_int(kind), callback, user_data, *everywhere, *rest))
        return hook
