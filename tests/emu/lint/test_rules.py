"""Each rule over one run, on calls made up for it: one run that must fire and one that must not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import pytest

from emu.cli import main
from emu.lint.onetrace import SCRIBBLE
from emu.lint.rules import RULES, rules_without
from emu.lint.trace import Call, Site, Trace, Tree
from emu.outcome import ExitCode
from firmware.abi import MASK64
from firmware.dispatch import configuration, functions_by_id
from firmware.errors import UserError
from firmware.hosts.spec import SPEC

_RULES: Final = {rule.id: rule for rule in RULES}
_NAMES: Final = functions_by_id(configuration(SPEC))
_NODE: Final = Tree(("arm,psci-1.0", "arm,psci-0.2", "arm,psci"), "hvc", frozenset({0xC400_0003}), (0x0, 0x1))
_OLD_NODE: Final = _NODE._replace(compatible=("arm,psci-0.2", "arm,psci"))

VERSION, FEATURES = 0x8400_0000, 0x8400_000A
SMCCC_VERSION, ARCH_FEATURES, WORKAROUND_1 = 0x8000_0000, 0x8000_0001, 0x8000_8000
CPU_SUSPEND, CPU_OFF, CPU_ON_32, CPU_ON = 0xC400_0001, 0x8400_0002, 0x8400_0003, 0xC400_0003
MIGRATE_TYPE, UP_CPU, SYSTEM_SUSPEND, OFF2 = 0x8400_0006, 0xC400_0007, 0xC400_000E, 0xC400_0015
SET_SUSPEND_MODE = 0x8400_000F
UID, VENDOR_FEATURES = 0x8600_FF01, 0x8600_0000


class Made(NamedTuple):
    """A call made up: its function ID, arguments and answer (None: it does not return)."""

    fid: int
    args: tuple[int, ...] = ()
    answer: int | None = 0
    conduit: str = "hvc"
    imm: int = 0


def trace(calls: Sequence[Made], tree: Tree = _NODE, *, code: int = 0, console: str = "") -> Trace:
    return Trace(
        firmware="made up",
        tree=tree,
        calls=tuple(_call(at, made) for at, made in enumerate(calls)),
        cpus_up=1,
        console=console,
        code=code,
        sentence="",
    )


def _call(at: int, made: Made) -> Call:
    x1, x2, x3 = (*made.args, 0, 0, 0)[:3]
    function = _NAMES.get(made.fid)
    return Call(
        vcpu=0,
        conduit=made.conduit,
        imm=made.imm,
        x=(made.fid, x1, x2, x3),
        function=None if function is None else function.name,
        returned=None if made.answer is None else made.answer & MASK64,
        site=Site(0x4000_0000 + 4 * at, None, 0x4000_0000 + 4 * at),
        words="",
    )


def fires(rule: str, judged: Trace) -> list[int | None]:
    one = _RULES[rule].one
    assert one is not None
    return [hit.at for hit in one(judged)]


V10: Final = Made(VERSION, answer=0x1_0000)
V02: Final = Made(VERSION, answer=2)
V_NONE: Final = Made(VERSION, answer=-1)
S11: Final = Made(SMCCC_VERSION, answer=0x1_0001)

# The rule, calls that break it, the call that does, and calls that keep it.
CASES: Final[list[tuple[str, list[Made], int, list[Made]]]] = [
    ("version-unsigned", [V_NONE, Made(FEATURES, (CPU_SUSPEND,))], 0, [V10, Made(FEATURES, (CPU_SUSPEND,))]),
    ("smccc-version-unguarded", [V10, S11], 1, [V10, Made(FEATURES, (SMCCC_VERSION,)), S11]),
    ("smccc-version-unguarded", [Made(FEATURES, (SMCCC_VERSION,), -1), S11], 1, [Made(FEATURES, (SMCCC_VERSION,), -2), S11]),
    (
        "smccc-unsigned",
        [Made(SMCCC_VERSION, answer=-1), Made(ARCH_FEATURES, (WORKAROUND_1,))],
        0,
        [S11, Made(ARCH_FEATURES, (WORKAROUND_1,))],
    ),
    (
        "arch-features-unguarded",
        [Made(SMCCC_VERSION, answer=0x1_0000), Made(ARCH_FEATURES, (WORKAROUND_1,))],
        1,
        [S11, Made(ARCH_FEATURES, (WORKAROUND_1,))],
    ),
    ("arch-features-unguarded", [Made(ARCH_FEATURES, (WORKAROUND_1,))], 0, [Made(SMCCC_VERSION, answer=-1), Made(ARCH_FEATURES)]),
    (
        "arch-call-unguarded",
        [S11, Made(ARCH_FEATURES, (WORKAROUND_1,), -1), Made(WORKAROUND_1)],
        2,
        [S11, Made(ARCH_FEATURES, (WORKAROUND_1,), 0), Made(WORKAROUND_1)],
    ),
    ("arch-call-unguarded", [S11, Made(WORKAROUND_1)], 1, [S11, Made(ARCH_FEATURES, (WORKAROUND_1,), 1), Made(WORKAROUND_1)]),
    (
        "optional-without-features",
        [V10, Made(SYSTEM_SUSPEND, answer=-1)],
        1,
        [V10, Made(FEATURES, (SYSTEM_SUSPEND,)), Made(SYSTEM_SUSPEND)],
    ),
    (
        "optional-without-features",
        [V10, Made(FEATURES, (CPU_SUSPEND,), 1 << 1), Made(SET_SUSPEND_MODE)],
        2,
        [V10, Made(FEATURES, (CPU_SUSPEND,), 1 << 0), Made(SET_SUSPEND_MODE)],
    ),
    (
        "features-ne-minus-one",
        [V10, Made(FEATURES, (SYSTEM_SUSPEND,), -2), Made(SYSTEM_SUSPEND, answer=-1)],
        1,
        [V10, Made(FEATURES, (SYSTEM_SUSPEND,), -1), Made(SYSTEM_SUSPEND, answer=-1)],
    ),
    (
        "vendor-hyp-without-uid",
        [Made(UID, answer=-1), Made(VENDOR_FEATURES)],
        1,
        [Made(UID, answer=0xB66F_B428), Made(VENDOR_FEATURES)],
    ),
    ("conduit-hardcoded", [Made(VERSION, conduit="smc")], 0, [V10]),
    ("imm-nonzero", [Made(VERSION, imm=1)], 0, [V10]),
    ("cpu-on-32-with-64bit-entry", [Made(CPU_ON_32, (1, 1 << 32))], 0, [Made(CPU_ON, (1, 1 << 32)), Made(CPU_ON_32, (1, 0xFFFF_FFFF))]),
    ("mpidr-hardcoded", [Made(CPU_ON, (2,), -2)], 0, [Made(CPU_ON, (1,))]),
    ("context-uninit", [Made(CPU_ON, (1, 0x4000_0000, SCRIBBLE))], 0, [Made(CPU_ON, (1, 0x4000_0000, 0xC0DE))]),
    ("migrate-type-ignored", [Made(CPU_OFF, answer=-3)], 0, [Made(MIGRATE_TYPE, answer=1), Made(CPU_OFF, answer=-3)]),
    ("up-cpu-after-type-2", [Made(MIGRATE_TYPE, answer=2), Made(UP_CPU, answer=-1)], 1, [Made(MIGRATE_TYPE, answer=1), Made(UP_CPU)]),
    ("up-cpu-after-type-2", [Made(UP_CPU)], 0, [Made(MIGRATE_TYPE, answer=0), Made(UP_CPU)]),
    ("cpu-off-arg", [Made(CPU_OFF, (0x1_0000,), None)], 0, [Made(CPU_OFF, (), None), Made(CPU_OFF, (0x4060_0000_0000,), None)]),
    (
        "powerstate-format",
        [Made(CPU_SUSPEND, (1 << 30,), -2)],
        0,
        [V10, Made(FEATURES, (CPU_SUSPEND,), 1 << 1), Made(CPU_SUSPEND, (1 << 30,))],
    ),
    (
        "powerstate-format",
        [Made(CPU_SUSPEND, (0x4000_0001,), -2)],
        0,
        [Made(CPU_SUSPEND, (0x101_0000,)), Made(CPU_SUSPEND, (1 << 31,), -2)],
    ),
    ("off2-type", [Made(OFF2, (0,), -2)], 0, [Made(OFF2, (1,), -2)]),
]


@pytest.mark.parametrize(("rule", "breaks", "at", "keeps"), CASES, ids=[f"{case[0]}-{number}" for number, case in enumerate(CASES)])
def test_a_rule_fires_where_it_is_broken_and_not_where_it_is_kept(rule: str, breaks: list[Made], at: int, keeps: list[Made]) -> None:
    assert fires(rule, trace(breaks)) == [at]
    assert fires(rule, trace(keeps)) == []


def test_psci_features_is_before_its_time_below_1_0_and_where_nobody_asked_unless_the_tree_tells() -> None:
    features = Made(FEATURES, (SYSTEM_SUSPEND,), -1)

    assert fires("features-before-1.0", trace([features], _OLD_NODE)) == [0]
    assert fires("features-before-1.0", trace([V02, features], _OLD_NODE)) == [1]
    assert fires("features-before-1.0", trace([V10, features], _OLD_NODE)) == []
    assert fires("features-before-1.0", trace([features], _NODE)) == []
    assert fires("features-before-1.0", trace([V_NONE, features], _OLD_NODE)) == []  # version-unsigned's


def test_standard_ids_are_wrong_where_the_node_has_ids_of_its_own_alone() -> None:
    only_0_1 = Tree(("arm,psci",), "hvc", frozenset({0x95C1_BA60}), (0x0, 0x1))

    assert fires("ids-not-from-node", trace([V10, Made(0x95C1_BA60, (1,))], only_0_1)) == [0]
    assert fires("ids-not-from-node", trace([V10], _OLD_NODE)) == []


def test_aff0_alone_is_told_from_numbers_made_up() -> None:
    clusters = _NODE._replace(mpidrs=(0x0, 0x1, 0x100, 0x101))
    aff0_alone = trace([Made(CPU_ON, (1,)), Made(CPU_ON, (0,), -4), Made(CPU_ON, (1,), -4)], clusters)
    made_up = trace([Made(CPU_ON, (1,)), Made(CPU_ON, (2,), -2), Made(CPU_ON, (3,), -2)], clusters)
    right = trace([Made(CPU_ON, (1,)), Made(CPU_ON, (0x100,)), Made(CPU_ON, (0x101,)), Made(CPU_ON, (1,), -4)], clusters)

    assert (fires("mpidr-aff0-only", aff0_alone), fires("mpidr-hardcoded", aff0_alone)) == ([1, 2], [])
    assert (fires("mpidr-aff0-only", made_up), fires("mpidr-hardcoded", made_up)) == ([], [1, 2])
    assert (fires("mpidr-aff0-only", right), fires("mpidr-hardcoded", right)) == ([], [])


def test_a_cpu_that_is_not_there_may_be_asked_for_by_who_has_all_the_others() -> None:
    assert fires("mpidr-hardcoded", trace([Made(CPU_ON, (1,)), Made(CPU_ON, (0xFF_FFFF,), -2)])) == []


def test_a_reset_is_missing_where_the_last_words_speak_of_it() -> None:
    halted = "reboot: please switch the machine off\n"

    assert fires("reset-missing", trace([], code=ExitCode.DEADLOCK, console=halted)) == [None]
    assert fires("reset-missing", trace([V10], code=ExitCode.NO_PROGRESS, console=halted)) == [0]
    assert fires("reset-missing", trace([Made(0x8400_0009, answer=-1)], code=ExitCode.DEADLOCK, console=halted)) == []
    assert fires("reset-missing", trace([], code=ExitCode.DEADLOCK, console="panic: no root\n")) == []
    assert fires("reset-missing", trace([], code=ExitCode.OK, console=halted)) == []
    assert fires("reset-missing", trace([], Tree(), code=ExitCode.DEADLOCK, console=halted)) == []


def test_a_run_without_calls_breaks_no_rule_over_calls() -> None:
    assert {rule.id for rule in RULES if rule.one is not None and list(rule.one(trace([])))} == set()


# ---- the table


def test_every_rule_is_told_whole() -> None:
    assert len({rule.id for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert rule.reason.endswith("."), rule.id
        assert not rule.title.endswith("."), rule.id
        assert rule.one is not None or (rule.several is not None and rule.needs), rule.id


def test_a_rule_is_left_out_by_its_id() -> None:
    assert {rule.id for rule in RULES} - {rule.id for rule in rules_without(("off2-type", "on-pending"))} == {"off2-type", "on-pending"}


def test_a_rule_that_is_not_there_is_refused_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="did you mean off2-type"):
        rules_without(("off2-typ",))
    assert main(["lint", "--disable", "version-cieling"]) == ExitCode.USAGE
    assert capsys.readouterr().err == "psci-emu: unknown rule 'version-cieling'; did you mean version-ceiling?\n"


def test_the_rules_are_listed_with_what_they_want(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lint", "--rules", "--disable", "off2-type"]) == ExitCode.OK

    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == [rule.id for rule in RULES if rule.id != "off2-type"]
    assert {line.split()[0] for line in lines if line.endswith("(with --broken)")} == {
        "major-pinned",
        "version-zero",
        "features-ne-minus-one",
        "migrate-type-ignored",
        "on-pending",
    }
