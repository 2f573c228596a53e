/* The PL011 at 0x0900_0000, output only. One CPU prints at a time: there is no lock. */
#ifndef CONSOLE_H
#define CONSOLE_H

#include <stdarg.h>

/*
 * As printf with %s %c %d %u %x, and l for 64 bits. %x writes 0x and underscores (0x8400_0000), as the sources of this
 * project do. No widths, no flags.
 */
void print(const char *format, ...) __attribute__((format(printf, 1, 2)));
void vprint(const char *format, va_list arguments);

#endif
