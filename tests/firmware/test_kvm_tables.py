"""What KVM of Linux 6.12 answers, row by row as its code reads: registers, results, calls, discovery.

Every number stands here as the guest or the VMM sees it; nothing is taken from the rows under test.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass

import pytest

from firmware.abi import MASK64, PowerState, Version
from firmware.errors import RegisterError
from firmware.host import WALL_CLOCK_NS, Mitigations
from firmware.trap import Conduit, Effect, Enter, EntryState, Reply, Resume, Runnable, SystemEvent, SystemEventType, Trap
from tests.firmware.harness import ENTRY, V0_1, V0_2, V1_0, V1_1, make

HOST = "kvm-6.12"
HI = 0xDEAD_BEEF_0000_0000
MINUS_1, MINUS_2, MINUS_4, MINUS_6 = (-code & MASK64 for code in (1, 2, 4, 6))
CAPABLE = frozenset({"system-suspend"})

# ---- section 2: pseudo-registers


@dataclass(frozen=True)
class Register:
    name: str
    id: int
    reset: int
    accepted: tuple[int, ...]
    einval: tuple[int, ...]


REGISTERS = (
    Register("PSCI_VERSION", 0x6030_0000_0014_0000, 0x1_0001, (0x2, 0x1_0000, 0x1_0001), (0x0, 0x1, 0x3, 0x1_0002, 0x1_0003)),
    Register("WORKAROUND_1", 0x6030_0000_0014_0001, 1, (0, 1), (2, 3, 0x10, 0x11)),
    Register("WORKAROUND_2", 0x6030_0000_0014_0002, 3, (0, 1, 2, 3, 0x12), (4, 0x10, 0x11, 0x13, 0x20, 0x22)),
    Register("WORKAROUND_3", 0x6030_0000_0014_0003, 1, (0, 1), (2, 3, 0x10, 0x11)),
    Register("STD_BMAP", 0x6030_0000_0016_0000, 0x1, (0x0, 0x1), (0x2, 0x3)),
    Register("STD_HYP_BMAP", 0x6030_0000_0016_0001, 0x1, (0x0, 0x1), (0x2, 0x3)),
    Register("VENDOR_HYP_BMAP", 0x6030_0000_0016_0002, 0x3, (0x0, 0x1, 0x2, 0x3), (0x4, 0x7)),
)


@pytest.mark.parametrize("row", REGISTERS, ids=lambda row: row.name)
def test_a_register_reads_its_reset_value_and_takes_exactly_these(row: Register) -> None:
    assert make(HOST).get_one_reg(row.id) == row.reset

    for value in row.accepted:
        make(HOST).set_one_reg(row.id, value)
    for value in row.einval:
        with pytest.raises(RegisterError) as refused:
            make(HOST).set_one_reg(row.id, value)
        assert refused.value.errno == errno.EINVAL


# Each workaround register against each state of the destination: source's level x destination's level.
@pytest.mark.parametrize(
    ("source", "destination", "accepted"),
    [
        (0, "vulnerable", True),
        (0, "mitigated", True),
        (0, "unaffected", True),
        (1, "vulnerable", False),
        (1, "mitigated", True),
        (1, "unaffected", True),
        (2, "vulnerable", False),
        (2, "mitigated", False),
        (2, "unaffected", True),
    ],
)
@pytest.mark.parametrize("register", [0x6030_0000_0014_0001, 0x6030_0000_0014_0003], ids=["WORKAROUND_1", "WORKAROUND_3"])
def test_a_guest_moves_to_a_host_that_is_no_worse(register: int, source: int, destination: str, accepted: bool) -> None:
    firmware = make(HOST, mitigations=(Mitigations(destination, "mitigated", destination),))

    if accepted:
        firmware.set_one_reg(register, source)
    else:
        with pytest.raises(RegisterError, match=r"^EINVAL: "):
            firmware.set_one_reg(register, source)


# ---- section 3: calls


@dataclass(frozen=True)
class Call:
    """One call on a fresh VM of two vCPUs, vCPU 1 off. `out` are x0 and up as written; None: nothing is written there."""

    title: str
    x: tuple[int, ...]
    out: tuple[int | None, ...]
    version: Version = V1_1
    resume: Resume = Resume.NEXT
    effects: tuple[Effect, ...] = ()
    conduit: Conduit = Conduit.HVC
    imm: int = 0
    capabilities: frozenset[str] = frozenset()


def shutdown(flags: int = 0) -> tuple[Effect, ...]:
    return (SystemEvent(SystemEventType.SHUTDOWN, flags),)


def reset(flags: int = 0) -> tuple[Effect, ...]:
    return (SystemEvent(SystemEventType.RESET, flags),)


NOT_SUPPORTED = (MINUS_1, 0, 0, 0)
INVALID = (MINUS_2, 0, 0, 0)
FAILED = (MINUS_6, 0, 0, 0)
OK = (0, 0, 0, 0)
STARTED = (Runnable(1),)
SUSPENDED = (SystemEvent(SystemEventType.SUSPEND),)

CALLS = (
    # 3a conduits and results
    Call("an unknown ID", (0x1337, 1, 2, 3), NOT_SUPPORTED),
    Call("ID 1337 of kvm-unit-tests", (1337,), NOT_SUPPORTED),
    Call("the high half of x0 is not the ID's", (HI | 0x8400_0000,), (0x1_0001, 0, 0, 0)),
    Call("an HVC's immediate is not looked at", (0x8400_0000,), (0x1_0001, 0, 0, 0), imm=0xFFFF),
    Call("an SMC is dispatched as an HVC", (0x8400_0000,), (0x1_0001, 0, 0, 0), conduit=Conduit.SMC),
    Call("an SMC with an immediate gets x0 alone", (0x8400_0000, 1, 2, 3), (MINUS_1,), conduit=Conduit.SMC, imm=1),
    Call("an SMC with an immediate powers nothing off", (0x8400_0008,), (MINUS_1,), conduit=Conduit.SMC, imm=0x8000),
    Call("the largest ID", (0xFFFF_FFFF,), NOT_SUPPORTED),
    Call("ID 0", (0,), NOT_SUPPORTED),
    # 3b PSCI 0.2 and later
    Call("PSCI_VERSION at 0.2", (0x8400_0000,), (0x2, 0, 0, 0), V0_2),
    Call("PSCI_VERSION at 1.0", (0x8400_0000,), (0x1_0000, 0, 0, 0), V1_0),
    Call("CPU_SUSPEND takes anything", (0x8400_0001, MASK64, 1, 2), OK, resume=Resume.WAIT),
    Call("CPU_SUSPEND by SMC64", (0xC400_0001, 0, 0, 0), OK, resume=Resume.WAIT),
    Call("CPU_OFF", (0x8400_0002,), OK, resume=Resume.NEVER),
    Call("CPU_OFF by SMC", (0x8400_0002,), OK, resume=Resume.NEVER, conduit=Conduit.SMC),
    Call("MIGRATE", (0xC400_0005, 1), NOT_SUPPORTED),
    Call("MIGRATE by SMC32", (0x8400_0005, 1), NOT_SUPPORTED),
    Call("MIGRATE_INFO_TYPE", (0x8400_0006,), (2, 0, 0, 0)),
    Call("MIGRATE_INFO_UP_CPU", (0xC400_0007,), NOT_SUPPORTED),
    Call("MIGRATE_INFO_UP_CPU by SMC32", (0x8400_0007,), NOT_SUPPORTED),
    Call("SYSTEM_OFF", (0x8400_0008, 1, 2, 3), FAILED, resume=Resume.EXIT, effects=shutdown()),
    Call("SYSTEM_RESET", (0x8400_0009, 1, 2, 3), FAILED, resume=Resume.EXIT, effects=reset()),
    Call("SYSTEM_SUSPEND", (0xC400_000E, 1, 2), (), resume=Resume.EXIT, effects=SUSPENDED, capabilities=CAPABLE),
    Call(
        "SYSTEM_SUSPEND by SMC32 narrows",
        (0x8400_000E, HI | 1, HI | 2, HI | 3),
        (None, 1, 2, 3),
        resume=Resume.EXIT,
        effects=SUSPENDED,
        capabilities=CAPABLE,
    ),
    Call("SYSTEM_SUSPEND without the capability", (0xC400_000E, 1, 2), NOT_SUPPORTED),
    Call("SYSTEM_SUSPEND at 0.2", (0xC400_000E, 1, 2), NOT_SUPPORTED, V0_2, capabilities=CAPABLE),
    Call("SYSTEM_RESET2 warm", (0xC400_0012, 0, 9, 8), (MINUS_6,), resume=Resume.EXIT, effects=reset(1)),
    Call("SYSTEM_RESET2 of a vendor", (0xC400_0012, 0x8000_0000), (MINUS_6,), resume=Resume.EXIT, effects=reset(1)),
    Call("SYSTEM_RESET2's type is a word", (0xC400_0012, HI), (MINUS_6,), resume=Resume.EXIT, effects=reset(1)),
    Call("SYSTEM_RESET2 by SMC32 narrows", (0x8400_0012, HI, HI | 9, HI), (MINUS_6, 0, 9, 0), resume=Resume.EXIT, effects=reset(1)),
    Call("SYSTEM_RESET2 of a reserved type", (0xC400_0012, 1, 9, 8), INVALID),
    Call("SYSTEM_RESET2 at 1.0", (0xC400_0012, 0), NOT_SUPPORTED, V1_0),
    Call("SYSTEM_OFF2 is not there", (0xC400_0015, 1), NOT_SUPPORTED),
    Call("the 64-bit ID of PSCI_VERSION", (0xC400_0000,), NOT_SUPPORTED),
    Call("the 64-bit ID of CPU_OFF", (0xC400_0002,), NOT_SUPPORTED),
    Call("the 64-bit ID of SYSTEM_OFF", (0xC400_0008,), NOT_SUPPORTED),
    Call("the 64-bit ID of PSCI_FEATURES", (0xC400_000A, 0x8400_0000), NOT_SUPPORTED),
    *(Call(f"optional function {fid:#x}", (fid, 0), NOT_SUPPORTED) for fid in (0x8400_000B, 0x8400_000C, 0xC400_000C, 0x8400_000D)),
    *(Call(f"optional function {fid:#x}", (fid, 0), NOT_SUPPORTED) for fid in (0x8400_000F, 0x8400_0010, 0xC400_0011, 0x8400_0013)),
    Call("a 0.1 ID on a later guest", (0x95C1_BA60, 1, ENTRY), NOT_SUPPORTED),
    # 3c CPU_ON
    Call("CPU_ON", (0xC400_0003, 1, ENTRY, 7), OK, effects=STARTED),
    Call("CPU_ON by SMC32 looks at low halves", (0x8400_0003, HI | 1, HI | ENTRY, HI | 7), OK, effects=STARTED),
    Call("CPU_ON with a reserved bit", (0xC400_0003, 0x8000_0001, ENTRY), INVALID),
    Call("CPU_ON with bit 24", (0xC400_0003, 0x100_0001, ENTRY), INVALID),
    Call("CPU_ON of nobody", (0xC400_0003, 2, ENTRY), INVALID),
    Call("CPU_ON of nobody by SMC32 still clears", (0x8400_0003, HI | 2, HI | ENTRY, HI), INVALID),
    Call("CPU_ON of oneself", (0xC400_0003, 0, ENTRY), (MINUS_4, 0, 0, 0)),
    Call("CPU_ON at an odd entry point", (0xC400_0003, 1, 0x3), OK, effects=STARTED),
    # 3b AFFINITY_INFO
    Call("AFFINITY_INFO of a vCPU that is on", (0xC400_0004, 0, 0), OK),
    Call("AFFINITY_INFO of a vCPU that is off", (0xC400_0004, 1, 0), (1, 0, 0, 0)),
    Call("AFFINITY_INFO of all", (0xC400_0004, 1, 3), OK),
    Call("AFFINITY_INFO above level 3", (0xC400_0004, 0, 4), INVALID),
    Call("AFFINITY_INFO's level has 64 bits by SMC64", (0xC400_0004, 0, HI), INVALID),
    Call("AFFINITY_INFO's level has 32 bits by SMC32", (0x8400_0004, HI | 1, HI), (1, 0, 0, 0)),
    Call("AFFINITY_INFO of nobody", (0xC400_0004, 2, 0), INVALID),
    Call("AFFINITY_INFO with a reserved bit", (0xC400_0004, 0x8000_0000, 0), INVALID),
    # 3e PSCI 0.1
    Call("0.1 CPU_SUSPEND", (0x95C1_BA5E, 0), NOT_SUPPORTED, V0_1),
    Call("0.1 CPU_OFF", (0x95C1_BA5F, 0), OK, V0_1, Resume.NEVER),
    Call("0.1 CPU_ON", (0x95C1_BA60, 1, ENTRY, 7), OK, V0_1, effects=STARTED),
    Call("0.1 CPU_ON is not narrowed", (0x95C1_BA60, HI | 1, ENTRY), INVALID, V0_1),
    Call("0.1 CPU_ON of a vCPU that is on", (0x95C1_BA60, 0, ENTRY), INVALID, V0_1),
    Call("0.1 MIGRATE", (0x95C1_BA61, 1), NOT_SUPPORTED, V0_1),
    Call("a later ID on a 0.1 guest", (0x8400_0000,), NOT_SUPPORTED, V0_1),
    Call("SMCCC_VERSION on a 0.1 guest", (0x8000_0000,), (0x1_0001, 0, 0, 0), V0_1),
    Call("TRNG on a 0.1 guest", (0x8400_0050,), (0x1_0000, 0, 0, 0), V0_1),
    # 3f SMCCC
    Call("SMCCC_VERSION", (0x8000_0000,), (0x1_0001, 0, 0, 0)),
    Call("ARCH_FEATURES of itself", (0x8000_0001, 0x8000_0001), NOT_SUPPORTED),
    Call("ARCH_FEATURES of SMCCC_VERSION", (0x8000_0001, 0x8000_0000), NOT_SUPPORTED),
    Call("ARCH_FEATURES of SOC_ID", (0x8000_0001, 0x8000_0002), NOT_SUPPORTED),
    Call("ARCH_FEATURES of PV time", (0x8000_0001, HI | 0xC500_0020), OK),
    Call("ARCH_FEATURES of TRNG_RND64", (0x8000_0001, 0xC400_0053), NOT_SUPPORTED),
    Call("ARCH_FEATURES of a mitigated workaround 1", (0x8000_0001, 0x8000_8000), OK),
    Call("ARCH_FEATURES of a mitigated workaround 2", (0x8000_0001, 0x8000_7FFF), (MINUS_2, 0, 0, 0)),
    Call("SOC_ID", (0x8000_0002, 0), NOT_SUPPORTED),
    *(Call(f"workaround {fid:#x} by HVC", (fid, 1, 2, 3), (0, 0)) for fid in (0x8000_8000, 0x8000_7FFF, 0x8000_3FFF)),
    *(
        Call(f"workaround {fid:#x} by SMC", (fid, 1, 2, 3), NOT_SUPPORTED, conduit=Conduit.SMC)
        for fid in (0x8000_8000, 0x8000_7FFF, 0x8000_3FFF)
    ),
    # 3g PV time, no structure configured
    Call("PV_TIME_FEATURES", (0xC500_0020, 0xC500_0020), NOT_SUPPORTED),
    Call("PV_TIME_ST", (0xC500_0021,), NOT_SUPPORTED),
    # 3h TRNG
    Call("TRNG_FEATURES of TRNG_RND64", (0x8400_0051, 0xC400_0053), OK),
    Call("TRNG_FEATURES compares 64 bits", (0x8400_0051, HI | 0xC400_0053), NOT_SUPPORTED),
    Call("TRNG_FEATURES of PTP", (0x8400_0051, 0x8600_0001), NOT_SUPPORTED),
    Call("TRNG_GET_UUID", (0x8400_0052,), (0x00E0_210D, 0xEB11_8443, 0x4452_7080, 0x4C5A_4E55)),
    Call("TRNG_RND32 of 97 bits", (0x8400_0053, 97), INVALID),
    Call("TRNG_RND64 of 193 bits", (0xC400_0053, 193), INVALID),
    Call("TRNG_RND64 of no bits", (0xC400_0053, HI), OK),
    # 3i vendor
    Call("CALL_UID", (0x8600_FF01,), (0xB66F_B428, 0xE911_C52E, 0x564B_CAA9, 0x743A_004D)),
    Call("VENDOR_HYP_FEATURES", (0x8600_0000,), (0x3, 0, 0, 0)),
    Call("PTP of a third counter", (0x8600_0001, 2), NOT_SUPPORTED),
    Call("PTP at power-on", (0x8600_0001, HI | 1), (WALL_CLOCK_NS >> 32, WALL_CLOCK_NS & 0xFFFF_FFFF, 0, 0)),
    Call("DISCOVER_IMPL_VER", (0xC600_0040,), NOT_SUPPORTED),
    # 1c protected guests' calls
    *(Call(f"pKVM call {fid:#x}", (fid, 0), NOT_SUPPORTED) for fid in (0xC600_0002, 0xC600_0003, 0xC600_0004, 0xC600_0007)),
)


@pytest.mark.parametrize("row", CALLS, ids=lambda row: row.title)
def test_a_call_has_the_tables_reply(row: Call) -> None:
    firmware = make(HOST, psci=row.version, capabilities=row.capabilities)
    x0, x1, x2, x3 = (*row.x, 0, 0, 0)[:4]

    reply = firmware.handle(Trap(0, row.conduit, (x0, x1, x2, x3), row.imm))

    written = tuple((register, value) for register, value in enumerate(row.out) if value is not None)
    assert reply == Reply(written, row.resume, row.effects)


# ---- 3c: when a CPU_ON reset takes effect


@pytest.mark.parametrize("context", [0, 7, MASK64], ids=hex)
@pytest.mark.parametrize("version", [V0_1, V0_2, V1_0, V1_1], ids=str)
def test_the_started_vcpu_has_pc_x0_and_reset_pstate(version: Version, context: int) -> None:
    firmware = make(HOST, psci=version)
    fid = 0x95C1_BA60 if version == V0_1 else 0xC400_0003
    firmware.handle(Trap(0, Conduit.HVC, (fid, 1, 0xFEED_F00D, context), big_endian=True))

    assert firmware.handle(Enter(1)) == Reply(entry=EntryState(0xFEED_F00D, context, 0x3C5, True))


# ---- section 6: what KVM's own selftests assert


def test_selftest_cpu_on_polls_affinity_info_and_sees_on_or_off_alone() -> None:
    firmware = make(HOST)
    assert firmware.handle(Trap(0, Conduit.HVC, (0xC400_0004, 1, 0, 0))) == Reply(((0, 1), (1, 0), (2, 0), (3, 0)))
    firmware.handle(Trap(0, Conduit.HVC, (0xC400_0003, 1, 0xFEED_F00D, 0xDEAD_C0DE)))
    assert firmware.handle(Trap(0, Conduit.HVC, (0xC400_0004, 1, 0, 0))) == Reply(((0, 0), (1, 0), (2, 0), (3, 0)))


GATED = (0x8400_0050, 0x8400_0051, 0x8400_0052, 0x8400_0053, 0xC400_0053, 0xC500_0020, 0xC500_0021, 0x8600_0000, 0x8600_0001, 0x8600_FF01)


@pytest.mark.parametrize("fid", GATED, ids=hex)
def test_selftest_hypercalls_with_all_bits_cleared_every_gated_call_is_refused(fid: int) -> None:
    own = 0 if fid == 0x8600_0001 else fid
    cleared, default = make(HOST, pv_time_base=0x4700_0000), make(HOST, pv_time_base=0x4700_0000)
    for register in (0x6030_0000_0016_0000, 0x6030_0000_0016_0001, 0x6030_0000_0016_0002):
        cleared.set_one_reg(register, 0)

    refused = Reply(((0, MINUS_1), (1, 0), (2, 0), (3, 0)))
    assert cleared.handle(Trap(0, Conduit.HVC, (fid, own, 0, 0))) == refused
    assert default.handle(Trap(0, Conduit.HVC, (fid, own, 0, 0))) != refused


# ---- section 7: bugs worth regression cases


def test_cpu_on_takes_an_mpidr_and_not_an_index() -> None:
    firmware = make(HOST, mpidrs=(0x0, 0x100))

    assert firmware.handle(Trap(0, Conduit.HVC, (0xC400_0003, 1, ENTRY, 0))) == Reply(((0, MINUS_2), (1, 0), (2, 0), (3, 0)))
    assert firmware.handle(Trap(0, Conduit.HVC, (0xC400_0003, 0x100, ENTRY, 0))) == Reply(((0, 0), (1, 0), (2, 0), (3, 0)), effects=STARTED)


def test_siblings_do_not_run_on_after_system_off() -> None:
    firmware = make(HOST, vcpus=3)
    for vcpu in (1, 2):
        firmware.handle(Trap(0, Conduit.HVC, (0xC400_0003, vcpu, ENTRY, 0)))
        firmware.handle(Enter(vcpu))

    firmware.handle(Trap(1, Conduit.HVC, (0x8400_0008, 0, 0, 0)))

    assert firmware.power.states == [PowerState.OFF] * 3
