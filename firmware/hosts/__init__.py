"""Modelled hosts, as data; a user asks for one by name."""

from __future__ import annotations

from typing import Final

from firmware.errors import unknown
from firmware.host import Host
from firmware.hosts.kvm import KVM_6_12
from firmware.hosts.qemu import QEMU_7
from firmware.hosts.spec import SPEC

HOSTS: Final = {host.name: host for host in (SPEC, KVM_6_12, QEMU_7)}


def host_named(name: str) -> Host:
    """Return a modelled host; raise UserError with the nearest name for one that does not exist."""
    if name not in HOSTS:
        raise unknown("host", name, HOSTS)
    return HOSTS[name]
