"""Modelled hosts, as data; a user asks for one by name."""

from __future__ import annotations

from typing import Final

from firmware.errors import unknown
from firmware.host import Host
from firmware.hosts.kvm_releases import RELEASES, release_named
from firmware.hosts.qemu import QEMU_7
from firmware.hosts.spec import SPEC

HOSTS: Final = {host.name: host for host in (SPEC, *RELEASES, QEMU_7)}


def host_named(name: str) -> Host:
    """Return a modelled host, of KVM any release; raise UserError with the nearest name for one that does not exist."""
    found = HOSTS.get(name) or release_named(name)
    if found is None:
        raise unknown("host", name, HOSTS)
    return found
