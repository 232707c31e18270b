/* A CUDA driver for tests: memory of the GPU is memory of the host, kernels do nothing.

   Every call is a line in the file MOCK_LOG: its name and arguments. Objects have small numbers.
   The last line counts what was not freed. More variables of the environment:

       MOCK_FAIL     "cuMemAlloc:2:700": the second call of it from now on answers 700; what CUDA
                     cannot recover from (700 to 719) is then the answer of every later call
       MOCK_LACKS    a function that this driver does not have
       MOCK_VERSION  the version of CUDA that it supports
       MOCK_SILENT   all attributes of its GPU are 0

   A "cubin" is text, one line per kernel: its name and the sizes of its parameters in bytes. */

#include "mock_objects.h"

int cuInit(unsigned flags) { CALLED(" %u", flags); return OK; }
int cuDriverGetVersion(int *version) {
    CALLED("");
    *version = getenv("MOCK_VERSION") ? atoi(getenv("MOCK_VERSION")) : 13000;
    return OK;
}
int cuGetErrorString(int status, const char **text) {
    *text = status == LOST ? "an illegal memory access was encountered" : "described";
    return OK;
}
int cuDeviceGetCount(int *count) { CALLED(""); *count = 1; return OK; }
int cuDeviceGet(int *device, int index) { CALLED(" %d", index); *device = index; return OK; }
int cuDeviceGetName(char *name, int length, int device) {
    CALLED(" %d", device);
    snprintf(name, length, "Mock GPU");
    return OK;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    CALLED(" %d %d", attribute, device);
    /* The capability; the memory's clock in kHz and width in bits; the cache. */
    static const int known[100] = {[75] = 9, [36] = 3201000, [37] = 6144, [38] = 1 << 20};
    *value = getenv("MOCK_SILENT") ? 0 : known[attribute];
    return OK;
}
int cuDeviceTotalMem(size_t *bytes, int device) { CALLED(" %d", device); *bytes = TOTAL; return OK; }
int cuDevicePrimaryCtxRetain(void **context, int device) {
    CALLED(" %d", device);
    static char only;
    left[CONTEXT]++;
    *context = &only;
    return OK;
}
int cuDevicePrimaryCtxRelease(int device) { CALLED(" %d", device); left[CONTEXT]--; return OK; }
int cuCtxPushCurrent(void *context) { (void)context; current++; return OK; }
int cuCtxPopCurrent(void **context) { *context = NULL; current--; return OK; }

int cuMemGetInfo(size_t *available, size_t *total) {
    IN_CONTEXT("");
    return *available = FREE - used, *total = TOTAL, OK;
}
int cuMemAlloc(address *pointer, size_t bytes) {
    IN_CONTEXT(" %zu", bytes);
    if (bytes > FREE - used) return OUT_OF_MEMORY;
    size_t *block = malloc(bytes + 64);
    used += *block = bytes;
    left[MEMORY]++;
    *pointer = (address)(uintptr_t)block + 64;
    return OK;
}
int cuMemFree(address pointer) {
    IN_CONTEXT("");
    size_t *block = (size_t *)(uintptr_t)(pointer - 64);
    used -= *block;
    free(block);
    left[MEMORY]--;
    return OK;
}
int cuMemHostAlloc(void **pointer, size_t bytes, unsigned flags) {
    IN_CONTEXT(" %zu %u", bytes, flags);
    *pointer = malloc(bytes);
    left[PINNED]++;
    return OK;
}
int cuMemFreeHost(void *pointer) { IN_CONTEXT(""); free(pointer); left[PINNED]--; return OK; }
int cuMemcpyHtoDAsync(address to, const void *from, size_t bytes, struct object *stream) {
    IN_CONTEXT(" %zu stream %d", bytes, stream->number);
    memcpy((void *)(uintptr_t)to, from, bytes);
    return OK;
}
int cuMemcpyDtoHAsync(void *to, address from, size_t bytes, struct object *stream) {
    IN_CONTEXT(" %zu stream %d", bytes, stream->number);
    memcpy(to, (void *)(uintptr_t)from, bytes);
    return OK;
}
int cuMemcpyDtoDAsync(address to, address from, size_t bytes, struct object *stream) {
    IN_CONTEXT(" %zu stream %d", bytes, stream->number);
    memcpy((void *)(uintptr_t)to, (void *)(uintptr_t)from, bytes);
    return OK;
}
int cuMemsetD8Async(address to, unsigned char value, size_t bytes, struct object *stream) {
    IN_CONTEXT(" %d %zu stream %d", value, bytes, stream->number);
    memset((void *)(uintptr_t)to, value, bytes);
    return OK;
}

