/* Words that a reset leaves: RAM outside the image, which nobody loads anew. They also bound a guest that resets itself. */
#ifndef BOOTS_H
#define BOOTS_H

#include <stdint.h>

struct boots {
    uint64_t magic;
    uint32_t count;     /* 1 at the first boot */
    uint32_t note;      /* the guest's own, 0 at the first boot */
};

/* Count this boot. Ends the guest if the host does not keep RAM, or if there were more boots than this. */
struct boots *count_boot(uint32_t most);

/* For whoever starts the machine again with the same RAM. */
void forget_boots(void);

#endif
