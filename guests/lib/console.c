#include "console.h"

#include <stdbool.h>
#include <stdint.h>

#define PL011           0x09000000ul
#define UARTDR          (*(volatile uint32_t *)(PL011 + 0x00))
#define UARTFR          (*(volatile uint32_t *)(PL011 + 0x18))
#define UARTFR_TXFF     (1u << 5)

static void print_char(char c)
{
    while (UARTFR & UARTFR_TXFF) {
    }
    UARTDR = (unsigned char)c;
}

static void print_string(const char *string)
{
    while (*string)
        print_char(*string++);
}

static void print_decimal(uint64_t value)
{
    char digits[20];
    unsigned count = 0;

    do
        digits[count++] = (char)('0' + value % 10);
    while ((value /= 10) != 0);
    while (count != 0)
        print_char(digits[--count]);
}

static void print_hex(uint64_t value)
{
    unsigned count = 1;

    while (count < 16 && value >> (4 * count) != 0)
        count++;
    print_string("0x");
    while (count-- != 0) {
        print_char("0123456789abcdef"[value >> (4 * count) & 0xf]);
        if (count != 0 && count % 4 == 0)
            print_char('_');
    }
}

static void print_signed(int64_t value)
{
    if (value < 0)
        print_char('-');
    print_decimal(value < 0 ? -(uint64_t)value : (uint64_t)value);
}

void vprint(const char *format, va_list arguments)
{
    for (; *format; format++) {
        if (*format != '%') {
            print_char(*format);
            continue;
        }
        bool is_long = *++format == 'l';
        format += is_long;
        switch (*format) {
        case 's': print_string(va_arg(arguments, const char *)); break;
        case 'c': print_char((char)va_arg(arguments, int)); break;
        case 'd': print_signed(is_long ? va_arg(arguments, int64_t) : va_arg(arguments, int32_t)); break;
        case 'u': print_decimal(is_long ? va_arg(arguments, uint64_t) : va_arg(arguments, uint32_t)); break;
        case 'x': print_hex(is_long ? va_arg(arguments, uint64_t) : va_arg(arguments, uint32_t)); break;
        default: print_char(*format); break;
        }
    }
}

void print(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vprint(format, arguments);
    va_end(arguments);
}
