"""The precomputed dispatch table: one row per function, one answer per function ID.

1. Discovery and dispatch read the same row; nothing keeps a second list.
2. An answer that depends on `Config` alone is materialised here; a handler is for what changes something or reads what changes.
3. A call never changes a table. Whatever replaces the `Config` builds new ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple, TypeVar

from firmware.abi import FAST_CALL, MASK32, MASK64, SMCCC_1_3, SVE_HINT, Psci, Version
from firmware.faults import Fault
from firmware.host import Answered, Call, Conduits, Config, Host, Result, returns
from firmware.trap import Conduit, Reply, Resume

Handler = Callable[[Call], Result]


class Constant(NamedTuple):
    """An answer that depends on the configuration alone."""

    answer: Callable[[Config], Result]


class Query(NamedTuple):
    """An answer for each value of x1.

    answers  x1 -> result; what is missing gets `default`
    mask     the bits of x1 that are looked at; None: the host's `query_mask`
    """

    answers: Callable[[Config, Discovery], Mapping[int, Result | Handler]]
    default: int = Psci.NOT_SUPPORTED
    mask: int | None = None


class Function(NamedTuple):
    """One row: a function of a service.

    fid32, fid64  function IDs of the SMC32 and SMC64 forms, None where there is no such form
    since         the first version of the service's standard that has it
    args          argument names from x1 on, as the standard spells them
    features      what discovery answers for it beyond 0; per vCPU where vCPUs may differ
    discovered_by  the discovery calls that know it, by name
    bitmap        (register, bit) that gates it on hosts with feature bitmaps
    present       a further condition
    at_el2        what it does where the host answers it in front of the dispatcher, None for nothing but that answer
    result        how the result reads: status, version, affinity, migrate, word, words, features, arch_features, trng, none
    """

    name: str
    fid32: int | None
    fid64: int | None
    since: Version
    answer: Handler | Constant | Query
    args: tuple[str, ...] = ()
    features: Callable[[Config, int], int] | None = None
    discovered_by: tuple[str, ...] | None = None
    bitmap: tuple[str, int] | None = None
    present: Callable[[Config], bool] | None = None
    at_el2: Callable[[Config], Handler | None] = lambda _config: None
    result: str = "status"

    @property
    def fids(self) -> tuple[int, ...]:
        return tuple(fid for fid in (self.fid32, self.fid64) if fid is not None)

    @property
    def enters(self) -> bool:
        """Whether a vCPU may begin at an entry point that the call names."""
        return "entry_point_address" in self.args


class Service(NamedTuple):
    """The functions of one owner's service and what its version is."""

    name: str
    discovered_by: tuple[str, ...]
    version: Callable[[Config], Version | None]
    functions: Callable[[Config], tuple[Function, ...]]
    serves: Callable[[Host], frozenset[str]] = lambda host: host.serves
    refuses: Callable[[Host], frozenset[str]] = lambda host: host.refuses


# discovery(name) -> {function ID: answer by vCPU}: what the named discovery call knows under a configuration.
Discovery = Callable[[str], Mapping[int, Callable[[int], int]]]


# ---- what the tables hold


class Live(NamedTuple):
    """An entry that is worked out at each call."""

    function: Function
    handler: Handler
    truncated: bool


class Faulty(NamedTuple):
    """An entry that faults were injected into; what the function would answer without them is in the plain table."""

    name: str
    faults: tuple[Fault, ...]
    plain: Table


class Keyed(NamedTuple):
    """An entry that is looked up again with x1."""

    mask: int
    answers: Mapping[int, Reply | Live]
    default: Reply


class Table(NamedTuple):
    """Every answer over one conduit; `find` is all that a trap costs.

    mask       the bits of x0 that are looked up
    default    the answer to an ID without an entry
    immediate  the answer to a call with a nonzero immediate, where the host looks at it
    otherwise  in place of `default`, where the answer depends on the ID
    """

    mask: int
    entries: Mapping[int, Reply | Keyed | Live | Faulty]
    default: Reply | Live
    immediate: Reply | None = None
    otherwise: Callable[[int], Reply | Live] | None = None

    def find(self, x0: int, x1: int, imm: int) -> Reply | Live | Faulty:
        if imm and self.immediate is not None:
            return self.immediate
        fid = x0 & self.mask
        entry = self.entries.get(fid)
        if entry is None:
            return self.default if self.otherwise is None else self.otherwise(fid)
        if type(entry) is Keyed:
            return entry.answers.get(x1 & entry.mask, entry.default)
        assert not isinstance(entry, Keyed)
        return entry


