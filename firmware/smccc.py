"""The Arm Architecture service (DEN 0028): discovery, the Spectre workarounds, SOC_ID."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from firmware.abi import MASK32, MASK64, SMCCC_1_1, SMCCC_1_2, SMCCC_1_5, SMCCC_1_6, Smccc
from firmware.host import Call, Config, Mitigations, Result, returns
from firmware.table import Constant, Discovery, Function, Handler, Query, Service, discovered

# ---- rules that hosts choose from: ARCH_FEATURES(ARCH_WORKAROUND_n) by the state of the host's CPU


def spectre_v2_or_unaffected(mitigations: Mitigations) -> int:
    """Workaround 1: 0 where it is needed, 1 where this PE is unaffected, -1 where there is none."""
    return _needed_or_unaffected(mitigations.spectre_v2)


def spectre_bhb_or_unaffected(mitigations: Mitigations) -> int:
    """Workaround 3: as workaround 1."""
    return _needed_or_unaffected(mitigations.spectre_bhb)


def spectre_v4_not_required(mitigations: Mitigations) -> int:
    """Workaround 2: -2 where nothing is left for the guest to do, else -1; never 0, since there is no dynamic control."""
    if mitigations.spectre_v4 == "unaffected" or (mitigations.spectre_v4 == "mitigated" and not mitigations.ssbs):
        return Smccc.NOT_REQUIRED
    return Smccc.NOT_SUPPORTED


def spectre_v2_hardened(mitigations: Mitigations) -> int:
    """Workaround 1 of KVM in Linux 4.16 to 5.2: 0 where the host hardens its branch predictor, else -1, also where there is no need."""
    return 0 if mitigations.spectre_v2 == "mitigated" else Smccc.NOT_SUPPORTED


def spectre_v2_or_not_required(mitigations: Mitigations) -> int:
    """Workaround 1 of KVM in Linux 5.3 to 5.9: an unaffected PE is told so by -2."""
    return Smccc.NOT_REQUIRED if mitigations.spectre_v2 == "unaffected" else spectre_v2_hardened(mitigations)


def spectre_v4_by_ssbd(mitigations: Mitigations) -> int:
    """Workaround 2 of KVM in Linux 4.18 to 5.9: 0 where the guest may switch it, -2 where it is permanent or not needed, else -1."""
    answers = {"kernel": Smccc.SUCCESS, "force-enable": Smccc.NOT_REQUIRED, "mitigated": Smccc.NOT_REQUIRED}
    return answers.get(mitigations.ssbd_state, Smccc.NOT_SUPPORTED)


def workaround_as_discovered(call: Call) -> Result:
    """Do what ARCH_FEATURES promises, or refuse where it says NOT_SUPPORTED."""
    if _workaround_features(call.name)(call.config, call.vcpu) == Smccc.NOT_SUPPORTED:
        return returns(Smccc.NOT_SUPPORTED)
    return workaround_unasked(call)


def workaround_unasked(_call: Call) -> Result:
    """Write no register, whatever ARCH_FEATURES says (TF-A services/arm_arch_svc, SMC_RET0)."""
    return Result((), padded=False)


def _needed_or_unaffected(state: str) -> int:
    return {"mitigated": 0, "unaffected": 1, "vulnerable": Smccc.NOT_SUPPORTED}[state]


# DEN 0028, SMCCC_ARCH_SOC_ID: the name fills x1 to x17.
_SOC_NAME_BYTES: Final = 136

# DEN 0028, SMCCC_ARCH_FEATURE_AVAILABILITY: op0 to op2 of SCR_EL3, CPTR_EL3, MDCR_EL3 and MPAM3_EL3, placed as in MRS (TF-A arch.h).
_FEATURE_REGISTERS: Final = (0x1E_1100, 0x1E_1140, 0x1E_1320, 0x1E_A500)


# ---- answers


def smccc_version(config: Config) -> Result:
    """Return the SMCCC version (DEN 0028, SMCCC_VERSION).

    Presence: mandatory from 1.1, optional in 1.0. Convention: SMC32.
    Returns major in bits 30:16, minor in bits 15:0.
    """
    assert config.smccc is not None
    return returns(config.smccc.word)


def workaround(call: Call) -> Result:
    """Run a Spectre workaround (DEN 0028, SMCCC_ARCH_WORKAROUND_1 to 3).

    Presence: as ARCH_FEATURES says. Convention: SMC32.
    x1  enable  WORKAROUND_2 only: 0 off, 1 on
    Returns nothing, no register is written (TF-A services/arm_arch_svc, SMC_RET0); NOT_SUPPORTED where ARCH_FEATURES says so.
    """
    return call.host.workaround_rule(call)


def switch_ssbd(call: Call) -> Result:
    """Switch the caller's Spectre v4 mitigation (KVM in Linux 4.18 to 5.9, arch/arm64/kvm/hyp/hyp-entry.S, el1_hvc_guest).

    x1  enable  32 bits: 0 off, anything else on
    Returns 0 in as many registers as the host clears, and in x3 where the host's own firmware is called, which may change it.
    """
    cleared, cpu = call.host.at_el2[call.name], call.config.mitigation(call.vcpu)
    if call.config.switches_ssbd(call.vcpu):
        call.power.switch_ssbd(call.vcpu, on=bool(call.args[0] & MASK32))
        # Not called for a CPU with SSBS, nor for one that is safe (arch/arm64/kernel/cpu_errata.c, arm64_ssbd_callback_required).
        cleared += cpu.spectre_v4 == "mitigated" and not cpu.ssbs
    return Result((0,) * cleared, padded=False)


def ssbd_switch(config: Config) -> Handler | None:
    """Return what a call of workaround 2 does at EL2 where some vCPU's mitigation can be switched; else it does nothing."""
    return switch_ssbd if any(config.switches_ssbd(vcpu) for vcpu in range(len(config.mitigations))) else None


