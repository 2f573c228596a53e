"""Firmware pseudo-registers, one row each: what a VMM reads, writes and migrates by 64-bit ID.

1. A row says how a value is read, and what a write does or refuses; refusals are KVM's errno.
2. A write that is accepted yields a new `Config`; nothing here changes one.
3. Source, unless a row says otherwise: Linux 6.12 arch/arm64/kvm/hypercalls.c and guest.c, and
   Documentation/virt/kvm/arm/fw-pseudo-registers.rst.
"""

from __future__ import annotations

import dataclasses
import errno
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple, NoReturn

from firmware.abi import PSCI_0_1, Version
from firmware.errors import RegisterError
from firmware.host import Config

# KVM_REG_ARM64 in bits 63:56, the size in 55:52, the coprocessor in 31:16.
_ARCH: Final = 0x6000_0000_0000_0000
_SIZE_MASK: Final = 0x00F0_0000_0000_0000
_SIZE_U64: Final = 0x0030_0000_0000_0000
_COPROCESSOR_MASK: Final = 0x0FFF_0000
_FIRMWARE: Final = 0x0014_0000  # KVM_REG_ARM_FW; the feature bitmaps' is 0x0016
_UPPER_HALF: Final = 0xFFFF_FFFF_0000_0000

_LEVEL_MASK: Final = 0xF
_ENABLED: Final = 0x10
_WA2_AVAIL: Final = 2  # the only level that may carry ENABLED


class Register(NamedTuple):
    """A firmware pseudo-register.

    id       64-bit register ID; its value is 64 bits wide
    get      its value under a configuration
    set      the configuration after a write; raises RegisterError with EINVAL or EBUSY
    allowed  the values a write takes under a configuration, for people
    locks    whether the VM's first run locks it
    switch   the bit that is each vCPU's own: whether its mitigation is switched on; `get` has it set, as a vCPU begins
    """

    name: str
    id: int
    summary: str
    get: Callable[[Config], int]
    set: Callable[[Config, int, bool], Config]
    allowed: Callable[[Config], str]
    locks: bool = False
    switch: int = 0


def _refuse(name: str, value: int, allowed: str) -> NoReturn:
    raise RegisterError(errno.EINVAL, f"{name} does not take {value:#x}; allowed: {allowed}")


# ---- PSCI_VERSION


def _version_get(config: Config) -> int:
    return config.offered.word


def _version_set(config: Config, value: int, _has_run: bool) -> Config:
    if value not in {version.word for version in _selectable(config)}:
        _refuse("PSCI_VERSION", value, _version_allowed(config))
    return dataclasses.replace(config, version=Version.from_word(value))


def _selectable(config: Config) -> tuple[Version, ...]:
    # 0.1 is what a vCPU without KVM_ARM_VCPU_PSCI_0_2 gets, and only that.
    return config.host.versions if config.psci_0_2 else (PSCI_0_1,)


def _version_allowed(config: Config) -> str:
    return ", ".join(f"{version} ({version.word:#x})" for version in _selectable(config))


# ---- ARCH_WORKAROUND_n: a write checks that this host is no worse than the one the value comes from


# Levels of WORKAROUND_2 where the guest switches it (Linux 5.3 to 5.9, arch/arm64/kvm/psci.c, get_kernel_wa_level).
_SSBD_LEVELS: Final = {"force-disable": 0, "unknown": 1, "kernel": 2, "force-enable": 3, "mitigated": 3}


def _level(config: Config, number: int) -> int:
    # KVM reads the state of the CPU it runs on: vCPU 0's here.
    mitigations = config.mitigation(0)
    if number == 2 and config.host.switches_ssbd:
        return _SSBD_LEVELS[mitigations.ssbd_state]
    if number == 2:
        hidden = mitigations.spectre_v4 == "mitigated" and mitigations.ssbs
        return 0 if mitigations.spectre_v4 == "vulnerable" or hidden else 3
    state = mitigations.spectre_v2 if number == 1 else mitigations.spectre_bhb
    return {"vulnerable": 0, "mitigated": 1, "unaffected": 2}[state]


def _workaround(number: int, id_: int, names: tuple[str, ...]) -> Register:
    name = f"SMCCC_ARCH_WORKAROUND_{number}"
    field = _LEVEL_MASK | (_ENABLED if number == 2 else 0)

    def allowed(config: Config) -> str:
        level = _level(config, number)
        return ", ".join(f"{value} ({meaning})" for value, meaning in enumerate(names) if _rank(config, number, value) <= level)

    def get(config: Config) -> int:
        level = _level(config, number)
        return level | (_ENABLED if number == 2 and level == _WA2_AVAIL else 0)

    def set_(config: Config, value: int, _has_run: bool) -> Config:
        level = value & _LEVEL_MASK
        enabled_wrongly = value & _ENABLED and level != _WA2_AVAIL
        if value & ~field or enabled_wrongly or level >= len(names) or _level(config, number) < _rank(config, number, level):
            _refuse(name, value, allowed(config))
        return config

    return Register(name, id_, "the workaround's level on this host", get, set_, allowed, switch=_ENABLED if number == 2 else 0)


