"""The engine: contexts, registers, exact slices, syndromes."""

from __future__ import annotations

import pytest

from emu.engine import CPU_MODELS, Engine, UnmappedAccess
from emu.exceptions import EXCP_BKPT, EXCP_HVC, EXCP_SMC, EXCP_SWI, EXCP_UDEF
from emu.memory import Region
from tests.emu.programs import (
    NOP,
    SYSTEM_REGISTERS,
    UDF,
    Label,
    Part,
    b,
    br,
    brk,
    flat,
    hvc,
    ldr,
    ldr32,
    mrs,
    smc,
    store,
    store8,
    svc,
)

CODE = 0x1_0000
SCTLR_EL1, SPSR_EL1 = SYSTEM_REGISTERS["SCTLR_EL1"], SYSTEM_REGISTERS["SPSR_EL1"]
ADD = 0x9100_0400  # add x0, x0, #1


@pytest.fixture(params=CPU_MODELS)
def cpu(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def engine_with(*parts: Part, cpu: str = "cortex-a57", mpidrs: tuple[int, ...] = (0, 1)) -> Engine:
    engine = Engine(cpu, mpidrs)
    memory = engine.map_ram(Region(CODE, 0x1_0000))
    memory[: len(flat(*parts))] = flat(*parts)
    for vcpu in range(len(mpidrs)):
        engine.switch(vcpu)
        engine.pc.set(CODE)
    engine.switch(0)
    return engine


@pytest.mark.parametrize("count", [1, 2, 3, 7, 100, 9_999])
def test_a_slice_is_an_exact_number_of_instructions(count: int) -> None:
    engine = engine_with(Label("loop"), ADD, ADD, ADD, b("loop"))

    engine.run(count)

    assert engine.x[0].get() == count - count // 4


def test_slices_add_up() -> None:
    engine = engine_with(Label("loop"), ADD, ADD, ADD, b("loop"))

    for count in (1, 2, 3, 5, 8, 13):
        engine.run(count)

    assert engine.x[0].get() == 32 - 8


def test_every_vcpu_has_registers_of_its_own(cpu: str) -> None:
    engine = engine_with(ADD, cpu=cpu, mpidrs=(0, 1, 2))
    for vcpu in range(3):
        engine.switch(vcpu)
        for number, register in enumerate(engine.x):
            register.set(vcpu << 32 | number)
        engine.sp.set(0x1000 * vcpu)

    for vcpu in (2, 0, 1):
        engine.switch(vcpu)
        assert [register.get() for register in engine.x] == [vcpu << 32 | number for number in range(31)]
        assert engine.sp.get() == 0x1000 * vcpu
        assert engine.current == vcpu


def test_a_reset_vcpu_is_as_at_power_on(cpu: str) -> None:
    engine = engine_with(mrs(0, "MPIDR_EL1"), cpu=cpu, mpidrs=(0, 0x1_0203))
    engine.switch(1)
    before = [register.get() for register in engine.x], engine.pstate.get(), engine.system_register(SCTLR_EL1)
    engine.x[5].set(5)
    engine.set_pstate(0x3C4)
    engine.reset_current()
    engine.pc.set(CODE)

    assert ([register.get() for register in engine.x], engine.pstate.get(), engine.system_register(SCTLR_EL1)) == before
    engine.run(1)
    assert engine.x[0].get() == 0x8001_0203


@pytest.mark.parametrize(
    ("word", "number", "syndrome", "behind"),
    [
        (svc(0x1234), EXCP_SWI, 0x5600_1234, 4),
        (brk(0x4321), EXCP_BKPT, 0xF200_4321, 0),
        (hvc(7), EXCP_HVC, 0x5A00_0007, 4),
        (smc(9), EXCP_SMC, 0x5E00_0009, 4),
        (UDF, EXCP_UDEF, 0x0200_0000, 0),
    ],
)
def test_an_exception_is_told_with_its_syndrome(word: int, number: int, syndrome: int, behind: int) -> None:
    engine = engine_with(word)
    seen: list[tuple[int, int, int]] = []

    def callback(_handle: int, what: int) -> None:
        seen.append((what, engine.exception_syndrome()[0], engine.pc.get()))
        engine.stop()

    engine.hook_interrupts(callback)
    engine.run(10)

    assert seen == [(number, syndrome, CODE + behind)]


def test_the_address_of_an_access_to_nothing_is_told() -> None:
    for word, what in ((ldr(0, 1), "read from"), (store(0, 1), "write to"), (br(1), "instruction fetch from")):
        engine = engine_with(word)
        engine.x[1].set(0x5555_0000)

        with pytest.raises(UnmappedAccess, match=f"^{what} unmapped address 0x55550000$") as caught:
            engine.run(2)

        assert caught.value.address == 0x5555_0000


def test_a_device_sees_accesses_by_offset_and_size() -> None:
    engine = engine_with(ldr32(0, 1, 4), store8(2, 1, 9), ldr(3, 1))
    seen: list[tuple[int, ...]] = []

    def read(*access: int) -> int:
        seen.append(access)
        return 0x10 + access[0]

    engine.map_device(Region(0x90_0000, 0x1000), read, lambda *access: seen.append(access))
    engine.x[1].set(0x90_0000)
    engine.x[2].set(0x1234)

    engine.run(3)

    assert seen == [(4, 4), (9, 1, 0x34), (0, 4), (4, 4)]
    assert (engine.x[0].get(), engine.x[3].get()) == (0x14, 0x14_0000_0010)


def test_what_a_device_raises_ends_the_run_and_is_raised_again() -> None:
    engine = engine_with(ldr32(0, 1), ADD)

    def read(_offset: int, _size: int) -> int:
        raise LookupError("ours")

    engine.map_device(Region(0x90_0000, 0x1000), read, lambda *_access: None)
    engine.x[1].set(0x90_0000)

    with pytest.raises(LookupError, match="ours"):
        engine.run(100)
    assert engine.failure is None


def test_reading_through_the_translation_says_none_where_there_is_nothing() -> None:
    engine = engine_with(ADD)

    assert engine.instruction_at(CODE) == ADD
    assert engine.instruction_at(CODE + 2) is None
    assert engine.instruction_at(0) is None
    assert engine.read_virtual(CODE + 0xFFFC, 8) is None


def test_host_writes_are_seen_after_a_flush() -> None:
    engine = engine_with(ADD, b("x"), Label("x"))
    memory = engine.map_ram(Region(0x40_0000, 0x1000))
    memory[:4] = ADD.to_bytes(4, "little")
    engine.pc.set(0x40_0000)
    engine.run(1)

    memory[:4] = NOP.to_bytes(4, "little")
    engine.flush_translations()
    engine.pc.set(0x40_0000)
    engine.run(1)

    assert engine.x[0].get() == 1


def test_a_system_register_is_written_raw() -> None:
    engine = engine_with(mrs(0, "SPSR_EL1"))
    engine.set_system_register(SPSR_EL1, 0x1234)

    engine.run(1)

    assert engine.system_register(SPSR_EL1) == engine.x[0].get() == 0x1234
