/* A libcuda whose one GPU is called Orin and whose device memory is host memory. */
#include <stdlib.h>
#include <string.h>
static long live;
int cuInit(unsigned flags) { return 0; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDeviceGet(int *device, int index) { *device = 0; return index != 0; }
int cuDeviceGetName(char *name, int size, int device) { strncpy(name, "Orin", size); return 0; }
int cuDeviceGetAttribute(int *value, int which, int device) { *value = which == 75 ? 8 : which == 76 ? 7 : -1; return 0; }
int cuDriverGetVersion(int *version) { *version = 12060; return 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) { *context = (void *)1; return 0; }
int cuCtxSetCurrent(void *context) { return context != (void *)1; }
int cuMemAlloc_v2(unsigned long long *pointer, size_t size) {
    if (size > 1u << 30) return 2;
    *pointer = (unsigned long long)malloc(size);
    live++;
    return 0;
}
int cuMemFree_v2(unsigned long long pointer) { free((void *)pointer); live--; return 0; }
int cuStreamCreate(void **stream, unsigned flags) { *stream = (void *)2; return flags != 1; }
int cuStreamSynchronize(void *stream) { return stream != (void *)2; }
int cuMemcpyHtoD_v2(unsigned long long to, void *from, size_t size) { memcpy((void *)to, from, size); return 0; }
int cuMemcpyDtoH_v2(void *to, unsigned long long from, size_t size) { memcpy(to, (void *)from, size); return 0; }
long live_allocations(void) { return live; }
