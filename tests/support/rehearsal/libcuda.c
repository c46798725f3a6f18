/* Stands in for the driver's library, libcuda.so.1: it says which GPU there is, and computes nothing.
 *
 * NAME, MAJOR, MINOR, MEMORY_BYTES, CUDA_VERSION and UUID (16 numbers) are given when it is compiled.
 */
#include <stddef.h>
#include <string.h>

int cuInit(unsigned int flags) {
    (void)flags;
    return 0;
}

int cuDriverGetVersion(int *version) {
    *version = CUDA_VERSION;
    return 0;
}

/* What is asked of it beyond that says that there is no device: Triton counts none then. */
static int no_device(void) {
    return 100;
}

int cuGetProcAddress_v2(
    const char *name, void **found, int version, unsigned long flags, int *status) {
    (void)version;
    (void)flags;
    *found = strcmp(name, "cuDriverGetVersion") ? (void *)no_device : (void *)cuDriverGetVersion;
    if (status) *status = 0;
    return 0;
}

int cuDeviceGetName(char *name, int size, int device) {
    (void)device;
    strncpy(name, NAME, (size_t)size);
    return 0;
}

int cuDeviceGetAttribute(int *value, int attribute, int device) {
    (void)device;
    if (attribute != 75 && attribute != 76) return 1; /* the compute capability's two numbers */
    *value = attribute == 75 ? MAJOR : MINOR;
    return 0;
}

int cuDeviceTotalMem_v2(size_t *bytes, int device) {
    (void)device;
    *bytes = MEMORY_BYTES;
    return 0;
}

int cuDeviceGetUuid_v2(unsigned char *uuid, int device) {
    (void)device;
    const unsigned char own[16] = {UUID};
    memcpy(uuid, own, sizeof own);
    return 0;
}
