#include "report.h"

#include "console.h"
#include "cpu.h"

struct cpu cpus[IMAGE_CPUS];

static unsigned tests, failures;

void report_exception(uint64_t esr, uint64_t elr, uint64_t far);

void verdict(bool pass)
{
    tests++;
    failures += !pass;
    print(pass ? "PASS: " : "FAIL: ");
}

void report(bool pass, const char *format, ...)
{
    va_list arguments;

    verdict(pass);
    va_start(arguments, format);
    vprint(format, arguments);
    va_end(arguments);
    print("\n");
}

int summary(void)
{
    print("SUMMARY: %u tests", tests);
    if (failures != 0)
        print(", %u unexpected failures", failures);
    print("\n");
    return failures != 0;
}

void report_exception(uint64_t esr, uint64_t elr, uint64_t far)
{
    print("FAIL: unexpected exception, esr %lx elr %lx far %lx\n", esr, elr, far);
}