class Tables(NamedTuple):
    """The tables of both conduits, and the row of every function ID that is served."""

    by_conduit: Mapping[Conduit, Table]
    functions: Mapping[int, Function]


Entry = TypeVar("Entry")

NOT_SERVED: Final = Reply(resume=Resume.UNDEF)


def build(config: Config, services: tuple[Service, ...]) -> Tables:
    """Materialise every answer that `config` decides."""
    served = {fid: function for function in _offered(config, services) for fid in function.fids if fid not in config.host.lacks}
    discovery = _discovery(config, services)
    common = {fid: _entry(config, discovery, fid, function) for fid, function in served.items()}
    common = with_hints(config, common)
    common = {**_refused(config, services), **common}
    default = NOT_SERVED if config.host.unknown is None else encode(config.host, Result((config.host.unknown,)))
    tables = {}
    for conduit in Conduit:
        if not _conduit_served(config, conduit):
            tables[conduit] = Table(MASK32, {}, NOT_SERVED)
            continue
        fast_path = _fast_path(config, services, conduit)
        if conduit in config.host.undispatched:
            tables[conduit] = Table(MASK32, fast_path, _answered(config.host, config.host.undispatched[conduit]))
            continue
        entries = {**common, **fast_path}
        refusal = config.host.immediates.get(conduit)
        immediate = Reply(resume=refusal) if isinstance(refusal, Resume) else None if refusal is None else Reply(((0, refusal & MASK64),))
        tables[conduit] = Table(config.host.function_id_mask, entries, default, immediate, _otherwise(config.host, conduit))
    return Tables(tables, served)


def with_hints(config: Config, by_id: Mapping[int, Entry]) -> dict[int, Entry]:
    """Let each function ID stand for its hinted form too, where the SMCCC version has hints.

    SMCCC 1.3 makes bit 16 of a fast call a hint. IDs that have the bit by themselves (PSCI 0.1's) stay what they are.
    """
    if config.smccc is None or config.smccc < SMCCC_1_3:
        return dict(by_id)
    return {**{fid | SVE_HINT: entry for fid, entry in by_id.items() if fid & FAST_CALL}, **by_id}


def encode(host: Host, result: Result, truncated: tuple[int, ...] | None = None) -> Reply:
    """Turn a result into the register writes this host makes; `truncated` is x1 to x3 where the host writes them back."""
    values: tuple[int, ...] = ()
    if result.values is not None and (result.resume in (Resume.NEXT, Resume.WAIT) or host.writes_unreturned):
        values = result.values
        if result.padded and len(values) < host.result_registers:
            values += (0,) * (host.result_registers - len(values))
    regs = tuple([(n, value & (MASK64 if value >= 0 else host.status_mask)) for n, value in enumerate(values)])
    if truncated is not None:
        regs += tuple(enumerate(truncated, start=1))[max(len(values) - 1, 0) :]
    return Reply(regs, result.resume, result.effects)


def is_offered(config: Config, service: Service, function: Function) -> bool:
    """Say whether a row is served under a configuration; dispatch and discovery both ask this."""
    version = service.version(config)
    return (
        function.name in service.serves(config.host)
        and version is not None
        and (version >= function.since or function.name in config.host.early)
        and (function.bitmap is None or bool(config.bitmap(function.bitmap[0]) >> function.bitmap[1] & 1))
        and (function.present is None or function.present(config))
    )


def _offered(config: Config, services: Iterable[Service]) -> Iterable[Function]:
    for service in services:
        for function in service.functions(config):
            if is_offered(config, service, function) and not _only_at_el2(config, function):
                yield function


def _only_at_el2(config: Config, function: Function) -> bool:
    return config.host.at_el2_alone and function.name in config.host.at_el2


def _refused(config: Config, services: Iterable[Service]) -> Mapping[int, Reply]:
    answer = encode(config.host, Result((Psci.NOT_SUPPORTED,)))
    refused: dict[int, Reply] = {}
    for service in services:
        version = service.version(config)
        for function in service.functions(config):
            if version is not None and version >= function.since and function.name in service.refuses(config.host):
                refused.update((fid, answer) for fid in function.fids if fid not in config.host.lacks)
    return refused


