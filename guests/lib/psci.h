/* PSCI (DEN 0022) and the Arm Architecture service of SMCCC (DEN 0028), as a caller at EL1 sees them. */
#ifndef PSCI_H
#define PSCI_H

#include <stdbool.h>
#include <stdint.h>

#include "devicetree.h"

enum {
    PSCI_VERSION = 0x84000000,
    CPU_SUSPEND_64 = 0xc4000001,
    CPU_OFF = 0x84000002,
    CPU_ON_64 = 0xc4000003,
    AFFINITY_INFO_64 = 0xc4000004,
    MIGRATE_INFO_TYPE = 0x84000006,
    MIGRATE_INFO_UP_CPU_64 = 0xc4000007,
    SYSTEM_OFF = 0x84000008,
    PSCI_FEATURES = 0x8400000a,
    SYSTEM_SUSPEND_64 = 0xc400000e,
    SYSTEM_RESET2_64 = 0xc4000012,
    SYSTEM_OFF2_64 = 0xc4000015,

    SMCCC_VERSION = 0x80000000,
    SMCCC_ARCH_FEATURES = 0x80000001,
    SMCCC_ARCH_WORKAROUND_3 = 0x80003fff,
    SMCCC_ARCH_WORKAROUND_2 = 0x80007fff,
    SMCCC_ARCH_WORKAROUND_1 = 0x80008000,
};

enum {
    SUCCESS = 0,
    NOT_SUPPORTED = -1,
    INVALID_PARAMETERS = -2,
    DENIED = -3,
    ALREADY_ON = -4,
    ON_PENDING = -5,
    INTERNAL_FAILURE = -6,
    NOT_PRESENT = -7,
    DISABLED = -8,
    INVALID_ADDRESS = -9,
    TIMEOUT = -10,
    RATE_LIMITED = -11,
    BUSY = -12,
};

/* AFFINITY_INFO */
enum {
    AFFINITY_ON = 0,
    AFFINITY_OFF = 1,
    AFFINITY_ON_PENDING = 2,
};

enum {
    PSCI_0_2 = 0x00000002,
    PSCI_1_0 = 0x00010000,
    SMCCC_1_0 = 0x00010000,
    SMCCC_1_1 = 0x00010001,
};

/*
 * What a call answers: w0 as a signed number (some firmware leaves the upper half of x0 zero under a negative w0), or
 * UNDEF where the conduit instruction was UNDEFINED. UNDEF is negative, so "< 0" means "no" for either.
 */
typedef int64_t answer;
#define UNDEF INT64_MIN

/* Which node the calls below follow. Set once, before the first call. */
void psci_use(const struct psci_node *node);

answer psci_version(void);
answer cpu_off(void);
answer cpu_on(uint64_t target_cpu, void (*entry_point_address)(void), uint64_t context_id);
answer affinity_info(uint64_t target_affinity, uint32_t lowest_affinity_level);
answer migrate_info_type(void);
answer migrate_info_up_cpu(void);
answer system_off(void);
answer psci_features(uint32_t function_id);
answer smccc_version(void);
answer smccc_arch_features(uint32_t function_id);
answer smccc_arch_workaround(uint32_t function_id, uint32_t state);

/* What SMCCC version may be used, and what that rests on. */
struct smccc {
    uint32_t version;
    const char *because;    /* "" where SMCCC_VERSION said so */
};
struct smccc discover_smccc(answer version);

/* The standard's name of a return code, "UNDEF", or "an unnamed code". */
const char *answer_name(answer value);

static inline uint32_t version_major(answer version)
{
    return (uint32_t)version >> 16;
}

static inline uint32_t version_minor(answer version)
{
    return (uint32_t)version & 0xffff;
}

#endif
