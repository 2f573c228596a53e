"""VMMs on KVM that are not like QEMU: PSCI is answered in the kernel, the device tree and a reset are theirs.

Read: Firecracker v1.16 (commit 81b38b9d) src/vmm/src/arch/aarch64/fdt.rs, vstate/vcpu.rs; crosvm (commit f1e797a6) aarch64/src/fdt.rs,
src/crosvm/sys/linux/vcpu.rs.
"""

from __future__ import annotations

from typing import Final

from firmware.abi import PSCI_1_0, Version
from firmware.hosts.kvm import KVM_6_12, KVM_6_15


def only_0_2(_version: Version) -> tuple[str, ...]:
    """List one string, whatever the version is."""
    return ("arm,psci-0.2",)


def without_0_1(version: Version) -> tuple[str, ...]:
    """List the strings of what the version is compatible with, 0.1 not among them."""
    return ("arm,psci-0.2",) if version < PSCI_1_0 else ("arm,psci-1.0", "arm,psci-0.2")


FIRECRACKER: Final = (
    KVM_6_15.evolve(
        name="firecracker",
        summary="Firecracker 1.16 on kvm-6.18",
        cite="Firecracker commit 81b38b9d docs/kernel-policy.md: Linux 6.18 is the newest host kernel, of which kvm-6.15 is the row",
    )
    .evolve(
        node_compatible=only_0_2,
        cite="Firecracker commit 81b38b9d src/vmm/src/arch/aarch64/fdt.rs, create_psci_node",
    )
    .evolve(
        reset_ends=True,
        cite="Firecracker commit 81b38b9d src/vmm/src/vstate/vcpu.rs, KVM_SYSTEM_EVENT_RESET; FAQ.md",
    )
)

CROSVM: Final = (
    KVM_6_12.evolve(
        name="crosvm",
        summary="crosvm on kvm-6.12",
        cite="crosvm commit f1e797a6",
    )
    .evolve(
        offers_0_1=False,
        cite="crosvm commit f1e797a6 aarch64/src/lib.rs, vcpu_features: PsciV0_2 always",
    )
    .evolve(
        node_compatible=without_0_1,
        cite="crosvm commit f1e797a6 aarch64/src/fdt.rs, psci_compatible",
    )
    .evolve(
        reset_ends=True,
        cite="crosvm commit f1e797a6 src/crosvm/sys/linux/vcpu.rs, VcpuExit::SystemEventReset; src/main.rs, VmReset",
    )
)

HOSTS: Final = (FIRECRACKER, CROSVM)