def _entry(config: Config, discovery: Discovery, fid: int, function: Function) -> Reply | Keyed | Live:
    host, answer = config.host, function.answer
    if isinstance(answer, Constant):
        return encode(host, answer.answer(config))
    # The SMC32 form alone is truncated; a 0.1 ID has the caller's width (it stands in the SMC64 column).
    truncated = fid == function.fid32 and function.name in host.truncates
    if not isinstance(answer, Query):
        return Live(function, answer, truncated)
    mask = (host.query_mask if answer.mask is None else answer.mask) & (MASK32 if truncated else MASK64)
    shape = _narrowed if function.name in host.words else _as_it_is
    answers: dict[int, Reply | Live] = {}
    for key, value in answer.answers(config, discovery).items():
        answers[key] = encode(host, shape(value)) if isinstance(value, Result) else Live(function, _shaped(value, shape), truncated)
    return Keyed(mask, answers, encode(host, shape(Result((answer.default,)))))


def _as_it_is(result: Result) -> Result:
    return result


def _narrowed(result: Result) -> Result:
    return result if result.values is None else result._replace(values=tuple(value & MASK32 for value in result.values))


def _shaped(handler: Handler, shape: Callable[[Result], Result]) -> Handler:
    return handler if shape is _as_it_is else lambda call: shape(handler(call))


def _discovery(config: Config, services: Iterable[Service]) -> Discovery:
    def known(discovery: str) -> Mapping[int, Callable[[int], int]]:
        found: dict[int, Callable[[int], int]] = {}
        for service in services:
            for function in service.functions(config):
                names = service.discovered_by if function.discovered_by is None else function.discovered_by
                deviates = config.host.deviation(discovery, function.name) is not None
                if deviates or (discovery in names and is_offered(config, service, function)):
                    for fid in function.fids:
                        if fid not in config.host.lacks:
                            found[fid] = _features(config, discovery, function)
        return found

    return known


def _features(config: Config, discovery: str, function: Function) -> Callable[[int], int]:
    deviation = config.host.deviation(discovery, function.name)
    if deviation is not None:
        return lambda _vcpu: deviation
    features = function.features
    if features is None:
        return lambda _vcpu: Psci.SUCCESS
    return lambda vcpu: features(config, vcpu)


def discovered(name: str) -> Callable[[Config, Discovery], Mapping[int, Result | Handler]]:
    """Answer a discovery call from the rows it covers; a row whose answer differs between vCPUs becomes a handler."""

    def answers(config: Config, discovery: Discovery) -> Mapping[int, Result | Handler]:
        table: dict[int, Result | Handler] = {}
        for fid, features in discovery(name).items():
            values = {features(vcpu) for vcpu in range(len(config.mitigations))}
            if len(values) == 1:
                table[fid] = returns(values.pop())
            else:
                table[fid] = _per_vcpu(features)
        return table

    return answers


def _per_vcpu(features: Callable[[int], int]) -> Handler:
    return lambda call: returns(features(call.vcpu))


def _conduit_served(config: Config, conduit: Conduit) -> bool:
    if config.host.conduits is Conduits.BOTH:
        return bool(config.conduits)
    return conduit in config.conduits


def _fast_path(config: Config, services: Iterable[Service], conduit: Conduit) -> Mapping[int, Reply | Live]:
    # KVM's EL2 vector answers before the dispatcher, whatever is advertised or selected.
    if not config.el2_fast_path or conduit is not Conduit.HVC:
        return {}
    zeroed = {name: Reply(tuple((register, 0) for register in range(count))) for name, count in config.host.at_el2.items()}
    entries: dict[int, Reply | Live] = {}
    for row in (function for service in services for function in service.functions(config)):
        if row.name in zeroed:
            handler = row.at_el2(config)
            entry = zeroed[row.name] if handler is None else Live(row, handler, truncated=False)
            entries.update(dict.fromkeys(row.fids, entry))
    return entries


def _otherwise(host: Host, conduit: Conduit) -> Callable[[int], Reply | Live] | None:
    rule = host.unknown_rule
    return None if rule is None else lambda fid: _answered(host, rule(conduit, fid))


def _answered(host: Host, decided: Reply | Answered) -> Reply | Live:
    if isinstance(decided, Reply):
        return decided
    return encode(host, decided) if isinstance(decided, Result) else Live(_NAMELESS, decided, truncated=False)


def _nothing(_call: Call) -> Result:
    return Result(())


# What stands for a function where a host works out its answer to an ID that has none.
_NAMELESS: Final = Function("", None, None, Version(0, 0), _nothing)
