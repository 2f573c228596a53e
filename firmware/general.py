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

# 8b0f6a52-9c1d-4e37-8d64-3f0a7be2c915 (choice). W0 must not be all ones: that is NOT_SUPPORTED.
_STANDARD_SECURE_UID: Final = (0x526A_0F8B, 0x374E_1D9C, 0x0A3F_648D, 0x15C9_E27B)
_STANDARD_SECURE_REVISION: Final = (1, 0)  # choice
_STANDARD_SECURE: Final = (PSCI, PSCI_OPTIONAL, TRNG)


def call_count(config: Config) -> Result:
    """Return how many function IDs the Standard Secure service has (DEN 0028, "General service queries", Call Count).

    Presence: optional. Convention: SMC32.
    Returns the count of PSCI's and TRNG's SMC32 and SMC64 IDs that are served, the general queries not among them (choice).
    """
    offered = (row for service in _STANDARD_SECURE for row in service.functions(config) if is_offered(config, service, row))
    return returns(sum(len(row.fids) for row in offered))


def call_uid(_config: Config) -> Result:
    """Return the Standard Secure service's UID in w0 to w3 (DEN 0028, "General service queries", Call UID).

    Presence: mandatory where the service is. Convention: SMC32.
    """
    return Result(_STANDARD_SECURE_UID)


def call_revision(_config: Config) -> Result:
    """Return the Standard Secure service's revision (DEN 0028, "General service queries", Revision).

    Presence: mandatory where the service is. Convention: SMC32.
    Returns major in w0, minor in w1.
    """
    return Result(_STANDARD_SECURE_REVISION)


# fmt: off
ROWS: Final = (
    #        name                 fid32        fid64 since      answer
    Function("STD_CALL_COUNT",    0x8400_FF00, None, SMCCC_1_0, Constant(call_count), result="word"),
    Function("STD_CALL_UID",      0x8400_FF01, None, SMCCC_1_0, Constant(call_uid), result="words"),
    Function("STD_CALL_REVISION", 0x8400_FF03, None, SMCCC_1_0, Constant(call_revision), result="words"),
)
# fmt: on

STANDARD_SECURE: Final = Service("Standard Secure", (), lambda config: config.smccc, lambda _config: ROWS)