int cuStreamCreate(struct object **stream, unsigned flags) {
    IN_CONTEXT(" %u", flags);
    return *stream = made(STREAM, sizeof **stream), OK;
}
int cuStreamDestroy(struct object *stream) { IN_CONTEXT(""); return freed(STREAM, stream); }
int cuStreamSynchronize(struct object *stream) { IN_CONTEXT(" %d", stream->number); return OK; }
int cuEventCreate(struct object **event, unsigned flags) {
    IN_CONTEXT(" %u", flags);
    return *event = made(EVENT, sizeof **event), OK;
}
int cuEventDestroy(struct object *event) { IN_CONTEXT(""); return freed(EVENT, event); }
int cuEventRecord(struct object *event, struct object *stream) {
    IN_CONTEXT(" %d stream %d", event->number, stream->number);
    return OK;
}
int cuEventRecordWithFlags(struct object *event, struct object *stream, unsigned flags) {
    char text[30];
    IN_CONTEXT(" %d stream %d flags %u", event->number, stream->number, flags);
    sprintf(text, "mark %d", event->number);
    return recorded(stream, text);
}
int cuStreamWaitEvent(struct object *stream, struct object *event, unsigned flags) {
    /* Small handles are CUDA's own streams: 1 is the default one. */
    int own = (uintptr_t)stream < 3;
    int number = own ? (int)(uintptr_t)stream : stream->number;
    IN_CONTEXT(" %d event %d flags %u", number, event->number, flags);
    return OK;
}
int cuEventSynchronize(struct object *event) { IN_CONTEXT(" %d", event->number); return OK; }
int cuEventElapsedTime(float *milliseconds, struct object *from, struct object *to) {
    IN_CONTEXT(" %d %d", from->number, to->number);
    *milliseconds = 2.5f;
    return OK;
}

static void parse(struct function *function, const char *line) {
    int at = 0, step;
    sscanf(line, "%63s%n", function->name, &at);
    while (sscanf(line + at, "%d%n", &function->sizes[function->count], &step) == 1)
        at += step, function->count++;
    function->shared = 48 << 10;
}
int cuModuleLoadData(struct module **module, const char *image) {
    IN_CONTEXT("");
    if (*image == '\x7f') return INVALID_IMAGE;
    struct module *loaded = *module = made(MODULE, sizeof **module);
    char *copy = strdup(image), *rest = copy, *line;
    while ((line = strtok_r(rest, "\n", &rest))) parse(&loaded->functions[loaded->count++], line);
    free(copy);
    return OK;
}
int cuModuleUnload(struct module *module) { IN_CONTEXT(""); return freed(MODULE, &module->object); }
int cuModuleGetFunction(struct function **function, struct module *module, const char *name) {
    IN_CONTEXT(" %s", name);
    for (int i = 0; i < module->count; i++)
        if (!strcmp((*function = &module->functions[i])->name, name)) return OK;
    return NOT_FOUND;
}
int cuFuncSetAttribute(struct function *function, int attribute, int value) {
    IN_CONTEXT(" %s %d %d", function->name, attribute, value);
    if (value > 227 << 10) return INVALID_VALUE;
    if (attribute == 8) function->shared = value;
    return OK;
}
int cuLaunchKernelEx(struct config *c, struct function *f, unsigned char **values, void **extra) {
    char text[999], *at = text;
    at += sprintf(at, "%s grid %u,%u,%u block %u,%u,%u shared %u stream %d", f->name, c->grid[0],
                  c->grid[1], c->grid[2], c->block[0], c->block[1], c->block[2], c->shared,
                  c->stream->number);
    for (unsigned i = 0; i < c->count; i++)
        at += sprintf(at, " attribute %d=%d", c->attributes[i].id, c->attributes[i].value);
    for (int i = 0; i < f->count; i++) {
        at += sprintf(at, " ");
        for (int j = 0; j < f->sizes[i]; j++) at += sprintf(at, "%02x", values[i][j]);
    }
    IN_CONTEXT(" %s", text);
    if (extra || c->shared > (unsigned)f->shared) return INVALID_VALUE;
    return recorded(c->stream, text);
}

