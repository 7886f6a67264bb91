/* Stands in for NVIDIA's driver where there is none, so that Taichi can compile for CUDA on any Linux machine.

   Memory is the host's, copies are memmove, and a launch does nothing: what kernels would compute is never there. Code
   that is compiled is real. Each module that Taichi hands over as PTX is written to $FAKE_CUDA_DIR, and what the host
   asks of the device to $FAKE_CUDA_DIR/log, a line each:

       launch NAME        a kernel
       read BYTES         a copy to the host, for which the host waits
       write BYTES        a copy from the host
       wait               the host waits for the device

   Arrays are zeroed with ones, and read with ones for zeros: counts that kernels would have found are then 1 instead of
   0, and the host goes on to launch what it would launch for something instead of stopping at nothing. As a float the
   bits of 1 are next to nothing.

   $FAKE_CUDA_CC is the compute capability that is pretended, 80 if not given. Build:

       cc -shared -fPIC -O1 -o libcuda.so.1 fake_libcuda.c
*/

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int Result; /* CUresult: 0 is success */
typedef uint64_t Device; /* CUdeviceptr */
typedef void *Handle;

enum { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2 };
static const size_t TOTAL = (size_t)16 << 30;

static const char *folder(void) {
    const char *given = getenv("FAKE_CUDA_DIR");
    return given ? given : ".";
}

static void note(const char *what, const char *name, size_t number) {
    static FILE *log = NULL;
    if (!log) {
        char path[4096];
        snprintf(path, sizeof path, "%s/log", folder());
        log = fopen(path, "a");
        if (!log) return;
        setvbuf(log, NULL, _IOLBF, 0);
    }
    if (name) fprintf(log, "%s %s\n", what, name);
    else if (number) fprintf(log, "%s %zu\n", what, number);
    else fprintf(log, "%s\n", what);
}

/* What only has to succeed. */
#define NOTHING(name, ...) Result name(__VA_ARGS__) { return SUCCESS; }
/* What gives out a handle that nobody looks into. */
#define HANDLE(name, ...) Result name(Handle *made, ##__VA_ARGS__) { *made = (Handle)&TOTAL; return SUCCESS; }

/* -- the device -- */

NOTHING(cuInit, unsigned flags)
Result cuDriverGetVersion(int *version) { *version = 12040; return SUCCESS; }
Result cuDeviceGetCount(int *count) { *count = 1; return SUCCESS; }
Result cuDeviceGet(int *device, int index) { *device = 0; return index ? INVALID_VALUE : SUCCESS; }
Result cuDeviceGetName(char *name, int length, int device) {
    snprintf(name, (size_t)length, "no GPU: a stand-in for the CUDA driver");
    return SUCCESS;
}
Result cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = TOTAL; return SUCCESS; }
Result cuMemGetInfo_v2(size_t *available, size_t *total) { *available = *total = TOTAL; return SUCCESS; }
Result cuDeviceGetAttribute(int *value, int attribute, int device) {
    int capability = getenv("FAKE_CUDA_CC") ? atoi(getenv("FAKE_CUDA_CC")) : 80;
    switch (attribute) { /* CUdevice_attribute */
        case 1: *value = 1024; break;   /* threads of a block, at most */
        case 8: *value = 49152; break;  /* bytes of shared memory of a block */
        case 10: *value = 32; break;    /* threads of a warp */
        case 16: *value = 108; break;   /* multiprocessors */
        case 39: *value = 2048; break;  /* threads of a multiprocessor */
        case 75: *value = capability / 10; break;
        case 76: *value = capability % 10; break;
        case 81: *value = 167936; break; /* bytes of shared memory of a multiprocessor */
        case 97: *value = 166912; break; /* bytes of shared memory of a block that asks for it */
        default: *value = 1;             /* "does it support": yes */
    }
    return SUCCESS;
}
HANDLE(cuDeviceGetDefaultMemPool, int device)
NOTHING(cuMemPoolSetAttribute, Handle pool, int attribute, void *value)
HANDLE(cuDevicePrimaryCtxRetain, int device)
HANDLE(cuCtxCreate_v2, unsigned flags, int device)
HANDLE(cuCtxGetCurrent)
NOTHING(cuCtxSetCurrent, Handle context)
NOTHING(cuCtxSetLimit, int limit, size_t value)
static Result say(const char **text) { *text = "an error of the stand-in for the CUDA driver"; return SUCCESS; }
Result cuGetErrorName(Result error, const char **text) { return say(text); }
Result cuGetErrorString(Result error, const char **text) { return say(text); }

/* -- memory -- */

