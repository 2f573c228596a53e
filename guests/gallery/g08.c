/* A version of 0 is taken for "no PSCI". */
#include "gallery.h"

static bool is_present(void)
{
    answer version = offered_version();

#ifdef MENDED
    /* The node promised 0.2; a firmware that counts itself wrong is still there. */
    return version != UNDEF;
#else
    return version > 0;
#endif
}

void guest_main(void)
{
    need_binding(BINDING_PSCI_0_2, 2);
    if (!is_present())
        print("no PSCI\n");
    judge_cpus(is_present() ? bring_up() : 1);
}
