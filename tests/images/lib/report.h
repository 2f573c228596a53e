/* PASS and FAIL lines and the summary, as kvm-unit-tests prints them. */
#ifndef REPORT_H
#define REPORT_H

#include <stdbool.h>
#include <stdint.h>

/* Count a test and begin its line, which the caller ends. */
void verdict(bool pass);

/* Count a test and print its line. */
void report(bool pass, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Print the summary and return the image's exit code: 0, or 1 if anything failed. */
int summary(void);

/* What the image does; its result is the exit code. x0 is the device tree's address. */
int image_main(uintptr_t x0);

#endif
