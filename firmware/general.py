"""General service queries (DEN 0028): what an owning entity says of its service as a whole.

Only the Standard Secure service has them here; the Arm Architecture service's are deprecated and not supported, KVM's vendor
service has its UID in `vendor_hyp.py`.
"""

from __future__ import annotations

from typing import Final

from firmware.abi import SMCCC_1_0
from firmware.host import Config, Result, returns
from firmware.psci import PSCI
from firmware.psci_optional import PSCI_OPTIONAL
from firmware.table import Constant, Function, Service, is_offered
from firmware.trng import TRNG

_STANDARD_SECURE: Final = (PSCI, PSCI_OPTIONAL, TRNG)


def call_count(config: Config) -> Result:
    """Return how many function IDs the Standard Secure service has (DEN 0028, "General service queries", Call Count).

    Presence: optional. Convention: SMC32.
    Returns the host's figure, or the count of PSCI's and TRNG's SMC32 and SMC64 IDs that are served, the general queries not
    among them (choice).
    """
    calls = config.host.standard_secure.calls
    if calls is not None:
        return returns(calls)
    offered = (row for service in _STANDARD_SECURE for row in service.functions(config) if is_offered(config, service, row))
    return returns(sum(len(row.fids) for row in offered))


def call_uid(config: Config) -> Result:
    """Return the Standard Secure service's UID in w0 to w3 (DEN 0028, "General service queries", Call UID).

    Presence: mandatory where the service is. Convention: SMC32.
    """
    return Result(config.host.standard_secure.uid)


def call_revision(config: Config) -> Result:
    """Return the Standard Secure service's revision (DEN 0028, "General service queries", Revision).

    Presence: mandatory where the service is. Convention: SMC32.
    Returns major in w0, minor in w1.
    """
    return Result(config.host.standard_secure.revision)


# fmt: off
ROWS: Final = (
    #        name                 fid32        fid64 since      answer
    Function("STD_CALL_COUNT",    0x8400_FF00, None, SMCCC_1_0, Constant(call_count), result="word"),
    Function("STD_CALL_UID",      0x8400_FF01, None, SMCCC_1_0, Constant(call_uid), result="words"),
    Function("STD_CALL_REVISION", 0x8400_FF03, None, SMCCC_1_0, Constant(call_revision), result="words"),
)
# fmt: on

STANDARD_SECURE: Final = Service("Standard Secure", (), lambda config: config.smccc, lambda _config: ROWS)
