"""KVM/arm64's releases by name: those in which something changed, and any between them.

A stable release is known where it took over the version register; of others nobody here knows what they took over.
"""

from __future__ import annotations

import re
from typing import Final

from firmware.errors import UserError
from firmware.host import Host
from firmware.hosts import kvm
from firmware.hosts.kvm_interface import interface_at

_STABLE: Final = (kvm.KVM_4_9_99, kvm.KVM_4_14_39, kvm.KVM_4_16_7)
# In the order of what they have: the stable releases are 4.16's kin.
RELEASES: Final = (
    kvm.KVM_3_11,
    kvm.KVM_3_13,
    kvm.KVM_3_14,
    kvm.KVM_3_16,
    kvm.KVM_3_19,
    kvm.KVM_4_2,
    kvm.KVM_4_3,
    kvm.KVM_4_12,
    kvm.KVM_4_15,
    kvm.KVM_4_16,
    *_STABLE,
    kvm.KVM_4_17,
    kvm.KVM_4_18,
    kvm.KVM_5_0,
    kvm.KVM_5_3,
    kvm.KVM_5_5,
    kvm.KVM_5_7,
    kvm.KVM_5_9,
    kvm.KVM_5_10,
    kvm.KVM_5_12,
    kvm.KVM_5_13,
    kvm.KVM_5_15,
    kvm.KVM_5_17,
    kvm.KVM_5_18,
    kvm.KVM_5_19,
    kvm.KVM_6_4,
    kvm.KVM_6_5,
    kvm.KVM_6_12,
    kvm.KVM_6_13,
    kvm.KVM_6_15,
    kvm.KVM_7_0,
)
HOSTS: Final = RELEASES


# ---- any release by name

# The last minor release of each series: Linux 4.20 was followed by 5.0, 5.19 by 6.0, 6.19 by 7.0.
_LAST: Final = {3: 19, 4: 20, 5: 19, 6: 19, 7: 0}


def _number(host: Host) -> tuple[int, ...]:
    return tuple(map(int, host.name.removeprefix("kvm-").split(".")))


def release_named(name: str) -> Host | None:
    """Return the row in force at a release, such as kvm-5.4 or kvm-4.14.50, under that name; None for what is no release's name.

    Raises UserError for a release of which nothing is known.
    """
    match = re.fullmatch(r"kvm-(\d{1,2})\.(\d{1,3})(?:\.(\d{1,3}))?", name, re.ASCII)
    if match is None:
        return None
    asked = tuple(int(part) for part in match.groups() if part is not None)
    mainline = [host for host in RELEASES if host not in _STABLE]
    if asked[:2] < _number(mainline[0]) or asked[:2] > _number(mainline[-1]) or asked[1] > _LAST[asked[0]]:
        raise UserError(f"host {name!r} is not known; KVM/arm64 is known from {mainline[0].name} to {mainline[-1].name}")
    row = [host for host in mainline if _number(host) <= asked[:2]][-1]
    if len(asked) > 2 and asked[2]:
        row = _stable_row(name, asked)
    if row.name == name:
        return row
    interface = interface_at(asked)
    return row.evolve(name=name, summary=f"{row.summary} ({row.name})", user_interface=interface, cite=row.sources["name"])


def _stable_row(name: str, asked: tuple[int, ...]) -> Host:
    for stable in _STABLE:
        if _number(stable)[:2] == asked[:2] and asked >= _number(stable):
            return stable
    if asked[:2] == _number(kvm.KVM_4_16):
        return kvm.KVM_4_16
    known = ", ".join(stable.name for stable in _STABLE)
    raise UserError(
        f"host {name!r}: what this stable release took over from later ones is not known; "
        f"kvm-{asked[0]}.{asked[1]} is the release without, and of stable ones there are {known}"
    )


def mainline_of(host: Host) -> Host | None:
    """Return the mainline row that a stable release with backports departs from; None for any other host."""
    if host not in _STABLE:
        return None
    return [row for row in RELEASES if row not in _STABLE and _number(row) <= _number(host)[:2]][-1]
