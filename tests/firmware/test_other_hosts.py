"""What a guest sees of the hosts that are not KVM: a table of answers, each cell with its source in `SOURCES`, and what a table cannot say.

A cell is x0 after the call, by the host's own conduit: a signed number is 64 bits wide, `w` makes one of 32; UNDEF and PARKED are no
answers, and an event leaves the guest for good.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import pytest

from firmware.abi import MASK64, Version
from firmware.dispatch import Firmware
from firmware.errors import UserError
from firmware.host import Mitigations
from firmware.hosts import HOSTS
from firmware.trap import Conduit, Enter, EntryState, Reply, Resume, SystemEvent, SystemEventType, Trap, Woken
from tests.firmware.harness import CONTEXT, ENTRY, RAM, call, make

UNDEF: Final = "UNDEF"
PARKED: Final = "parked"
UNCHANGED: Final = "x0 as it was"
OFF, RESET, SUSPENDED = "off", "reset", "suspended"
Cell = int | str


def w(status: int) -> int:
    """Return a status of 32 bits in a register of 64."""
    return status & 0xFFFF_FFFF


SOURCES: Final = {
    "qemu-6": "QEMU v6.2 target/arm/psci.c, arm-powerctl.c",
    "tf-a": "TF-A commit 6a164dda lib/psci/psci_main.c, psci_setup.c, plat/arm/board/fvp/fvp_pm.c",
    "tf-a-tos": "TF-A commit 6a164dda services/spd/tlkd/tlkd_pm.c",
    "xen": "Xen 4.22 xen/arch/arm/vpsci.c, vsmc.c",
    "hafnium-primary": "Hafnium commit 21bfbdc1 src/arch/aarch64/hypervisor/psci_handler.c, psci_primary_vm_handler",
    "hafnium-secondary": "Hafnium commit 21bfbdc1 src/arch/aarch64/hypervisor/psci_handler.c, psci_secondary_vm_handler",
    "jailhouse": "Jailhouse commit e57d1eff hypervisor/arch/arm-common/psci.c, smccc.c",
    "bao": "Bao commit 738e3dc5 src/arch/armv8/psci.c, aborts.c",
    "u-boot": "U-Boot commit 6073c36b arch/arm/mach-imx/imx8m/psci.c, arch/arm/cpu/armv8/psci.S",
    "u-boot-bare": "U-Boot commit 6073c36b arch/arm/cpu/armv8/psci.S",
}
ORDER: Final = tuple(SOURCES)


def conduit_of(firmware: Firmware) -> Conduit:
    return firmware.config.host.default_conduit


def seen(reply: Reply, fid: int) -> Cell:
    events = {effect.type for effect in reply.effects if isinstance(effect, SystemEvent)}
    for event, name in ((SystemEventType.SHUTDOWN, OFF), (SystemEventType.RESET, RESET), (SystemEventType.SUSPEND, SUSPENDED)):
        if event in events:
            return name
    if reply.resume is Resume.UNDEF:
        return UNDEF
    if reply.resume is Resume.NEVER:
        return PARKED
    x0 = dict(reply.regs).get(0, fid)
    return UNCHANGED if x0 == fid else x0 - (1 << 64) if x0 >> 63 else x0


def ask(firmware: Firmware, fid: int, *args: int, vcpu: int = 0, conduit: Conduit | None = None, imm: int = 0) -> Cell:
    return seen(call(firmware, fid, *args, vcpu=vcpu, conduit=conduit or conduit_of(firmware), imm=imm), fid)


class Question(NamedTuple):
    """A row of the table: what is asked, and its cells in `ORDER`."""

    topic: str
    ask: Callable[[Firmware], Cell]
    cells: tuple[Cell, ...]


def asks(fid: int, *args: int, vcpu: int = 0) -> Callable[[Firmware], Cell]:
    return lambda firmware: ask(firmware, fid, *args, vcpu=vcpu)


def twice(firmware: Firmware) -> Cell:
    ask(firmware, 0xC400_0003, 1, ENTRY)
    return ask(firmware, 0xC400_0003, 1, ENTRY)


def pending(firmware: Firmware) -> Cell:
    ask(firmware, 0xC400_0003, 1, ENTRY)
    return ask(firmware, 0xC400_0004, 1)


def among_others(fid: int, *args: int) -> Callable[[Firmware], Cell]:
    def asked(firmware: Firmware) -> Cell:
        ask(firmware, 0xC400_0003, 1, ENTRY)
        firmware.handle(Enter(1))
        return ask(firmware, fid, *args)

    return asked


# fmt: off
QUESTIONS: Final = (
    #         topic, what is asked
    #         qemu-6, tf-a,      tf-a-tos,  xen,       hafnium primary, secondary, jailhouse, bao,  u-boot,   u-boot-bare
    Question("PSCI_VERSION", asks(0x8400_0000),
             (2,     0x10001,   0x10001,   0x10001,   0x10001,  0x10001,  0x10001,  0x10001,  0x10000,  w(-1))),
    Question("SMCCC_VERSION", asks(0x8000_0000),
             (UNDEF, 0x10005,   0x10005,   0x10002,   -1,       -1,       0x10001,  -1,       w(-1),    w(-1))),
    Question("FEATURES(CPU_SUSPEND)", asks(0x8400_000A, 0xC400_0001),
             (UNDEF, 1,         1,         0,         1,        2,        0,        0,        w(-1),    w(-1))),
    Question("FEATURES(SMCCC_VERSION)", asks(0x8400_000A, 0x8000_0000),
             (UNDEF, 0,         0,         0,         0x10002,  w(-1),    0,        -1,       w(-1),    w(-1))),
    Question("FEATURES(MIGRATE_INFO_TYPE)", asks(0x8400_000A, 0x8400_0006),
             (UNDEF, -1,        0,         0,         w(-1),    w(-1),    -1,       -1,       0,        w(-1))),
    Question("FEATURES(SYSTEM_OFF)", asks(0x8400_000A, 0x8400_0008),
             (UNDEF, 0,         0,         0,         0,        w(-1),    -1,       -1,       0,        w(-1))),
    Question("FEATURES(CPU_ON), upper half set", asks(0x8400_000A, 0x1_C400_0003),
             (UNDEF, 0,         0,         0,         0,        0,        -1,       0,        0,        w(-1))),
    Question("FEATURES, SMC64", asks(0xC400_000A, 0x8400_0000),
             (UNDEF, -1,        -1,        -1,        0,        0,        -1,       -1,       -1,       -1)),
    Question("ARCH_FEATURES(SMCCC_VERSION)", asks(0x8000_0001, 0x8000_0000),
             (UNDEF, 0,         0,         -1,        -1,       -1,       -1,       -1,       w(-1),    w(-1))),
    Question("unknown, Standard Secure", asks(0x8400_0BAD),
             (UNDEF, -1,        -1,        -1,        -1,       -1,       -1,       -1,       w(-1),    w(-1))),
    Question("unknown, Arm Architecture", asks(0x8000_0BAD),
             (UNDEF, -1,        -1,        -1,        -1,       -1,       PARKED,   -1,       w(-1),    w(-1))),
    Question("unknown, SiP", asks(0x8200_0BAD),
             (UNDEF, -1,        -1,        -1,        -1,       -1,       -1,       -1,       w(-1),    w(-1))),
    Question("unknown, vendor hypervisor", asks(0x8600_0BAD),
             (UNDEF, -1,        -1,        -1,        -1,       -1,       PARKED,   -2,       w(-1),    w(-1))),
    Question("PSCI's range, no such function", asks(0x8400_001F),
             (UNDEF, -1,        -1,        -1,        -1,       -1,       -1,       -1,       -1,       -1)),
    Question("CPU_ON, bad MPIDR", asks(0xC400_0003, 0x55, ENTRY),
             (-2,    -2,        -2,        -2,        w(-2),    w(-2),    -3,       -2,       w(-2),    w(-1))),
    Question("CPU_ON, already on", asks(0xC400_0003, 0, ENTRY),
             (-4,    -4,        -4,        -4,        w(-4),    w(-4),    -4,       -4,       w(-4),    w(-1))),
    Question("CPU_ON twice before start", twice,
             (-4,    -5,        -5,        -4,        w(-4),    w(-4),    0,        -4,       w(-4),    w(-1))),
    Question("CPU_ON, odd entry", asks(0xC400_0003, 1, ENTRY + 1),
             (-2,    -9,        -9,        -9,        0,        0,        0,        0,        0,        w(-1))),
    Question("CPU_ON, entry a multiple of 2", asks(0xC400_0003, 1, ENTRY + 2),
             (-2,    0,         0,         0,         0,        0,        0,        0,        0,        w(-1))),
    Question("CPU_ON, entry outside RAM", asks(0xC400_0003, 1, 0),
             (0,     -9,        -9,        0,         0,        0,        0,        0,        0,        w(-1))),
    Question("CPU_ON, bits 63:40 set", asks(0xC400_0003, 1 << 40 | 1, ENTRY),
             (-2,    -2,        -2,        0,         w(-2),    0,        -3,       0,        w(-2),    w(-1))),
    Question("CPU_ON, SMC32, upper half set", asks(0x8400_0003, 1 << 32 | 1, ENTRY),
             (-2,    0,         0,         0,         w(-2),    0,        0,        0,        0,        w(-1))),
    Question("AFFINITY_INFO, on", asks(0xC400_0004, 0),
             (0,     0,         0,         0,         0,        0,        0,        0,        0,        w(-1))),
    Question("AFFINITY_INFO, off", asks(0xC400_0004, 1),
             (1,     1,         1,         1,         1,        1,        1,        0,        1,        w(-1))),
    Question("AFFINITY_INFO, level 1", asks(0xC400_0004, 0, 1),
             (0,     -2,        -2,        0,         w(-1),    w(-2),    0,        0,        w(-2),    w(-1))),
    Question("AFFINITY_INFO, level 4", asks(0xC400_0004, 0, 4),
             (0,     -2,        -2,        -2,        w(-1),    w(-2),    0,        0,        w(-2),    w(-1))),
    Question("AFFINITY_INFO, no match", asks(0xC400_0004, 0x55),
             (-2,    -2,        -2,        1,         w(-2),    w(-2),    -3,       0,        w(-2),    w(-1))),
    Question("AFFINITY_INFO, SMC32, upper half set", asks(0x8400_0004, 1 << 32),
             (-2,    0,         0,         0,         w(-2),    0,        -3,       0,        0,        w(-1))),
    Question("AFFINITY_INFO, pending", pending,
             (0,     2,         2,         0,         0,        0,        1,        0,        0,        w(-1))),
    Question("MIGRATE_INFO_TYPE", asks(0x8400_0006),
             (2,     -1,        1,         2,         w(-1),    w(-1),    -1,       2,        2,        w(-1))),
    Question("MIGRATE_INFO_UP_CPU", asks(0xC400_0007),
             (UNDEF, -1,        0x8000_0000, -1,        w(-1),    w(-1),    -1,       -1,       w(-1),    w(-1))),
    Question("MIGRATE, SMC32", asks(0x8400_0005, 1),
             (-1,    -1,        -1,        -1,        w(-1),    w(-1),    -1,       -1,       w(-1),    w(-1))),
    Question("MIGRATE, SMC64", asks(0xC400_0005, 1),
             (UNDEF, -1,        -1,        -1,        w(-1),    w(-1),    -1,       -1,       w(-1),    w(-1))),
    Question("SYSTEM_OFF", asks(0x8400_0008),
             (OFF,   OFF,       OFF,       OFF,       OFF,      w(-1),    -1,       -1,       OFF,      w(-1))),
    Question("SYSTEM_RESET", asks(0x8400_0009),
             (RESET, RESET,     RESET,     RESET,     RESET,    w(-1),    -1,       -1,       RESET,    w(-1))),
    Question("SYSTEM_RESET2, SMC64", asks(0xC400_0012, 0),
             (UNDEF, -1,        -1,        -1,        w(-1),    w(-1),    -1,       -1,       RESET,    w(-1))),
    Question("SYSTEM_RESET2, SMC64, a reserved type", asks(0xC400_0012, 5),
             (UNDEF, -1,        -1,        -1,        w(-1),    w(-1),    -1,       -1,       RESET,    w(-1))),
    Question("SYSTEM_RESET2, SMC32", asks(0x8400_0012, 0),
             (UNDEF, -1,        -1,        -1,        w(-1),    w(-1),    -1,       -1,       -1,       -1)),
    Question("SYSTEM_OFF2", asks(0xC400_0015, 1),
             (UNDEF, -1,        -1,        -1,        -1,       -1,       -1,       -1,       -1,       -1)),
    Question("SYSTEM_SUSPEND", asks(0xC400_000E, ENTRY),
             (UNDEF, SUSPENDED, SUSPENDED, SUSPENDED, w(-1),    w(-1),    -1,       -1,       w(-1),    w(-1))),
    Question("SYSTEM_SUSPEND, another CPU on", among_others(0xC400_000E, ENTRY),
             (UNDEF, -3,        -3,        -3,        w(-1),    w(-1),    -1,       -1,       w(-1),    w(-1))),
    Question("the same, odd entry", among_others(0xC400_000E, ENTRY + 1),
             (UNDEF, -3,        -3,        -9,        w(-1),    w(-1),    -1,       -1,       w(-1),    w(-1))),
    Question("SET_SUSPEND_MODE", asks(0x8400_000F, 0),
             (UNDEF, 0,         0,         -1,        w(-1),    w(-1),    -1,       -1,       w(-1),    w(-1))),
    Question("STAT_COUNT", asks(0xC400_0011, 0, 0),
             (UNDEF, 0,         0,         -1,        w(-1),    w(-1),    -1,       -1,       w(-1),    w(-1))),
    Question("NODE_HW_STATE, CPU", asks(0xC400_000D, 1, 0),
             (UNDEF, 1,         1,         -1,        w(-1),    w(-1),    -1,       -1,       w(-1),    w(-1))),
    Question("NODE_HW_STATE, cluster", asks(0xC400_000D, 1, 1),
             (UNDEF, 0,         0,         -1,        w(-1),    w(-1),    -1,       -1,       w(-1),    w(-1))),
    Question("NODE_HW_STATE, system", asks(0xC400_000D, 1, 2),
             (UNDEF, -2,        -2,        -1,        w(-1),    w(-1),    -1,       -1,       w(-1),    w(-1))),
    Question("MEM_PROTECT", asks(0x8400_0013, 1),
             (UNDEF, 0,         0,         -1,        w(-1),    w(-1),    -1,       -1,       -1,       -1)),
    Question("MEM_PROTECT_CHECK_RANGE", asks(0xC400_0014, ENTRY, 4),
             (UNDEF, 0,         0,         -1,        w(-1),    w(-1),    -1,       -1,       -1,       -1)),
    Question("CPU_FREEZE", asks(0x8400_000B),
             (UNDEF, -1,        -1,        -1,        w(-1),    w(-1),    -1,       -1,       w(-1),    w(-1))),
    Question("CPU_DEFAULT_SUSPEND", asks(0xC400_000C, ENTRY),
             (UNDEF, -1,        -1,        -1,        w(-1),    w(-1),    -1,       -1,       w(-1),    w(-1))),
    Question("SOC_ID version", asks(0x8000_0002, 0),
             (UNDEF, 0x43B_0000, 0x43B_0000, -1,        -1,       -1,       PARKED,   -1,       w(-1),    w(-1))),
    Question("TRNG_VERSION", asks(0x8400_0050),
             (UNDEF, -1,        -1,        -1,        -1,       -1,       -1,       -1,       w(-1),    w(-1))),
    Question("PV_TIME_FEATURES", asks(0xC500_0020, 0xC500_0020),
             (UNDEF, -1,        -1,        -1,        -1,       -1,       PARKED,   -1,       w(-1),    w(-1))),
    Question("Standard Secure count", asks(0x8400_FF00),
             (UNDEF, 30,        30,        17,        -1,       -1,       -1,       -1,       w(-1),    w(-1))),
    Question("Standard Secure UID, w0", asks(0x8400_FF01),
             (UNDEF, 0x108D_905B, 0x108D_905B, 0x6F38_63F8, -1,       -1,       -1,       -1,       w(-1),    w(-1))),
    Question("Standard Secure revision, w0", asks(0x8400_FF03),
             (UNDEF, 0,         0,         0,         -1,       -1,       -1,       -1,       w(-1),    w(-1))),
    Question("0.1's common CPU_ON ID", asks(0x95C1_BA60, 1, ENTRY),
             (0,     -1,        -1,        -1,        -1,       -1,       PARKED,   -1,       w(-1),    w(-1))),
    Question("0.1's CPU_ON ID of Xen", asks(0x0000_0002, 1, ENTRY),
             (UNDEF, -1,        -1,        0,         -1,       -1,       PARKED,   -1,       w(-1),    w(-1))),
    Question("CPU_SUSPEND, a level in power_state", asks(0xC400_0001, 0x100_0000),
             (-2,    -2,        -2,        0,         -2,       0,        0,        0,        w(-1),    w(-1))),
)
# fmt: on

CELLS: Final = [(question, host) for question in QUESTIONS for host in ORDER]


@pytest.mark.parametrize(("question", "host"), CELLS, ids=lambda value: value.topic if isinstance(value, Question) else value)
def test_a_call_gets_the_answer_of_the_hosts_source(question: Question, host: str) -> None:
    firmware = make(host, vcpus=2)

    assert question.ask(firmware) == question.cells[ORDER.index(host)], SOURCES[host]


# ---- every ID


SOME_NUMBERS: Final = (0x0000, 0x0001, 0x0005, 0x0011, 0x0020, 0x0053, 0x3FFF, 0x7FFF, 0x8000, 0xFF00, 0xFFFF)


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("conduit", Conduit)
def test_every_owner_answers_every_kind_of_call(host: str, conduit: Conduit) -> None:
    firmware = make(host)

    for bits in range(1 << 8):
        for reserved in (0x00, 0x01, 0x60):
            for number in SOME_NUMBERS:
                fid = bits << 24 | reserved << 16 | number
                reply = firmware.handle(Trap(0, conduit, (fid, 0, 0, 0)))
                answered = reply.regs or reply.effects or reply.resume is not Resume.NEXT
                assert answered or is_quiet(host, conduit, fid), hex(fid)
                firmware.handle(Woken(0))
                firmware.power.reset()


def is_quiet(host: str, conduit: Conduit, fid: int) -> bool:
    """Say whether a call may leave every register as it is: a workaround, or an HVC that nobody in Hafnium handles."""
    return fid & ~0x1_0000 in (0x8000_3FFF, 0x8000_7FFF, 0x8000_8000) or (host.startswith("hafnium") and conduit is Conduit.HVC)


# ---- conduits and immediates


@pytest.mark.parametrize(
    ("host", "by_hvc", "by_smc"),
    [
        ("qemu-6", 2, UNDEF),
        ("tf-a", UNDEF, 0x1_0001),
        ("xen", 0x1_0001, 0x1_0001),
        ("hafnium-primary", 0x1_0001, 0x1_0001),
        ("hafnium-secondary", 0x1_0001, 0x1_0001),
        ("jailhouse", PARKED, 0x1_0001),
        ("bao", 0x1_0001, 0x1_0001),
        ("u-boot", UNDEF, 0x1_0000),
    ],
)
def test_a_call_by_the_other_conduit(host: str, by_hvc: Cell, by_smc: Cell) -> None:
    for conduit, cell in ((Conduit.HVC, by_hvc), (Conduit.SMC, by_smc)):
        firmware = make(host, conduits=frozenset({HOSTS[host].default_conduit}))
        assert ask(firmware, 0x8400_0000, conduit=conduit) == cell, conduit


@pytest.mark.parametrize("conduit", Conduit)
def test_xen_takes_no_call_with_an_immediate(conduit: Conduit) -> None:
    assert ask(make("xen"), 0x8400_0000, conduit=conduit, imm=1) == UNDEF
    assert ask(make("bao"), 0x8400_0000, conduit=conduit, imm=1) == 0x1_0001


@pytest.mark.parametrize("host", ["hafnium-primary", "hafnium-secondary"])
def test_hafnium_leaves_x0_as_it_is_after_an_unknown_hvc(host: str) -> None:
    firmware = make(host)

    assert call(firmware, 0x8000_0000, conduit=Conduit.HVC) == Reply()
    assert call(firmware, 0x8400_0006, conduit=Conduit.HVC) == Reply(((0, w(-1)),))
    assert call(firmware, 0x8000_0000, conduit=Conduit.SMC) == Reply(((0, MASK64),))


@pytest.mark.parametrize("fid", [0x8400_0000, 0xC400_0000, 0x8401_0000, 0xFFFF_FFFF_C401_0000])
def test_hafnium_looks_at_neither_bit_30_nor_the_hint_nor_the_upper_half(fid: int) -> None:
    assert ask(make("hafnium-primary"), fid) == 0x1_0001


# ---- what becomes of a CPU


def entry_of(host: str, *, fid: int = 0xC400_0003, target: int = 1) -> EntryState:
    firmware = make(host)
    assert ask(firmware, fid, target, ENTRY, CONTEXT) == 0
    entry = firmware.handle(Enter(1)).entry
    assert entry is not None
    return entry


@pytest.mark.parametrize(
    ("host", "x0"),
    [
        *((host, CONTEXT) for host in ("qemu-6", "tf-a", "xen", "hafnium-primary", "hafnium-secondary", "bao")),
        ("jailhouse", 0),
        ("u-boot", 0),
    ],
)
def test_a_started_cpu_finds_its_context_or_not(host: str, x0: int) -> None:
    assert entry_of(host) == EntryState(ENTRY, x0, 0x3C5, False)


def test_xens_cpu_on_of_0_1_hands_on_no_context_and_knows_no_code_of_0_2() -> None:
    assert entry_of("xen", fid=0x2, target=0xFFFF_FFFF_0000_0001).x0 == 0
    assert ask(make("xen"), 0x2, 0, ENTRY) == -2
    assert ask(make("xen"), 0x2, 1, ENTRY + 1) == -2
    assert ask(make("xen"), 0x8400_000A, 0x2) == -1


@pytest.mark.parametrize("host", ["xen", "bao", "jailhouse", "hafnium-primary", "qemu-6"])
def test_a_cpu_starts_little_endian_whoever_starts_it(host: str) -> None:
    firmware = make(host)
    call(firmware, 0xC400_0003, 1, ENTRY, conduit=conduit_of(firmware), big_endian=True)

    entry = firmware.handle(Enter(1)).entry

    assert entry is not None
    assert not entry.big_endian


@pytest.mark.parametrize(
    ("host", "back_at"), [("tf-a", ENTRY), ("hafnium-primary", ENTRY), ("bao", ENTRY), ("xen", None), ("hafnium-secondary", None)]
)
def test_powerdown_comes_back_at_its_entry_where_it_is_not_a_mere_wait(host: str, back_at: int | None) -> None:
    firmware = make(host, vcpus=1)

    reply = call(firmware, 0xC400_0001, 0x1_0000, ENTRY, CONTEXT, conduit=conduit_of(firmware))
    entry = firmware.handle(Woken(0)).entry

    assert reply.resume is Resume.WAIT
    assert (None if entry is None else entry.pc) == back_at


@pytest.mark.parametrize(
    ("power_state", "answer"),
    [
        (0x0, None),
        (0x1_0000, None),
        (0x101_0000, None),
        (0x201_0000, None),
        (0x301_0000, -2),
        (0x100_0000, -2),
        (0x1, -2),
        (0x8000_0000, -2),
    ],
)
def test_fvp_knows_standby_of_a_cpu_and_powerdown_up_to_the_system(power_state: int, answer: int | None) -> None:
    for host in ("tf-a", "hafnium-primary"):
        reply = call(make(host, vcpus=1), 0xC400_0001, power_state, ENTRY)
        assert (reply.resume is Resume.WAIT) is (answer is None)
        assert answer is None or reply.regs == ((0, answer & MASK64),)


def test_a_uniprocessor_trusted_os_does_not_keep_its_cpu_on() -> None:
    firmware = make("tf-a-tos")

    assert seen(call(firmware, 0x8400_0002, conduit=Conduit.SMC), 0x8400_0002) == PARKED
    assert ask(firmware, 0xC400_0004, 0, vcpu=1) == 1


def test_a_parked_cpu_is_off_and_can_be_started_again() -> None:
    firmware = make("jailhouse")

    assert ask(firmware, 0x8600_FF01) == PARKED
    assert ask(firmware, 0xC400_0004, 0, vcpu=1) == 1
    assert ask(firmware, 0xC400_0003, 0, ENTRY, vcpu=1) == 0


# ---- workarounds: (v2, v4, bhb, SSBS) of the host's CPU, and ARCH_FEATURES(WORKAROUND_1, 2, 3)

NEEDED: Final = Mitigations()
UNAFFECTED: Final = Mitigations("unaffected", "unaffected", "unaffected")
VULNERABLE: Final = Mitigations("vulnerable", "vulnerable", "vulnerable")


@pytest.mark.parametrize(
    ("host", "mine", "answers"),
    [
        ("tf-a", NEEDED, (0, 0, 0)),
        ("tf-a", UNAFFECTED, (1, 1, 1)),
        ("tf-a", VULNERABLE, (-1, -1, -1)),
        ("tf-a", Mitigations(spectre_bhb="vulnerable"), (0, 0, 0)),
        ("tf-a", Mitigations(ssbs=True), (0, 1, 0)),
        ("xen", NEEDED, (0, 0, 0)),
        ("xen", UNAFFECTED, (-1, 0, -1)),
        ("xen", VULNERABLE, (-1, -1, -1)),
        ("xen", Mitigations(spectre_v2="unaffected"), (0, 0, 0)),
        ("jailhouse", NEEDED, (0, 0, -1)),
        ("jailhouse", UNAFFECTED, (1, 1, -1)),
        ("jailhouse", VULNERABLE, (-1, -1, -1)),
    ],
)
def test_what_arch_features_says_of_the_workarounds(host: str, mine: Mitigations, answers: tuple[int, ...]) -> None:
    firmware = make(host, mitigations=(mine,))

    assert tuple(ask(firmware, 0x8000_0001, fid) for fid in (0x8000_8000, 0x8000_7FFF, 0x8000_3FFF)) == answers


@pytest.mark.parametrize("fid", [0x8000_8000, 0x8000_7FFF, 0x8000_3FFF])
def test_tf_a_does_a_workaround_that_it_does_not_promise(fid: int) -> None:
    assert call(make("tf-a", mitigations=(VULNERABLE,)), fid, conduit=Conduit.SMC) == Reply()


def test_xen_clears_registers_after_a_workaround_by_hvc_alone() -> None:
    firmware = make("xen")

    assert call(firmware, 0x8000_8000, conduit=Conduit.HVC) == Reply(((0, 0), (1, 0)))
    assert call(firmware, 0x8000_3FFF, conduit=Conduit.HVC) == Reply(((0, 0), (1, 0)))
    assert call(firmware, 0x8000_7FFF, 1, conduit=Conduit.HVC) == Reply(((0, 0), (1, 0), (2, 0), (3, 0)))
    assert call(firmware, 0x8000_8000, conduit=Conduit.SMC) == Reply()


def test_jailhouse_parks_a_cpu_that_calls_a_workaround_it_has_not() -> None:
    assert ask(make("jailhouse"), 0x8000_8000) == UNCHANGED
    assert ask(make("jailhouse", mitigations=(VULNERABLE,)), 0x8000_7FFF) == PARKED


# ---- versions


@pytest.mark.parametrize(
    ("host", "fixed"),
    [
        *((host, Version(1, 1)) for host in ("tf-a", "xen", "hafnium-primary", "jailhouse", "bao")),
        ("u-boot", Version(1, 0)),
        ("qemu-6", Version(0, 2)),
    ],
    ids=str,
)
def test_a_fixed_version_is_all_that_can_be_asked_for(host: str, fixed: Version) -> None:
    assert make(host, psci=fixed).config.offered == fixed
    with pytest.raises(UserError, match="has no version register"):
        make(host, psci=Version(1, 3))


def test_the_ram_that_entry_points_are_held_against_is_the_machines() -> None:
    base, size_bytes = RAM

    assert ask(make("tf-a"), 0xC400_0003, 1, base + size_bytes - 4) == 0
    assert ask(make("tf-a"), 0xC400_0003, 1, base + size_bytes) == -9
