/* PSCI (DEN 0022) and the services of SMCCC (DEN 0028): Arm Architecture, TRNG (DEN 0098), PV time (DEN 0057). */
#ifndef PSCI_H
#define PSCI_H

#include <stdbool.h>
#include <stdint.h>

#include "devicetree.h"

enum {
    PSCI_VERSION = 0x84000000,
    CPU_SUSPEND_64 = 0xc4000001,
    CPU_OFF = 0x84000002,
    CPU_ON_32 = 0x84000003,
    CPU_ON_64 = 0xc4000003,
    AFFINITY_INFO_64 = 0xc4000004,
    MIGRATE_INFO_TYPE = 0x84000006,
    MIGRATE_INFO_UP_CPU_64 = 0xc4000007,
    SYSTEM_OFF = 0x84000008,
    SYSTEM_RESET = 0x84000009,
    PSCI_FEATURES = 0x8400000a,
    SYSTEM_SUSPEND_64 = 0xc400000e,
    SET_SUSPEND_MODE = 0x8400000f,
    SYSTEM_RESET2_64 = 0xc4000012,
    SYSTEM_OFF2_64 = 0xc4000015,

    SMCCC_VERSION = 0x80000000,
    SMCCC_ARCH_FEATURES = 0x80000001,
    SMCCC_ARCH_WORKAROUND_3 = 0x80003fff,
    SMCCC_ARCH_WORKAROUND_2 = 0x80007fff,
    SMCCC_ARCH_WORKAROUND_1 = 0x80008000,

    TRNG_VERSION = 0x84000050,
    TRNG_FEATURES = 0x84000051,
    TRNG_GET_UUID = 0x84000052,
    TRNG_RND32 = 0x84000053,
    TRNG_RND64 = 0xc4000053,

    PV_TIME_FEATURES = 0xc5000020,
    PV_TIME_ST = 0xc5000021,
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

/* power_state of CPU_SUSPEND. PSCI_FEATURES(CPU_SUSPEND) tells the format; bit 31 is reserved in both. */
enum {
    POWER_STATE_STANDBY = 0,
    POWER_STATE_POWERDOWN = 1u << 16,           /* original StateID */
    POWER_STATE_EXTENDED_POWERDOWN = 1u << 30,  /* extended StateID */
    POWER_STATE_RESERVED = 1u << 31,
    FEATURE_OS_INITIATED = 1u << 0,
    FEATURE_EXTENDED_STATE_ID = 1u << 1,
};

enum {
    PSCI_0_1 = 0x00000001,
    PSCI_0_2 = 0x00000002,
    PSCI_1_0 = 0x00010000,
    PSCI_1_1 = 0x00010001,
    PSCI_1_3 = 0x00010003,
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

/* What PSCI version may be relied on: the device tree's word for 0.1, and for 0.2 where PSCI_VERSION is NOT_SUPPORTED. */
answer offered_version(void);

/* NOT_SUPPORTED, without a call, where PSCI 0.1's device tree has no ID for it. */
answer cpu_suspend(uint32_t power_state, void (*entry_point_address)(void), uint64_t context_id);
answer cpu_off(void);
answer cpu_on(uint64_t target_cpu, void (*entry_point_address)(void), uint64_t context_id);
answer affinity_info(uint64_t target_affinity, uint32_t lowest_affinity_level);
answer migrate_info_type(void);
answer migrate_info_up_cpu(void);
answer system_off(void);
answer system_reset(void);
answer psci_features(uint32_t function_id);
answer system_suspend(void (*entry_point_address)(void), uint64_t context_id);
answer set_suspend_mode(uint32_t mode);
answer system_reset2(uint32_t reset_type, uint64_t cookie);
answer system_off2(uint32_t off_type, uint64_t cookie);
answer smccc_version(void);
answer smccc_arch_features(uint32_t function_id);
answer smccc_arch_workaround(uint32_t function_id, uint32_t state);

/* What SMCCC version may be used, and what that rests on. */
struct smccc {
    uint32_t version;
    const char *because;    /* "" where SMCCC_VERSION said so */
};
struct smccc discover_smccc(answer version);

/* "ON", "OFF", "ON_PENDING", or as answer_name. */
const char *affinity_name(answer value);

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
