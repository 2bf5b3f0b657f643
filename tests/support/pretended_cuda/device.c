/* A CUDA runtime and cuBLAS without a device: memory is the host's, kernels and matrix products do nothing, and every
 * request is counted. All other functions are generated and return 0, which means success in all of these libraries
 * (see __init__.py).
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { LAUNCHES, TO_DEVICE, TO_HOST, WITHIN, ALLOCATIONS, CAPTURES, GRAPHS, PRODUCTS, STREAMS, COUNTERS };
static int64_t counted[COUNTERS];
static int capturing;
static char opaque[8]; /* what every handle points to */

void pretended_counts(int64_t *into) { memcpy(into, counted, sizeof counted); }

/* Devices: one, like an H100. Offsets are those of cudaDeviceProp in CUDA 13. */

static void put(void *properties, size_t offset, int value) { *(int *)((char *)properties + offset) = value; }

int cudaGetDeviceProperties(void *properties, int device) {
    memset(properties, 0, 1008);
    strcpy(properties, "pretended");
    *(size_t *)((char *)properties + 288) = (size_t)80 << 30; /* totalGlobalMem */
    *(size_t *)((char *)properties + 296) = 49152;            /* sharedMemPerBlock */
    put(properties, 304, 65536);                              /* regsPerBlock */
    put(properties, 308, 32);                                 /* warpSize */
    put(properties, 320, 1024);                               /* maxThreadsPerBlock */
    put(properties, 324, 1024), put(properties, 328, 1024), put(properties, 332, 64); /* maxThreadsDim */
    put(properties, 336, 2147483647), put(properties, 340, 65535), put(properties, 344, 65535); /* maxGridSize */
    put(properties, 360, 9), put(properties, 364, 0);         /* compute capability */
    put(properties, 384, 132);                                /* multiProcessorCount */
    put(properties, 604, 2048);                               /* maxThreadsPerMultiProcessor */
    *(size_t *)((char *)properties + 624) = 233472;           /* sharedMemPerMultiprocessor */
    *(size_t *)((char *)properties + 672) = 232448;           /* sharedMemPerBlockOptin */
    return 0;
}

int cudaDeviceGetAttribute(int *value, int attribute, int device) {
    switch (attribute) {
    case 1: *value = 1024; break;   /* threads per block */
    case 10: *value = 32; break;    /* warp */
    case 16: *value = 132; break;   /* multiprocessors */
    case 75: *value = 9; break;     /* compute capability */
    case 76: *value = 0; break;
    case 97: *value = 232448; break; /* shared memory per block */
    default: *value = 1;
    }
    return 0;
}

int cudaGetDeviceCount(int *count) { *count = 1; return 0; }
int cudaGetDevice(int *device) { *device = 0; return 0; }
int cudaDriverGetVersion(int *version) { *version = 13000; return 0; }
int cudaRuntimeGetVersion(int *version) { *version = 13000; return 0; }
const char *cudaGetErrorString(int error) { return "pretended"; }
const char *cudaGetErrorName(int error) { return "pretended"; }

/* Memory. */

int cudaMalloc(void **pointer, size_t bytes) {
    counted[ALLOCATIONS]++;
    *pointer = aligned_alloc(256, (bytes + 511) / 256 * 256);
    memset(*pointer, 0, bytes);
    return 0;
}
int cudaMallocHost(void **pointer, size_t bytes) { return cudaMalloc(pointer, bytes); }
int cudaHostAlloc(void **pointer, size_t bytes, unsigned flags) { return cudaMalloc(pointer, bytes); }
int cudaFree(void *pointer) { free(pointer); return 0; }
int cudaFreeHost(void *pointer) { free(pointer); return 0; }
int cudaMemGetInfo(size_t *unused, size_t *total) { *unused = *total = (size_t)80 << 30; return 0; }

int cudaMemcpy(void *to, const void *from, size_t bytes, int kind) {
    counted[kind == 1 ? TO_DEVICE : kind == 2 ? TO_HOST : WITHIN]++;
    memmove(to, from, bytes);
    return 0;
}
int cudaMemcpyAsync(void *to, const void *from, size_t bytes, int kind, void *stream) {
    return cudaMemcpy(to, from, bytes, kind);
}
int cudaMemset(void *at, int value, size_t bytes) { memset(at, value, bytes); return 0; }
int cudaMemsetAsync(void *at, int value, size_t bytes, void *stream) { return cudaMemset(at, value, bytes); }

/* Streams and graphs. */

static char streams[4096]; /* one handle each */
static int made;
static char at_work[4096]; /* which of them have launched something */
static void works(void *stream) {
    size_t index = (char *)stream - streams;
    if (index >= sizeof streams) index = 0; /* the default stream */
    counted[STREAMS] += !at_work[index];
    at_work[index] = 1;
}
int cudaStreamCreate(void **stream) { *stream = &streams[++made]; return 0; }
int cudaStreamCreateWithFlags(void **stream, unsigned flags) { return cudaStreamCreate(stream); }
int cudaEventCreate(void **event) { *event = opaque; return 0; }
int cudaEventCreateWithFlags(void **event, unsigned flags) { *event = opaque; return 0; }
int cudaStreamIsCapturing(void *stream, int *status) { *status = capturing; return 0; }
int cudaStreamBeginCapture(void *stream, int mode) { works(stream); capturing = 1; return 0; }
int cudaStreamEndCapture(void *stream, void **graph) {
    counted[CAPTURES]++;
    capturing = 0;
    *graph = opaque;
    return 0;
}
int cudaGraphInstantiate(void **executable, void *graph, unsigned long long flags) { *executable = opaque; return 0; }
int cudaGraphLaunch(void *executable, void *stream) { works(stream); counted[GRAPHS]++; return 0; }

/* Kernels and products. */

void **__cudaRegisterFatBinary(void *binary) { static void *handle; return &handle; }
int __cudaGetKernel(void **kernel, const void *function) { *kernel = opaque; return 0; }
int cudaLaunchKernel(void) { counted[LAUNCHES]++; return 0; }
int __cudaLaunchKernel(void) { counted[LAUNCHES]++; return 0; }
int cudaLaunchKernelExC(void) { counted[LAUNCHES]++; return 0; }
int cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, const void *f, int n, size_t s, unsigned flags) {
    *blocks = 2;
    return 0;
}
int cublasCreate_v2(void **handle) { *handle = opaque; return 0; }
int cublasLtCreate(void **handle) { *handle = opaque; return 0; }
int cublasGetMathMode(void *handle, int *mode) { *mode = 0; return 0; }
int cublasSgemm_v2(void) { counted[PRODUCTS]++; return 0; }
int cublasGemmEx(void) { counted[PRODUCTS]++; return 0; }
int cublasGemmBatchedEx(void) { counted[PRODUCTS]++; return 0; }
int cublasGemmStridedBatchedEx(void) { counted[PRODUCTS]++; return 0; }
int cublasSgemmBatched(void) { counted[PRODUCTS]++; return 0; }
int cublasSgemmStridedBatched(void) { counted[PRODUCTS]++; return 0; }
int cublasLtMatmul(void) { counted[PRODUCTS]++; return 0; }
