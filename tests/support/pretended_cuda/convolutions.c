/* cuDNN without a device: it offers one engine for everything, which needs neither workspace nor knobs. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

enum { BOOLEAN = 2, INT64 = 3, DESCRIPTOR = 15, INT32 = 23 }; /* cudnnBackendAttributeType_t */
enum { KNOB_CHOICES = 302 };                                  /* cudnnBackendAttributeName_t */

size_t cudnnGetVersion(void) { return 91300; }
const char *cudnnGetErrorString(int status) { return "pretended"; }
int cudnnCreate(void **handle) { *handle = malloc(8); return 0; }
int cudnnBackendCreateDescriptor(int type, void **descriptor) { *descriptor = malloc(8); return 0; }
int cudnnBackendDestroyDescriptor(void *descriptor) { free(descriptor); return 0; }

int cudnnBackendGetAttribute(void *descriptor, int name, int type, int64_t wanted, int64_t *count, void *values) {
    int supported = type == BOOLEAN || type == INT64 || type == INT32 || (type == DESCRIPTOR && name != KNOB_CHOICES);
    if (count)
        *count = supported;
    if (values && wanted && type == INT64)
        *(int64_t *)values = 0;
    if (values && wanted && type == INT32)
        *(int32_t *)values = 0;
    if (values && wanted && type == BOOLEAN)
        *(char *)values = 0;
    return 0;
}