static Result allocate(Device *made, size_t bytes) {
    *made = (Device)(uintptr_t)calloc(1, bytes ? bytes : 1);
    return *made ? SUCCESS : OUT_OF_MEMORY;
}
static Result copy(Device into, Device from, size_t bytes) {
    memmove((void *)(uintptr_t)into, (const void *)(uintptr_t)from, bytes);
    return SUCCESS;
}
static int array_comes; /* the last kernel was Taichi's that copies an array to where the host then reads it */
static Result to_host(void *into, Device from, size_t bytes) {
    uint32_t *words = (uint32_t *)into;
    note("read", NULL, bytes);
    copy((Device)(uintptr_t)into, from, bytes);
    if (array_comes)
        for (size_t i = 0; i < bytes / 4; i++) words[i] += !words[i];
    array_comes = 0;
    return SUCCESS;
}
static Result from_host(Device into, const void *from, size_t bytes) {
    note("write", NULL, bytes);
    return copy(into, (Device)(uintptr_t)from, bytes);
}
Result cuMemAlloc_v2(Device *made, size_t bytes) { return allocate(made, bytes); }
Result cuMemAllocManaged(Device *made, size_t bytes, unsigned flags) { return allocate(made, bytes); }
Result cuMemAllocAsync(Device *made, size_t bytes, Handle stream) { return allocate(made, bytes); }
Result cuMemFree_v2(Device memory) { free((void *)(uintptr_t)memory); return SUCCESS; }
Result cuMemFreeAsync(Device memory, Handle stream) { return cuMemFree_v2(memory); }
NOTHING(cuMemGetAttribute, void *value, int attribute, Device memory)
NOTHING(cuMemAdvise, Device memory, size_t bytes, int advice, int device)
Result cuMemcpy(Device into, Device from, size_t bytes) { return copy(into, from, bytes); }
Result cuMemcpyAsync(Device into, Device from, size_t bytes, Handle stream) { return copy(into, from, bytes); }
Result cuMemcpyDtoD_v2(Device into, Device from, size_t bytes) { return copy(into, from, bytes); }
Result cuMemcpyDtoH_v2(void *into, Device from, size_t bytes) { return to_host(into, from, bytes); }
Result cuMemcpyDtoHAsync_v2(void *into, Device from, size_t bytes, Handle stream) { return to_host(into, from, bytes); }
Result cuMemcpyHtoD_v2(Device into, const void *from, size_t bytes) { return from_host(into, from, bytes); }
Result cuMemcpyHtoDAsync_v2(Device into, const void *from, size_t bytes, Handle s) { return from_host(into, from, bytes); }
Result cuMemsetD8_v2(Device memory, unsigned char value, size_t count) {
    memset((void *)(uintptr_t)memory, value, count);
    return SUCCESS;
}
Result cuMemsetD32_v2(Device memory, unsigned value, size_t count) {
    uint32_t *words = (uint32_t *)(uintptr_t)memory;
    for (size_t i = 0; i < count; i++) words[i] = value ? value : 1;
    return SUCCESS;
}
Result cuPointerGetAttribute(void *value, int attribute, Device memory) { return INVALID_VALUE; } /* the host's */
NOTHING(cuMemHostRegister_v2, void *memory, size_t bytes, unsigned flags)
NOTHING(cuMemHostUnregister, void *memory)

/* -- code -- */

Result cuModuleLoadDataEx(Handle *module, const void *image, unsigned n, void *options, void *values) {
    static int count = 0;
    char path[4096];
    snprintf(path, sizeof path, "%s/%05d.ptx", folder(), count++);
    FILE *file = fopen(path, "w");
    if (!file) return INVALID_VALUE;
    fputs((const char *)image, file);
    fclose(file);
    *module = (Handle)&TOTAL;
    return SUCCESS;
}
HANDLE(cuModuleLoad, const char *path)
NOTHING(cuModuleUnload, Handle module)
Result cuModuleGetFunction(Handle *function, Handle module, const char *name) {
    *function = strdup(name);
    return SUCCESS;
}
Result cuModuleGetGlobal_v2(Device *memory, size_t *bytes, Handle module, const char *name) {
    if (bytes) *bytes = 8;
    return allocate(memory, 8);
}
NOTHING(cuFuncSetAttribute, Handle function, int attribute, int value)
Result cuFuncGetAttribute(int *value, int attribute, Handle function) { *value = 32; return SUCCESS; }
Result cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, Handle function, int threads, size_t shared) {
    *blocks = 4;
    return SUCCESS;
}
Result cuLaunchKernel(Handle function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                      unsigned shared, Handle stream, void **arguments, void **extra) {
    note("launch", (const char *)function, 0);
    array_comes = strstr((const char *)function, "ndarray_to_ext_arr") != NULL;
    return SUCCESS;
}
Result cuLaunchHostFunc(Handle stream, void (*function)(void *), void *given) { function(given); return SUCCESS; }

/* -- order -- */

static Result wait_for_device(void) { note("wait", NULL, 0); return SUCCESS; }
HANDLE(cuStreamCreate, unsigned flags)
NOTHING(cuStreamDestroy_v2, Handle stream)
NOTHING(cuStreamWaitEvent, Handle stream, Handle event, unsigned flags)
Result cuStreamSynchronize(Handle stream) { return wait_for_device(); }
Result cuCtxSynchronize(void) { return wait_for_device(); }
HANDLE(cuEventCreate, unsigned flags)
NOTHING(cuEventDestroy, Handle event)
NOTHING(cuEventDestroy_v2, Handle event)
NOTHING(cuEventRecord, Handle event, Handle stream)
Result cuEventSynchronize(Handle event) { return wait_for_device(); }
Result cuEventElapsedTime(float *milliseconds, Handle from, Handle to) { *milliseconds = 1; return SUCCESS; }

/* -- what Taichi looks up for windows, and never calls here -- */

NOTHING(cuImportExternalMemory, Handle *made, void *description)
NOTHING(cuDestroyExternalMemory, Handle memory)
NOTHING(cuExternalMemoryGetMappedBuffer, Device *made, Handle memory, void *description)
NOTHING(cuExternalMemoryGetMappedMipmappedArray, Handle *made, Handle memory, void *description)
NOTHING(cuMipmappedArrayGetLevel, Handle *made, Handle array, unsigned level)
NOTHING(cuSurfObjectCreate, Device *made, void *description)
NOTHING(cuImportExternalSemaphore, Handle *made, void *description)
NOTHING(cuDestroyExternalSemaphore, Handle semaphore)
NOTHING(cuSignalExternalSemaphoresAsync, void *all, void *how, unsigned n, Handle stream)
NOTHING(cuWaitExternalSemaphoresAsync, void *all, void *how, unsigned n, Handle stream)
