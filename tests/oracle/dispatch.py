"""From a trap to an answer: presence, discovery, truncation, which registers are written."""

from __future__ import annotations

from typing import Final

from tests.oracle.functions import BY_FID, EXTENDED_STATE_ID_FLAG, OS_INITIATED_FLAG, PREDICATES, REFUSALS, ROWS, SUCCESSES, Row
from tests.oracle.words import MASK32, MASK64, Outcome, Psci, Resume, Trap
from tests.oracle.world import NO_TRUSTED_OS, Answer, Call, Config, World

SVE_HINT: Final = 1 << 16
NEEDS_TRUSTED_OS: Final = ("MIGRATE", "0.1 MIGRATE", "MIGRATE_INFO_UP_CPU")


def present(config: Config, world: World, row: Row) -> bool:
    """Whether the host answers this function now; dispatch and discovery both ask here."""
    columns = config.columns
    version = world.version if config.feature_psci_0_2 else 0x1
    gates = (
        row.name in columns.implements,
        row.range != "psci 0.1" or version == 0x1,
        row.range != "psci" or version >= row.since,
        row.bitmap is None or bool(world.bitmaps[row.bitmap[0]] & row.bitmap[1]),
        row.name != "SYSTEM_SUSPEND" or config.cap_system_suspend or not columns.suspend_needs_cap,
        row.name not in NEEDS_TRUSTED_OS or config.trusted_os_type != NO_TRUSTED_OS,
        not row.name.startswith("ARCH_WORKAROUND") or config.workaround(row.name) != Psci.NOT_SUPPORTED,
    )
    return all(gates)


def psci_features(call: Call) -> int:
    row = BY_FID.get(call.u32)
    if row is None or not (row.range == "psci" or row.name == "SMCCC_VERSION") or not present(call.config, call.world, row):
        return Psci.NOT_SUPPORTED
    if row.name == "CPU_SUSPEND" and not call.config.columns.always_standby:
        return OS_INITIATED_FLAG | (EXTENDED_STATE_ID_FLAG if call.extended else 0)
    return row.flags


def arch_features(call: Call) -> int:
    row = BY_FID.get(call.u32)
    if row is None:
        return Psci.NOT_SUPPORTED
    if row.name.startswith("ARCH_WORKAROUND"):
        return call.config.workaround(row.name)
    listed = row.name in call.config.columns.arch_features_lists and present(call.config, call.world, row)
    return Psci.SUCCESS if listed else Psci.NOT_SUPPORTED


def answer(call: Call) -> Answer:
    columns = call.config.columns
    if call.name == "PSCI_FEATURES":
        return Answer(call.world, (psci_features(call),))
    if call.name == "ARCH_FEATURES":
        return Answer(call.world, (arch_features(call) & columns.arch_features_mask,))
    if call.name == "STD_CALL_COUNT":
        counted = [row for row in ROWS if row.range in ("psci", "trng") and present(call.config, call.world, row)]
        return Answer(call.world, (sum((row.fid32 is not None) + (row.fid64 is not None) for row in counted),))
    for refusal, code in REFUSALS.get(call.base_name, ()):
        if refusal not in columns.unchecked and PREDICATES[refusal](call):
            return Answer(call.world, (call.code(code),))
    return SUCCESSES[call.base_name](call)


def find_row(config: Config, fid: int) -> Row | None:
    row = BY_FID.get(fid)
    if row is None and config.columns.sve_hint_masked and fid & SVE_HINT:
        row = BY_FID.get(fid & ~SVE_HINT)
        return None if row is None or row.range == "psci 0.1" else row
    return row


def narrows(config: Config, row: Row, fid: int) -> bool:
    """Whether x1..x3 are truncated to 32 bits. The 0.1 IDs are older than SMCCC and have no convention."""
    if row.range == "psci 0.1" or fid >> 30 & 1:
        return False
    return config.columns.narrowed is None or row.name in config.columns.narrowed


def call_and_narrowing(config: Config, world: World, trap: Trap) -> tuple[Call | None, dict[str, int]]:
    fid = trap.x0 & MASK32
    row = find_row(config, fid)
    if row is None or not present(config, world, row):
        return None, {}
    args = (trap.x1, trap.x2, trap.x3)
    written: dict[str, int] = {}
    if narrows(config, row, fid):
        args = (trap.x1 & MASK32, trap.x2 & MASK32, trap.x3 & MASK32)
        if config.columns.narrowing_writes_back:
            written = {f"x{n}": arg for n, arg in enumerate(args, start=1)}
    return Call(config, world, trap, row.name, smc32=not fid >> 30 & 1, args=args), written


def trapped(config: Config, world: World, trap: Trap) -> tuple[Outcome, World]:
    """Answer one HVC or SMC."""
    columns = config.columns
    if trap.conduit not in config.conduits:
        return Outcome(world.vcpus, resume=Resume.UNDEF), world
    refused = trap.conduit == "smc" and columns.smc == "refused"
    if refused or (trap.imm and trap.conduit in columns.nonzero_imm_refused):
        return Outcome(world.vcpus, {"x0": MASK64}, Resume.NEXT), world
    call, regs = call_and_narrowing(config, world, trap)
    reply = Answer(world, (Psci.NOT_SUPPORTED,)) if call is None else answer(call)
    if reply.x and not reply.exact:
        regs |= {f"x{n}": 0 for n in range(columns.results)}
    regs |= {f"x{n}": x & MASK64 for n, x in enumerate(reply.x)}
    return Outcome(reply.world.vcpus, regs, reply.resume, reply.effects, reply.free, reply.remote), reply.world
