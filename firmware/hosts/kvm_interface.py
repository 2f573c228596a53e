"""What KVM/arm64 offers to user space beside its registers, by release; a guest sees nothing of it.

Each row is a release with what it brought, on top of all rows before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from firmware.host import UserInterface


class _Brought(NamedTuple):
    """A release, what it brought, and the source.

    extensions  further KVM_CAP numbers that KVM_CHECK_EXTENSION knows
    columns     further fields of `UserInterface`
    """

    release: tuple[int, int]
    cite: str
    extensions: tuple[int, ...] = ()
    columns: Mapping[str, Any] = {}


# fmt: off
BROUGHT: Final = (
    _Brought((3, 11), "arch/arm64/kvm/guest.c, kvm_vcpu_set_target; KVM_CAP_ARM_PSCI", (87,), {"features": 2}),
    _Brought((3, 16), "KVM_CAP_ARM_PSCI_0_2, KVM_ARM_VCPU_PSCI_0_2", (102,), {"features": 3}),
    _Brought((4, 1),  "KVM_GET_MP_STATE on arm: commit ecccf0cc722f (in v4.1) (not re-read)", (), {"mp_state": True}),
    _Brought((4, 6),  "KVM_ARM_VCPU_PMU_V3 (not re-read)", (), {"features": 4}),
    _Brought((5, 2),  "KVM_ARM_VCPU_SVE, KVM_ARM_VCPU_PTRAUTH_ADDRESS and _GENERIC (not re-read)", (), {"features": 7}),
    _Brought((5, 13), "KVM_CAP_PTP_KVM", (198,)),
    _Brought((5, 19), "KVM_CAP_SYSTEM_EVENT_DATA, KVM_CAP_ARM_SYSTEM_SUSPEND, KVM_MP_STATE_SUSPENDED", (215, 216),
             {"suspended": True, "event_data": True}),
    _Brought((6, 4),  "arch/arm64/kvm/hypercalls.c, kvm_smccc_set_filter", (), {"filter": True}),
    _Brought((6, 5),  "commits e3c1c0cae31e (POWER_OFF may differ) and 2251e9ff1573 (features are the VM's)", (),
             {"power_off_is_kept": False}),
    _Brought((6, 6),  'commit 5346f7e13e5e ("KVM: arm64: Always return generic v8 as the preferred target")', (),
             {"generic_target": True}),
    _Brought((6, 15), "KVM_CAP_ARM_WRITABLE_IMP_ID_REGS", (239,)),
    _Brought((6, 16), "KVM_ARM_VCPU_HAS_EL2 and _E2H0 are known: KVM_VCPU_MAX_FEATURES (in about v6.16)", (), {"features": 9}),
)
# fmt: on


def interface_at(release: tuple[int, ...]) -> UserInterface:
    """Return what a release offers; of a stable one, what the release that it is made from does."""
    interface = UserInterface()
    for brought in BROUGHT:
        if brought.release <= release[:2]:
            interface = interface._replace(extensions=interface.extensions | set(brought.extensions), **brought.columns)
    return interface