int cuStreamBeginCapture(struct object *stream, int mode) {
    IN_CONTEXT(" %d mode %d", stream->number, mode);
    stream->capture = made(GRAPH, sizeof *stream);
    return OK;
}
int cuStreamEndCapture(struct object *stream, struct object **graph) {
    IN_CONTEXT(" %d", stream->number);
    *graph = stream->capture;
    stream->capture = NULL;
    return OK;
}
int cuGraphInstantiateWithFlags(struct object **made_of, struct object *graph, address flags) {
    IN_CONTEXT(" %llu", flags);
    *made_of = made(EXECUTABLE, sizeof *graph);
    (*made_of)->text = strdup(graph->text ? graph->text : "");
    return OK;
}
int cuGraphLaunch(struct object *executable, struct object *stream) {
    IN_CONTEXT(" stream %d", stream->number);
    fputs(executable->text, lines);
    return OK;
}
int cuGraphDestroy(struct object *graph) { IN_CONTEXT(""); return freed(GRAPH, graph); }
int cuGraphExecDestroy(struct object *graph) { IN_CONTEXT(""); return freed(EXECUTABLE, graph); }

#define EACH(F) F(cuInit) F(cuDriverGetVersion) F(cuGetErrorString) F(cuDeviceGetCount) \
    F(cuDeviceGet) F(cuDeviceGetName) F(cuDeviceGetAttribute) F(cuDeviceTotalMem) \
    F(cuDevicePrimaryCtxRetain) F(cuDevicePrimaryCtxRelease) F(cuCtxPushCurrent) \
    F(cuCtxPopCurrent) F(cuMemGetInfo) F(cuMemAlloc) F(cuMemFree) F(cuMemHostAlloc) \
    F(cuMemFreeHost) F(cuMemcpyHtoDAsync) F(cuMemcpyDtoHAsync) F(cuMemcpyDtoDAsync) \
    F(cuMemsetD8Async) \
    F(cuStreamCreate) F(cuStreamDestroy) F(cuStreamSynchronize) F(cuEventCreate) \
    F(cuEventDestroy) F(cuEventRecord) F(cuEventRecordWithFlags) \
    F(cuEventSynchronize) F(cuStreamWaitEvent) F(cuEventElapsedTime) \
    F(cuModuleLoadData) F(cuModuleUnload) F(cuModuleGetFunction) F(cuFuncSetAttribute) \
    F(cuLaunchKernelEx) F(cuStreamBeginCapture) F(cuStreamEndCapture) \
    F(cuGraphInstantiateWithFlags) F(cuGraphLaunch) F(cuGraphDestroy) F(cuGraphExecDestroy)
#define ROW(NAME) {#NAME, (void *)NAME},

/* cuda-bindings looks this one up in the library, and asks it for all others. */
int cuGetProcAddress_v2(const char *name, void **found, int version, address flags, int *result) {
    static const struct { const char *name; void *function; } table[] = {
        EACH(ROW) {"cuGetProcAddress", (void *)cuGetProcAddress_v2}};
    const char *lacks = getenv("MOCK_LACKS");
    (void)version, (void)flags, (void)result;
    *found = NULL;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (!strcmp(table[i].name, name) && !(lacks && !strcmp(lacks, name)))
            *found = table[i].function;
    return *found ? OK : NOT_FOUND;
}
