/* "PSCI cannot reset": the reboot ends in a loop. SYSTEM_RESET has been there since 0.2. */
#include "gallery.h"

#include "../lib/boots.h"

void guest_main(void)
{
    need_binding(BINDING_PSCI_0_2, 1);
    if (count_boot(2)->count == 2) {
        forget_boots();
        survived("rebooted");
    }
    print("reboot: ");
#ifdef MENDED
    answer value = system_reset();

    forget_boots();
    if (value == NOT_SUPPORTED || value == UNDEF)
        out_of_place("this firmware has no SYSTEM_RESET");
    fail("SYSTEM_RESET: %s", answer_name(value));
#else
    forget_boots();
    print("please switch the machine off and on again\n");
    park();
#endif
}
