#include "psci.h"

/*
 * The order is DEN 0028's, and each step is the permission for the next: firmware older than a call may answer it with
 * anything, UNDEFINED included. All compares are signed: -1 is not version 65535.65535.
 */
struct smccc discover_smccc(answer version)
{
    if (version < PSCI_1_0)
        return (struct smccc){ SMCCC_1_0, "PSCI below 1.0 has no PSCI_FEATURES" };
    if (psci_features(SMCCC_VERSION) < 0)
        return (struct smccc){ SMCCC_1_0, "PSCI_FEATURES denies SMCCC_VERSION" };

    answer smccc = smccc_version();

    if (smccc < SMCCC_1_1)
        return (struct smccc){ SMCCC_1_0, "SMCCC_VERSION answers less than 1.1" };
    return (struct smccc){ (uint32_t)smccc, "" };
}
