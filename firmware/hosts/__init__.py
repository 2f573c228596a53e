"""Modelled hosts, as data; a user asks for one by name.

A file of hosts ends with `HOSTS`, and is imported when one of them is asked for: a run is on one host.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Final

from firmware.errors import unknown
from firmware.host import Host

# By the first word of their hosts' names, in the order in which hosts are listed.
_FILES: Final = {
    "spec": "spec",
    "kvm": "kvm_releases",
    "firecracker": "vmm",
    "crosvm": "vmm",
    "qemu": "qemu",
    "tf": "tf_a",
    "xen": "xen",
    "hafnium": "hafnium",
    "jailhouse": "jailhouse",
    "bao": "bao",
    "u": "u_boot",
}


class _Hosts(Mapping[str, Host]):
    """Every modelled host by name."""

    def __getitem__(self, name: str) -> Host:
        for host in _beside(name):
            if host.name == name:
                return host
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        for file in dict.fromkeys(_FILES.values()):
            yield from (host.name for host in _in_file(file))

    def __len__(self) -> int:
        return sum(1 for _ in self)


HOSTS: Final[Mapping[str, Host]] = _Hosts()


def host_named(name: str) -> Host:
    """Return a modelled host, of KVM any release; raise UserError with the nearest name for one that does not exist."""
    found = HOSTS.get(name)
    if found is None and name.startswith("kvm-"):
        from firmware.hosts.kvm_releases import release_named  # noqa: PLC0415  as above

        found = release_named(name)
    if found is None:
        raise unknown("host", name, HOSTS)
    return found


def _beside(name: str) -> tuple[Host, ...]:
    # All hosts of the file in which one of that name would be.
    file = _FILES.get(name.partition("-")[0])
    return () if file is None else _in_file(file)


def _in_file(file: str) -> tuple[Host, ...]:
    hosts: tuple[Host, ...] = import_module(f"firmware.hosts.{file}").HOSTS
    return hosts
