/* Calls one function of a compiled library, for a process that cannot load the library itself:
 *
 *     aarch64_driver LIBRARY FUNCTION ARGUMENTS
 *
 * ARGUMENTS is a file: an int64 count, that many `Argument`s, then the tensors' bytes. It is mapped
 * shared, so what the function writes into its tensors is in the file afterwards.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>

enum { INT = 1, TENSOR = 7, CPU = 1, MAX_ARGUMENTS = 64 };

typedef struct {
    int64_t code, bits; /* of the elements' type, as DLPack numbers them; bits 0: an integer */
    int64_t value;      /* the integer, or the number of elements */
    int64_t offset;     /* the first element's byte in the file, a multiple of 64 */
} Argument;

typedef struct { /* TVMFFIAny */
    int32_t type, padding;
    int64_t value;
} Any;

typedef struct { /* DLTensor */
    void *data;
    int32_t device, device_id, ndim;
    uint8_t code, bits;
    uint16_t lanes;
    int64_t *shape, *strides;
    uint64_t byte_offset;
} Tensor;

/* The one symbol of TVM's FFI library that kernels use: they report a wrong argument by it. */
void TVMFFIErrorSetRaisedFromCStrParts(const char *kind, const char **parts, int32_t count) {
    fprintf(stderr, "%s: ", kind);
    for (int i = 0; i < count; i++) fputs(parts[i], stderr);
    fputc('\n', stderr);
}

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    void *library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    void *symbol = library ? dlsym(library, argv[2]) : NULL;
    if (!symbol) return fprintf(stderr, "%s\n", dlerror()), 2;
    int file = open(argv[3], O_RDWR);
    struct stat status;
    if (file < 0 || fstat(file, &status)) return perror(argv[3]), 2;
    char *map = mmap(NULL, status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (map == MAP_FAILED) return perror(argv[3]), 2;

    int64_t count = *(int64_t *)map;
    if (count > MAX_ARGUMENTS) return fputs("too many arguments\n", stderr), 2;
    Argument *arguments = (Argument *)(map + sizeof count);
    Any anys[MAX_ARGUMENTS], result = {0};
    Tensor tensors[MAX_ARGUMENTS];
    int64_t stride = 1;
    for (int i = 0; i < count; i++) {
        Argument *a = &arguments[i];
        tensors[i] = (Tensor){map + a->offset, CPU, 0, 1, a->code, a->bits, 1, &a->value, &stride, 0};
        anys[i] = a->bits ? (Any){TENSOR, 0, (intptr_t)&tensors[i]} : (Any){INT, 0, a->value};
    }
    int (*function)(void *, const Any *, int32_t, Any *) = symbol;
    int failed = function(NULL, anys, count, &result);
    return dlclose(library) || failed;
}
