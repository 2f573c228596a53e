/* GCC may call these for a copied or cleared struct even in freestanding code. */
#include <stddef.h>

void *memcpy(void *restrict destination, const void *restrict source, size_t size_bytes);
void *memset(void *destination, int value, size_t size_bytes);

void *memcpy(void *restrict destination, const void *restrict source, size_t size_bytes)
{
    for (size_t i = 0; i < size_bytes; i++)
        ((char *)destination)[i] = ((const char *)source)[i];
    return destination;
}

void *memset(void *destination, int value, size_t size_bytes)
{
    for (size_t i = 0; i < size_bytes; i++)
        ((char *)destination)[i] = (char)value;
    return destination;
}
