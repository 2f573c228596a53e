/* A guest with DWARF, for file and line of a call site: it asks for nothing that it calls. */

static unsigned long call(unsigned long function_id)
{
    register unsigned long x0 __asm__("x0") = function_id;

    __asm__ volatile("hvc #0" : "+r"(x0) : : "x1", "x2", "x3", "memory");
    return x0;
}

void _start(void)
{
    call(0x84000000);
    call(0xc400000e);
    for (;;)
        __asm__ volatile("wfi");
}
