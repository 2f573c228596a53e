"""Every guest of the catalogue on the hosts that are not in test_on_hosts.py.

No host makes us fail; where a guest fails, it is the host's doing, and stands in a table with the reason.
"""

from __future__ import annotations

from typing import Final

import pytest

from emu.outcome import ExitCode
from firmware.hosts import HOSTS
from firmware.hosts.kvm_releases import RELEASES
from guests import Guest
from tests.guests.test_on_hosts import GUESTS, OFFERS, run

OTHERS: Final = [name for name, host in HOSTS.items() if name not in OFFERS and host not in RELEASES]

# What a guest cannot do there, by host: the guests that need it end as they say here, all others as the catalogue says.
CONTEXT_LOST: Final = dict.fromkeys(("rendezvous", "off-on-again", "affinity-levels", "reset", "smc32-cpu-on"), 1) | {
    "race": ExitCode.NO_PROGRESS
}
NEVER_OFF: Final = dict.fromkeys(GUESTS, 1)
ENDS: Final[dict[str, dict[str, int]]] = {
    "qemu-6": {},
    "tf-a": {},
    "tf-a-tos": {},
    "crosvm": {"reset": ExitCode.RESET, "reset2": ExitCode.RESET},
    "firecracker": {"reset": ExitCode.RESET, "reset2": ExitCode.RESET},
    # A CPU that does not exist is OFF.
    "xen": {"affinity-levels": 1},
    # PSCI_FEATURES(CPU_SUSPEND) hands on EL3's OS-initiated bit, SET_SUSPEND_MODE is blocked.
    "hafnium-primary": {"os-initiated": 1},
    # No SYSTEM_OFF, so a guest ends by semihosting with 1.
    "hafnium-secondary": NEVER_OFF,
    "bao": NEVER_OFF,
    # Nor here, and no context_id: one guest waits for ever, one reads address 0, one calls by HVC and is parked.
    "jailhouse": {**NEVER_OFF, "race": ExitCode.NO_PROGRESS, "spectre-discovery": 98, "wrong-conduit": ExitCode.DEADLOCK},
    # No CPU_SUSPEND; SYSTEM_RESET2 takes what is reserved.
    "u-boot": {**CONTEXT_LOST, "suspend-standby": 1, "os-initiated": 1, "reset2": 1},
    "u-boot-bare": NEVER_OFF,
}
# These end before they need SYSTEM_OFF: they crash, as they should, or end by other means.
NEED_NO_OFF: Final = frozenset(guest.name for guest in GUESTS.values() if any(code >= ExitCode.CRASH for code in guest.expect.values()))


@pytest.mark.parametrize("guest", GUESTS.values(), ids=lambda guest: guest.name)
@pytest.mark.parametrize("host", OTHERS)
def test_a_guest_ends_as_the_catalogue_says_or_as_the_host_makes_it(host: str, guest: Guest) -> None:
    version = str(HOSTS[host].latest)
    first, second = (run(guest.name, host, version, log=True) for _ in range(2))

    expected = guest.expect[version]
    if guest.name not in NEED_NO_OFF:
        expected = ENDS[host].get(guest.name, expected)
    assert first.code == expected, first.console + first.log
    assert second == first


def test_every_host_is_in_one_of_the_tables() -> None:
    assert set(ENDS) == set(OTHERS)


@pytest.mark.parametrize("guest", GUESTS.values(), ids=lambda guest: guest.name)
@pytest.mark.parametrize("host", OTHERS)
@pytest.mark.parametrize("conduit", ["hvc", "smc", "both"])
def test_no_guest_makes_us_fail_by_any_conduit(host: str, guest: Guest, conduit: str) -> None:
    assert run(guest.name, host, conduit=conduit).code not in (ExitCode.OURS, ExitCode.LIMIT)