def _workaround_features(name: str) -> Callable[[Config, int], int]:
    return lambda config, vcpu: config.host.workaround_answers[name](config.mitigation(vcpu))


def soc_id(config: Config, _discovery: Discovery) -> Mapping[int, Result | Handler]:
    """Identify the SoC (DEN 0028, SMCCC_ARCH_SOC_ID).

    Presence: optional from 1.2. Convention: SMC32.
    x1  SoC_ID_type  0 SoC version (JEP-106 code in bits 30:16, part in 15:0), 1 SoC revision
    Returns the value, or INVALID_PARAMETER for another type.
    """
    assert config.host.soc_id is not None
    version, revision = config.host.soc_id
    return {0: returns(version), 1: returns(revision)}


def soc_id_and_name(config: Config, discovery: Discovery) -> Mapping[int, Result | Handler]:
    """Identify the SoC, also by name (DEN 0028, SMCCC_ARCH_SOC_ID).

    Presence: optional from 1.6. Convention: SMC64.
    x1  SoC_ID_type  32 bits: 0 SoC version, 1 SoC revision, as in the SMC32 form, 2 SoC name
    Returns the value; SUCCESS and the name in x1 to x17, ASCII in little-endian order, padded with zeros to 136 bytes (TF-A
    services/arm_arch_svc, smccc_arch_id); INVALID_PARAMETER for another type.
    """
    name = config.host.soc_name.encode("ascii")
    assert len(name) < _SOC_NAME_BYTES
    padded = name.ljust(_SOC_NAME_BYTES, b"\0")
    words = (int.from_bytes(padded[offset : offset + 8], "little") for offset in range(0, _SOC_NAME_BYTES, 8))
    return {**soc_id(config, discovery), 2: Result((Smccc.SUCCESS, *words))}


def has_soc_id(config: Config) -> bool:
    return config.host.soc_id is not None


def arch_feature_availability(_config: Config, _discovery: Discovery) -> Mapping[int, Result | Handler]:
    """Say which features the firmware lets the caller use (DEN 0028, SMCCC_ARCH_FEATURE_AVAILABILITY).

    Presence: optional from 1.5. Convention: SMC64.
    x1  feat_reg  64 bits, a register's opcode: SCR_EL3 0x1E1100, CPTR_EL3 0x1E1140, MDCR_EL3 0x1E1320, MPAM3_EL3 0x1EA500
    Returns SUCCESS and the features' bits in x1, or INVALID_PARAMETER for another register. Ours enables none: all bits are 0.
    """
    return {opcode: Result((Smccc.SUCCESS, 0)) for opcode in _FEATURE_REGISTERS}


def smccc_arch_features(config: Config, discovery: Discovery) -> Mapping[int, Result | Handler]:
    """Say whether an Arm Architecture function is implemented (DEN 0028, SMCCC_ARCH_FEATURES).

    Presence: mandatory from 1.1. Convention: SMC32.
    x1  arch_func_id  32 bits
    Returns SUCCESS, what the function itself defines, or NOT_SUPPORTED. A workaround's answers are 0, needed on this PE, or 1,
    this PE is unaffected; workaround 2 has NOT_REQUIRED where nothing is left for the guest to do.
    """
    return discovered("SMCCC_ARCH_FEATURES")(config, discovery)


# ---- the rows

_BOTH: Final = ("PSCI_FEATURES", "SMCCC_ARCH_FEATURES")

# fmt: off
ROWS: Final = (
    #        name                       fid32        fid64  since      answer
    Function("SMCCC_VERSION",           0x8000_0000, None,  SMCCC_1_1, Constant(smccc_version), discovered_by=_BOTH, result="version"),
    Function("SMCCC_ARCH_FEATURES",     0x8000_0001, None,  SMCCC_1_1, Query(smccc_arch_features),
             ("arch_func_id",), result="arch_features"),
    Function("SMCCC_ARCH_SOC_ID",       0x8000_0002, None,  SMCCC_1_2, Query(soc_id, Smccc.INVALID_PARAMETER, MASK32),
             ("SoC_ID_type",), present=has_soc_id, result="arch_features"),
    Function("SMCCC_ARCH_SOC_ID",       None,  0xC000_0002,  SMCCC_1_6, Query(soc_id_and_name, Smccc.INVALID_PARAMETER, MASK32),
             ("SoC_ID_type",), present=has_soc_id, result="arch_features"),
    Function("SMCCC_ARCH_FEATURE_AVAILABILITY", None, 0xC000_0003, SMCCC_1_5,
             Query(arch_feature_availability, Smccc.INVALID_PARAMETER, MASK64), ("feat_reg",), result="arch_features"),
    Function("SMCCC_ARCH_WORKAROUND_3", 0x8000_3FFF, None,  SMCCC_1_1, workaround,
             features=_workaround_features("SMCCC_ARCH_WORKAROUND_3"), result="none"),
    Function("SMCCC_ARCH_WORKAROUND_2", 0x8000_7FFF, None,  SMCCC_1_1, workaround, ("enable",),
             features=_workaround_features("SMCCC_ARCH_WORKAROUND_2"), at_el2=ssbd_switch, result="none"),
    Function("SMCCC_ARCH_WORKAROUND_1", 0x8000_8000, None,  SMCCC_1_1, workaround,
             features=_workaround_features("SMCCC_ARCH_WORKAROUND_1"), result="none"),
)
# fmt: on

SMCCC: Final = Service("Arm Architecture", ("SMCCC_ARCH_FEATURES",), lambda config: config.smccc, lambda _config: ROWS)
