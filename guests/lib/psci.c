#include "psci.h"

#include "conduit.h"

static struct psci_node node;

void psci_use(const struct psci_node *used)
{
    node = *used;
}

static inline __attribute__((always_inline)) answer
call(uint32_t function_id, uint64_t arg1, uint64_t arg2, uint64_t arg3)
{
    struct results results = smccc_call(node.method, function_id, arg1, arg2, arg3);

    return results.undefined ? UNDEF : (int32_t)results.x0;
}

answer psci_version(void)
{
    return call(PSCI_VERSION, 0, 0, 0);
}

answer offered_version(void)
{
    if (node.binding == BINDING_PSCI_0_1)
        return PSCI_0_1;

    answer value = psci_version();

    return value == NOT_SUPPORTED ? PSCI_0_2 : value;
}

answer cpu_suspend(uint32_t power_state, void (*entry_point_address)(void), uint64_t context_id)
{
    uint32_t function_id = node.binding == BINDING_PSCI_0_1 ? node.cpu_suspend : CPU_SUSPEND_64;

    if (function_id == 0)
        return NOT_SUPPORTED;
    return call(function_id, power_state, (uintptr_t)entry_point_address, context_id);
}

/* 0.1's takes a power_state; 0.2 dropped it. */
answer cpu_off(void)
{
    if (node.binding == BINDING_PSCI_0_1)
        return call(node.cpu_off, POWER_STATE_POWERDOWN, 0, 0);
    return call(CPU_OFF, 0, 0, 0);
}

/* The SMC64 form: SMC32's arguments are 32 bits, and an entry point or a context_id may not fit. */
answer cpu_on(uint64_t target_cpu, void (*entry_point_address)(void), uint64_t context_id)
{
    uint32_t function_id = node.binding == BINDING_PSCI_0_1 ? node.cpu_on : CPU_ON_64;

    return call(function_id, target_cpu, (uintptr_t)entry_point_address, context_id);
}

answer affinity_info(uint64_t target_affinity, uint32_t lowest_affinity_level)
{
    return call(AFFINITY_INFO_64, target_affinity, lowest_affinity_level, 0);
}

answer migrate_info_type(void)
{
    return call(MIGRATE_INFO_TYPE, 0, 0, 0);
}

/* An MPIDR, so all 64 bits count. */
answer migrate_info_up_cpu(void)
{
    struct results results = smccc_call(node.method, MIGRATE_INFO_UP_CPU_64, 0, 0, 0);

    return results.undefined ? UNDEF : (int64_t)results.x0;
}

answer system_off(void)
{
    return call(SYSTEM_OFF, 0, 0, 0);
}

answer system_reset(void)
{
    return call(SYSTEM_RESET, 0, 0, 0);
}

answer psci_features(uint32_t function_id)
{
    return call(PSCI_FEATURES, function_id, 0, 0);
}

answer system_suspend(void (*entry_point_address)(void), uint64_t context_id)
{
    return call(SYSTEM_SUSPEND_64, (uintptr_t)entry_point_address, context_id, 0);
}

answer set_suspend_mode(uint32_t mode)
{
    return call(SET_SUSPEND_MODE, mode, 0, 0);
}

answer system_reset2(uint32_t reset_type, uint64_t cookie)
{
    return call(SYSTEM_RESET2_64, reset_type, cookie, 0);
}

answer system_off2(uint32_t off_type, uint64_t cookie)
{
    return call(SYSTEM_OFF2_64, off_type, cookie, 0);
}

answer smccc_version(void)
{
    return call(SMCCC_VERSION, 0, 0, 0);
}

answer smccc_arch_features(uint32_t function_id)
{
    return call(SMCCC_ARCH_FEATURES, function_id, 0, 0);
}

answer smccc_arch_workaround(uint32_t function_id, uint32_t state)
{
    return call(function_id, state, 0, 0);
}

const char *affinity_name(answer value)
{
    static const char *const names[] = { "ON", "OFF", "ON_PENDING" };

    return value >= AFFINITY_ON && value <= AFFINITY_ON_PENDING ? names[value] : answer_name(value);
}

const char *answer_name(answer value)
{
    static const char *const names[] = {
        "SUCCESS", "NOT_SUPPORTED", "INVALID_PARAMETERS", "DENIED", "ALREADY_ON", "ON_PENDING", "INTERNAL_FAILURE",
        "NOT_PRESENT", "DISABLED", "INVALID_ADDRESS", "TIMEOUT", "RATE_LIMITED", "BUSY",
    };

    if (value == UNDEF)
        return "UNDEF";
    return value <= 0 && value >= BUSY ? names[-value] : "an unnamed code";
}