def _rank(config: Config, number: int, level: int) -> int:
    # Since Linux 5.10 WORKAROUND_2's UNKNOWN counts as NOT_AVAIL and AVAIL as NOT_REQUIRED.
    return (0, 0, 3, 3)[level] if number == 2 and not config.host.switches_ssbd else level


# ---- feature bitmaps


def _bitmap(name: str, id_: int, bits: tuple[str, ...]) -> Register:
    mask = (1 << len(bits)) - 1

    def allowed(config: Config) -> str:
        del config
        return f"0 to {mask:#x} (" + ", ".join(f"bit {bit} {meaning}" for bit, meaning in enumerate(bits)) + ")"

    def set_(config: Config, value: int, has_run: bool) -> Config:
        if value & ~mask:
            _refuse(name, value, allowed(config))
        if value == config.bitmap(name):
            return config
        if has_run:
            raise RegisterError(errno.EBUSY, f"{name} cannot become {value:#x}: the VM has run, and it is {config.bitmap(name):#x}")
        return dataclasses.replace(config, bitmaps=tuple(sorted({**dict(config.bitmaps), name: value}.items())))

    return Register(name, id_, "services offered to the guest", lambda config: config.bitmap(name), set_, allowed, locks=True)


# ---- the rows

# fmt: off
REGISTERS: Final = (
    Register("PSCI_VERSION", 0x6030_0000_0014_0000, "the PSCI version offered", _version_get, _version_set, _version_allowed),
    _workaround(1, 0x6030_0000_0014_0001, ("NOT_AVAIL", "AVAIL", "NOT_REQUIRED")),
    _workaround(2, 0x6030_0000_0014_0002, ("NOT_AVAIL", "UNKNOWN", "AVAIL", "NOT_REQUIRED")),
    _workaround(3, 0x6030_0000_0014_0003, ("NOT_AVAIL", "AVAIL", "NOT_REQUIRED")),
    _bitmap("STD_BMAP",          0x6030_0000_0016_0000, ("TRNG_V1_0",)),
    _bitmap("STD_HYP_BMAP",      0x6030_0000_0016_0001, ("PV_TIME",)),
    _bitmap("VENDOR_HYP_BMAP",   0x6030_0000_0016_0002, ("FUNC_FEAT", "PTP")),
    _bitmap("VENDOR_HYP_BMAP_2", 0x6030_0000_0016_0003, ("FUNC_FEAT_IMPL_VER", "FUNC_FEAT_IMPL_CPUS")),
)
# fmt: on

BY_NAME: Final = {register.name: register for register in REGISTERS}

# What each refusal means, for people and for the one sentence of an error.
REFUSALS: Final = (
    ("ENOENT", "no such register on this host, or its size is not 64 bits"),
    ("EINVAL", "a value this host does not take, or not an AArch64 register ID"),
    ("EBUSY", "a feature bitmap cannot change once the VM has run"),
    ("ENOEXEC", "the vCPU has not been initialised (KVM_ARM_VCPU_INIT)"),
    ("E2BIG", "the caller's list is too short for KVM_GET_REG_LIST"),
)


def of_host(config: Config) -> tuple[Register, ...]:
    """Return the host's registers in KVM_GET_REG_LIST's order."""
    return tuple(BY_NAME[name] for name in config.host.registers)


def find(config: Config, register_id: int) -> Register:
    """Return the register with this ID; raise RegisterError with ENOEXEC, EINVAL or ENOENT as KVM does."""
    if not config.initialised:
        raise RegisterError(errno.ENOEXEC, f"register {register_id:#018x}: the vCPU has not been initialised")
    if register_id & _UPPER_HALF & ~_SIZE_MASK != _ARCH:
        raise RegisterError(errno.EINVAL, f"{register_id:#018x} is not the ID of an AArch64 register")
    for register in of_host(config):
        if register.id == register_id:
            return register
    if config.host.registers and register_id & _COPROCESSOR_MASK == _FIRMWARE and config.host.unknown_register != errno.ENOENT:
        raise RegisterError(config.host.unknown_register, f"host {config.host.name} has no firmware register {register_id:#018x}")
    if register_id & _SIZE_MASK != _SIZE_U64:
        raise RegisterError(errno.ENOENT, f"register {register_id:#018x} has another size than the firmware registers' 64 bits")
    known = names(of_host(config)) or "none"
    raise RegisterError(errno.ENOENT, f"host {config.host.name} has no register {register_id:#018x}; it has: {known}")


def read(register: Register, config: Config, *, off: bool) -> int:
    """Return a register's value; `off` tells that the vCPU through which it is read has its mitigation switched off."""
    value = register.get(config)
    return value & ~register.switch if off else value


def switched(register: Register, config: Config, value: int) -> bool | None:
    """Say whether an accepted write switches the vCPU's mitigation on or off; None where it leaves it as it is.

    Source: Linux v5.3 virt/kvm/arm/psci.c, kvm_arm_set_fw_reg; where the guest can switch it, no level above AVAIL is accepted.
    """
    if not register.switch or not config.switches_ssbd(0) or value & _LEVEL_MASK != _WA2_AVAIL:
        return None
    return bool(value & register.switch)


def names(registers: Iterable[Register]) -> str:
    return ", ".join(register.name for register in registers)
