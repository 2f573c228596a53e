"""Modelled hosts, as data; a user asks for one by name."""

from __future__ import annotations

from typing import Final

from firmware.errors import unknown
from firmware.host import Host
from firmware.hosts.bao import BAO
from firmware.hosts.hafnium import HAFNIUM_PRIMARY, HAFNIUM_SECONDARY
from firmware.hosts.jailhouse import JAILHOUSE
from firmware.hosts.kvm_releases import RELEASES, release_named
from firmware.hosts.qemu import QEMU_6, QEMU_7
from firmware.hosts.spec import SPEC
from firmware.hosts.tf_a import TF_A, TF_A_TOS
from firmware.hosts.u_boot import U_BOOT, U_BOOT_BARE
from firmware.hosts.vmm import CROSVM, FIRECRACKER
from firmware.hosts.xen import XEN

_OTHERS: Final = (QEMU_6, QEMU_7, TF_A, TF_A_TOS, XEN, HAFNIUM_PRIMARY, HAFNIUM_SECONDARY, JAILHOUSE, BAO, U_BOOT, U_BOOT_BARE)

HOSTS: Final = {host.name: host for host in (SPEC, *RELEASES, FIRECRACKER, CROSVM, *_OTHERS)}


def host_named(name: str) -> Host:
    """Return a modelled host, of KVM any release; raise UserError with the nearest name for one that does not exist."""
    found = HOSTS.get(name) or release_named(name)
    if found is None:
        raise unknown("host", name, HOSTS)
    return found
