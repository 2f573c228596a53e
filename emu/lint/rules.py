"""The rules: what correct firmware may rely on a guest to do, and what a guest may not rely on its firmware for.

1. A rule is a row. Its ID is the word the gallery's rows use (guests/gallery/catalogue.toml), or new where the gallery has no guest.
2. It looks at one run (`one`), at several of the same guest on the same host (`several`, by the names of emu/lint/probes.py), or at
   both; `needs` are the runs that it cannot be judged without.
3. What a rule needs of the device tree it says (`tree`), since a recorded run may lack it.
4. A reason says what goes wrong for the guest's user, not what the rule looks at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, Literal, NamedTuple

from emu.lint import compared, onetrace
from emu.lint.compared import Runs
from emu.lint.onetrace import Hit
from emu.lint.trace import Trace
from firmware.errors import unknown

_PSCI, _SMCCC, _BINDING = "DEN 0022", "DEN 0028", "Linux bindings/arm/psci.yaml"


class Rule(NamedTuple):
    """One row.

    standard, section  where it is written
    needs              the runs, by their probes' names, without which it cannot be judged
    shown_by           a run that shows it where an ordinary one may not
    tree               what it asks of the device tree: the psci node, or the CPUs
    level              error, or note: told, and no reason to fail
    """

    id: str
    title: str
    reason: str
    standard: str
    section: str
    one: Callable[[Trace], Iterator[Hit]] | None = None
    several: Callable[[Runs], Iterator[Hit]] | None = None
    needs: tuple[str, ...] = ()
    shown_by: str | None = None
    tree: Literal["psci node", "CPUs"] | None = None
    level: Literal["error", "note"] = "error"

    @property
    def source(self) -> str:
        return f"{self.standard}, {self.section}"


RULES: Final = (
    Rule(
        "version-exact-compare",
        "the version is compared for equality with 0.2",
        "Every newer version has what 0.2 has. On firmware that was updated the guest gives up, and has one CPU.",
        _PSCI,
        "PSCI_VERSION",
        several=compared.version_exact_compare,
        needs=("0.2", "1.0", "1.1", "1.3"),
    ),
    Rule(
        "minor-pinned",
        "a minor version is pinned",
        "A minor version adds functions and changes none. The guest gives up on the next one.",
        _PSCI,
        "PSCI_VERSION",
        several=compared.minor_pinned,
        needs=("1.0", "1.1", "1.3"),
    ),
    Rule(
        "version-whitelist",
        "versions are taken from a list",
        "The list has the versions of the day it was written: what the guest calls is in older and newer ones too.",
        _PSCI,
        "PSCI_VERSION",
        several=compared.version_whitelist,
        needs=("0.2", "1.1", "1.3"),
    ),
    Rule(
        "version-ceiling",
        "newer versions are refused",
        "A minor version adds functions and changes none. KVM offers 1.3 since Linux 6.13, and the guest has one CPU there.",
        _PSCI,
        "PSCI_VERSION",
        several=compared.version_ceiling,
        needs=("0.2", "1.0", "1.1", "1.2", "1.3"),
    ),
    Rule(
        "major-pinned",
        "the major version must be 1",
        "There is no 2.0. When there is, PSCI_FEATURES says which functions changed, and whoever does not ask loses all of them.",
        _PSCI,
        "PSCI_VERSION",
        several=compared.major_pinned,
        needs=("1.3", "2.0"),
    ),
    Rule(
        "version-unsigned",
        "an error is read as a version",
        "PSCI_VERSION's NOT_SUPPORTED is -1, as an unsigned number 65535.65535: functions are asked for that the firmware never had.",
        _PSCI,
        "PSCI_VERSION",
        one=onetrace.version_unsigned,
        shown_by="version -1",
    ),
    Rule(
        "version-zero",
        "version 0.0 is taken for no firmware",
        "What means that there is no such function is -1. Firmware that counts itself wrong is still there, with all CPUs.",
        _PSCI,
        "PSCI_VERSION",
        several=compared.version_zero,
        needs=("version 0.0", "version 0.1"),
    ),
    Rule(
        "features-before-1.0",
        "PSCI_FEATURES is called below 1.0",
        "It came with 1.0. Older firmware answers -1 by luck, or makes the call an undefined instruction.",
        _PSCI,
        "PSCI_FEATURES",
        one=onetrace.features_before_1_0,
    ),
    Rule(
        "optional-without-features",
        "an optional function is called unasked",
        "Functions that came with 1.0 and later may be missing: PSCI_FEATURES says which are there, each function ID by itself.",
        _PSCI,
        "PSCI_FEATURES",
        one=onetrace.optional_without_features,
    ),
    Rule(
        "features-ne-minus-one",
        "any refusal but -1 is taken for a yes",
        "Every negative answer is a no. Broken firmware that gives another has a function called that is not there.",
        _PSCI,
        "PSCI_FEATURES",
        one=onetrace.features_ne_minus_one,
        shown_by="features -2",
    ),
    Rule(
        "smccc-version-unguarded",
        "SMCCC_VERSION is called unasked",
        "SMCCC 1.0 has none, and what an unknown call does there is the firmware's choice: PSCI_FEATURES says whether there is one.",
        _SMCCC,
        "SMCCC_VERSION",
        one=onetrace.smccc_version_unguarded,
    ),
    Rule(
        "smccc-unsigned",
        "an error is compared with an SMCCC version as unsigned",
        "NOT_SUPPORTED is then more than 1.1, and calls are made by a convention that is not there.",
        _SMCCC,
        "SMCCC_VERSION",
        one=onetrace.smccc_unsigned,
        several=compared.smccc_unsigned,
        needs=("smccc 1.1", "smccc 0.1", "smccc -1"),
    ),
    Rule(
        "result-signedness",
        "an error is taken for a result that is greater than 0",
        "Errors are negative. Read as unsigned each is a large number, and a failure becomes a success.",
        _SMCCC,
        "Return codes",
        several=compared.result_signedness,
        needs=("smccc 1.1", "smccc 0.1", "smccc -1"),
    ),
    Rule(
        "result-width",
        "a result is compared in 64 bits",
        "A return code is a 32-bit number. Firmware that writes w0 leaves 0xffff_fffc for -4, and no error is recognised.",
        _SMCCC,
        "Return codes",
        several=compared.result_width,
        needs=("errors 32", "errors 64"),
    ),
    Rule(
        "arch-features-unguarded",
        "SMCCC_ARCH_FEATURES is called below SMCCC 1.1",
        "It came with 1.1, which SMCCC_VERSION tells.",
        _SMCCC,
        "SMCCC_ARCH_FEATURES",
        one=onetrace.arch_features_unguarded,
    ),
    Rule(
        "arch-call-unguarded",
        "an architectural call is made unasked",
        "SMCCC_ARCH_FEATURES says whether it is there and whether this CPU needs it.",
        _SMCCC,
        "SMCCC_ARCH_FEATURES",
        one=onetrace.arch_call_unguarded,
    ),
    Rule(
        "vendor-hyp-without-uid",
        "a hypervisor's own call is made before its UID was read",
        "Every vendor numbers from 0. On another's hypervisor the same ID is another function.",
        _SMCCC,
        "General service queries, Call UID",
        one=onetrace.vendor_hyp_without_uid,
    ),
    Rule(
        "ids-not-from-node",
        "standard function IDs are used where the node has its own",
        "PSCI 0.1 has no function IDs but those in its node.",
        _BINDING,
        "compatible arm,psci",
        one=onetrace.ids_not_from_node,
        tree="psci node",
    ),
    Rule(
        "conduit-hardcoded",
        "the conduit is not the one the device tree names",
        "The other instruction is UNDEFINED, answered with -1, or never ends: only the device tree knows which is served.",
        _BINDING,
        "method",
        one=onetrace.conduit_hardcoded,
        tree="psci node",
    ),
    Rule(
        "imm-nonzero",
        "the conduit instruction has an immediate",
        "SMCCC's calls have 0. Others are the hypervisor's own: Xen makes them undefined, KVM refuses them.",
        _SMCCC,
        "SMC and HVC immediate value",
        one=onetrace.imm_nonzero,
    ),
    Rule(
        "compat-0.2-only",
        "only arm,psci-0.2 is looked for",
        "A tree may have arm,psci-1.0 alone: the guest finds no firmware, and has one CPU.",
        _BINDING,
        "compatible",
        several=compared.compat_0_2_only,
        needs=("tree 1.0, 0.2", "tree 1.0", "tree 1.1, 1.0"),
    ),
    Rule(
        "compat-0.1-required",
        "arm,psci is looked for",
        "It promises the function IDs of 0.1. Firecracker, crosvm, TF-A and bhyve do not list it.",
        _BINDING,
        "compatible",
        several=compared.compat_0_1_required,
        needs=("tree 1.0, 0.2, 0.1", "tree 1.0, 0.2"),
    ),
    Rule(
        "compat-unknown",
        "a string is looked for that no binding has",
        "The strings end with arm,psci-1.0, since from there on the firmware tells its version: arm,psci-1.1 is in no tree.",
        _BINDING,
        "compatible",
        several=compared.compat_unknown,
        needs=("tree 1.1, 1.0", "tree 1.0"),
    ),
    Rule(
        "cpu-on-32-with-64bit-entry",
        "CPU_ON's SMC32 form has a 64-bit entry point",
        "An SMC32 call's arguments are 32 bits. The new CPU begins at the lower half of its entry point.",
        _PSCI,
        "CPU_ON",
        one=onetrace.cpu_on_32_with_64bit_entry,
    ),
    Rule(
        "mpidr-aff0-only",
        "target_cpu is Aff0 alone",
        "Aff0 is a CPU within its cluster. The first CPU of the second cluster is then the caller, and stays off.",
        _PSCI,
        "CPU_ON, target_cpu",
        one=onetrace.mpidr_aff0_only,
        shown_by="clusters",
        tree="CPUs",
    ),
    Rule(
        "mpidr-hardcoded",
        "target_cpu is a number the guest made up",
        "CPUs are numbered as the device tree says, with gaps where a core is missing.",
        _PSCI,
        "CPU_ON, target_cpu",
        one=onetrace.mpidr_hardcoded,
        shown_by="clusters",
        tree="CPUs",
    ),
    Rule(
        "context-uninit",
        "context_id is never set",
        "The new CPU has in x0 what was on the caller's stack: a bug that comes and goes.",
        _PSCI,
        "CPU_ON, context_id",
        one=onetrace.context_uninit,
        needs=("scribbled",),
    ),
    Rule(
        "migrate-type-ignored",
        "MIGRATE_INFO_TYPE is not asked before CPU_OFF",
        "A Trusted OS that lives on one CPU keeps it: CPU_OFF returns DENIED, and whoever waits for the CPU waits.",
        _PSCI,
        "MIGRATE_INFO_TYPE",
        one=onetrace.migrate_type_ignored,
        shown_by="Trusted OS",
    ),
    Rule(
        "up-cpu-after-type-2",
        "MIGRATE_INFO_UP_CPU is asked where there is no Trusted OS",
        "The answer means nothing then: -1 is taken for a CPU, or 0 for the first one.",
        _PSCI,
        "MIGRATE_INFO_UP_CPU",
        one=onetrace.up_cpu_after_type_2,
    ),
    Rule(
        "cpu-off-arg",
        "CPU_OFF has an argument",
        "0.1's had a power_state, 0.2's has none. It is ignored.",
        _PSCI,
        "CPU_OFF",
        one=onetrace.cpu_off_arg,
        level="note",
    ),
    Rule(
        "powerstate-format",
        "a power_state is in the format the firmware does not have",
        "PSCI_FEATURES of CPU_SUSPEND tells which it has; below 1.0 it is the original one. The call is refused, and the CPU spins.",
        _PSCI,
        "CPU_SUSPEND, power_state",
        one=onetrace.powerstate_format,
    ),
    Rule(
        "off2-type",
        "SYSTEM_OFF2 has type 0",
        "HIBERNATE_OFF is 1. Firmware may take 0 for it, and need not.",
        _PSCI,
        "SYSTEM_OFF2, off_type",
        one=onetrace.off2_type,
    ),
    Rule(
        "clobber-missing",
        "x1 to x3 are taken for preserved",
        "They are result registers: KVM writes all four since Linux 4.16. The compiler goes on with a value that is gone.",
        _SMCCC,
        "Register use in AArch64 SMC and HVC calls",
        several=compared.clobber_missing,
        needs=("x0 alone", "poison x1-x3"),
    ),
    Rule(
        "clobber-1.0",
        "x4 to x17 are taken for preserved under SMCCC 1.0",
        "From 1.1 on they are. The first calls are made before anybody knows which it is.",
        _SMCCC,
        "Register use in AArch64 SMC and HVC calls",
        several=compared.clobber_1_0,
        needs=("poison x4-x17",),
    ),
    Rule(
        "on-pending",
        "ON_PENDING is an error like any other",
        "The CPU is on its way, and comes up into a guest that has given it up.",
        _PSCI,
        "CPU_ON",
        several=compared.on_pending,
        needs=("CPU_ON pending",),
    ),
    Rule(
        "no-timeout",
        "a CPU is waited for without end",
        "If it does not come, because CPU_ON was refused or it is broken, the machine is silent.",
        _PSCI,
        "CPU_ON",
        several=compared.no_timeout,
        needs=("CPU_ON fails",),
    ),
    Rule(
        "reset-missing",
        "the guest ends without SYSTEM_RESET",
        "It has been there since 0.2, and so has SYSTEM_OFF. The machine does not come back.",
        _PSCI,
        "SYSTEM_RESET",
        one=onetrace.reset_missing,
        tree="psci node",
    ),
)


def rules_without(disabled: tuple[str, ...]) -> tuple[Rule, ...]:
    """Return the rules but for those; raise UserError for an ID that no rule has."""
    known = [rule.id for rule in RULES]
    for name in disabled:
        if name not in known:
            raise unknown("rule", name, known)
    return tuple(rule for rule in RULES if rule.id not in disabled)
