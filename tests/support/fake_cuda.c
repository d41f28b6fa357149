/*
 * A GPU driver without a GPU: as much of libcuda.so.1 as cuDNN asks for when it builds plans
 * for a device that is only described. A process that loads it first has no other, since its
 * soname is the driver's.
 *
 * Loading a kernel works and gives an address that nobody may call. What a driver knows of a
 * kernel (its registers, how many fit) is made up: it decides nothing about workspace.
 * Functions that are not here do nothing and succeed. There is no device.
 *
 * Thread: any.
 */

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define API __attribute__((visibility("default")))

#define NOT_FOUND 500 /* CUDA_ERROR_NOT_FOUND */

static int nothing(void)
{
    return 0;
}

static int no_table(const void **out)
{
    *out = NULL;
    return NOT_FOUND;
}

static int driver_version(int *out)
{
    *out = 13000;
    return 0;
}

static int device_count(int *out)
{
    *out = 0;
    return 0;
}

static int no_context(void **out)
{
    *out = NULL;
    return 0;
}

/* Libraries, modules, kernels, functions: something that is not NULL. */
static int some_object(void **out)
{
    *out = (void *)(uintptr_t)0x1000;
    return 0;
}

/* CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, _NUM_REGS, _MAX_DYNAMIC_SHARED_SIZE_BYTES. */
static int kernel_attribute(int *out, int attribute)
{
    *out = attribute == 0 ? 1024 : attribute == 4 ? 128 : attribute == 8 ? 232448 : 0;
    return 0;
}

static int one_block(int *out)
{
    *out = 1;
    return 0;
}

static int error_text(int code, const char **out)
{
    (void)code;
    *out = "the driver of a test";
    return 0;
}

/* What cuDNN links, or looks up by name in the library. */
#define SAME_AS(function) API __attribute__((alias(#function)))

SAME_AS(nothing) int cuInit(void);
SAME_AS(nothing) int cuCtxGetLimit(void);
SAME_AS(nothing) int cuCtxPopCurrent(void);
SAME_AS(nothing) int cuCtxPushCurrent(void);
SAME_AS(nothing) int cuDeviceGet(void);
SAME_AS(nothing) int cuKernelSetAttribute(void);
SAME_AS(nothing) int cuLaunchCooperativeKernel(void);
SAME_AS(nothing) int cuLaunchKernel(void);
SAME_AS(nothing) int cuLaunchKernelEx(void);
SAME_AS(nothing) int cuLibraryUnload(void);
SAME_AS(nothing) int cuLinkAddData(void);
SAME_AS(nothing) int cuLinkComplete(void);
SAME_AS(nothing) int cuLinkCreate(void);
SAME_AS(nothing) int cuLinkDestroy(void);
SAME_AS(nothing) int cuModuleUnload(void);
SAME_AS(nothing) int cuStreamGetCtx(void);
SAME_AS(nothing) int cuTensorMapEncodeIm2col(void);
SAME_AS(nothing) int cuTensorMapEncodeTiled(void);
SAME_AS(no_table) int cuGetExportTable(const void **out);
SAME_AS(driver_version) int cuDriverGetVersion(int *out);
SAME_AS(device_count) int cuDeviceGetCount(int *out);
SAME_AS(no_context) int cuCtxGetCurrent(void **out);
SAME_AS(some_object) int cuKernelGetFunction(void **out);
SAME_AS(some_object) int cuLibraryGetKernel(void **out);
SAME_AS(some_object) int cuLibraryLoadData(void **out);
SAME_AS(some_object) int cuLibraryLoadFromFile(void **out);
SAME_AS(some_object) int cuModuleGetFunction(void **out);
SAME_AS(some_object) int cuModuleLoadData(void **out);
SAME_AS(kernel_attribute) int cuKernelGetAttribute(int *out, int attribute);
SAME_AS(one_block) int cuOccupancyMaxPotentialClusterSize(int *out);
SAME_AS(error_text) int cuGetErrorName(int code, const char **out);
SAME_AS(error_text) int cuGetErrorString(int code, const char **out);

API int cuGetProcAddress_v2(const char *name, void **out, int version, uint64_t flags,
                            int *status);

/* What it asks for by cuGetProcAddress. */
static const struct {
    const char *name;
    void *function;
} asked[] = {
    {"cuGetProcAddress", (void *)cuGetProcAddress_v2},
    {"cuGetExportTable", (void *)no_table},
    {"cuDriverGetVersion", (void *)driver_version},
    {"cuDeviceGetCount", (void *)device_count},
    {"cuCtxGetCurrent", (void *)no_context},
    {"cuLibraryLoadData", (void *)some_object},
    {"cuLibraryGetKernel", (void *)some_object},
    {"cuKernelGetFunction", (void *)some_object},
    {"cuModuleLoadData", (void *)some_object},
    {"cuModuleLoadDataEx", (void *)some_object},
    {"cuModuleGetFunction", (void *)some_object},
    {"cuFuncGetAttribute", (void *)kernel_attribute},
    {"cuKernelGetAttribute", (void *)kernel_attribute},
    {"cuOccupancyMaxActiveBlocksPerMultiprocessor", (void *)one_block},
    {"cuOccupancyMaxActiveClusters", (void *)one_block},
    {"cuGetErrorString", (void *)error_text},
    {"cuGetErrorName", (void *)error_text},
};

static int find(const char *name, void **out)
{
    *out = (void *)nothing;
    for (size_t i = 0; i < sizeof asked / sizeof asked[0]; i++)
        if (strcmp(asked[i].name, name) == 0)
            *out = asked[i].function;
    return strncmp(name, "cu", 2) == 0 ? 0 : NOT_FOUND;
}

int cuGetProcAddress_v2(const char *name, void **out, int version, uint64_t flags, int *status)
{
    (void)version;
    (void)flags;
    int code = find(name, out);
    if (status != NULL)
        *status = code != 0;
    return code;
}
