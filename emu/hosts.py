"""A host as a user names it: one of the modelled hosts, or a file of the user's own."""

from __future__ import annotations

from pathlib import Path

from firmware.host import Host
from firmware.hosts import host_named


def host_of(name: str) -> Host:
    """Return the host of that name, or the one in that file (FILE.toml)."""
    if not name.endswith(".toml"):
        return host_named(name)
    from emu.hostfile import read_host  # noqa: PLC0415  TOML, which a modelled host does not need

    return read_host(Path(name))


def versions_of(host: Host) -> tuple[str, ...]:
    """Return the PSCI versions that a host offers, in words; 0.1 comes first."""
    return tuple(dict.fromkeys([*(["0.1"] if host.offers_0_1 else []), *map(str, host.versions)]))


def remark_on(host: Host) -> str | None:
    """Say what of a host is unknown, and what a guest gets there, or None."""
    if not host.unknown_columns:
        return None
    return f"of host {host.name} it is unknown: {', '.join(sorted(host.unknown_columns))}; the guest gets what the host has before it"


def fingerprint(host: Host) -> str:
    """Return what a host of the user's own is, to compare with what its file says another time; "" for one whose name says it all."""
    if not host.name.endswith(".toml"):
        return ""
    from emu import hostpage  # noqa: PLC0415  with what prints tables, which a run does not need

    return hostpage.fingerprint(host)
