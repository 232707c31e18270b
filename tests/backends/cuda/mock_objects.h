/* What mock_driver.c is made of: its log of calls, errors on demand, and objects that are counted.

   It is included once. */

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum kind { CONTEXT, MEMORY, PINNED, MODULE, STREAM, EVENT, GRAPH, EXECUTABLE, KINDS };
enum status { OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 101, INVALID_IMAGE = 200,
              INVALID_CONTEXT = 201, NOT_FOUND = 500, LOST = 700, LOST_END = 720 };

struct object { int number; char *text; struct object *capture; };
struct function { char name[64]; int count, sizes[16], shared; };
struct module { struct object object; int count; struct function functions[8]; };
struct attribute { int id; char pad[4]; int value; char rest[60]; };
struct config { unsigned grid[3], block[3], shared; struct object *stream;
                struct attribute *attributes; unsigned count; };
typedef unsigned long long address;

static FILE *lines;
static int left[KINDS], numbers;
static size_t used;
static const size_t FREE = 1000000000, TOTAL = 2000000000;
static _Thread_local int current;

__attribute__((constructor)) static void begin(void) { lines = fopen(getenv("MOCK_LOG"), "w"); }

__attribute__((destructor)) static void end(void) {
    static const char *names[] = {"context", "memory", "pinned", "module",
                                  "stream", "event", "graph", "executable"};
    for (int kind = 0; kind < KINDS; kind++) fprintf(lines, "left %s %d\n", names[kind], left[kind]);
    fclose(lines);
}

static int injected(const char *name) {
    static char known[99], wanted[99];
    static int calls, nth, status, lost;
    const char *told = getenv("MOCK_FAIL");
    if (!told || !*told) return OK;
    if (strcmp(told, known)) {
        strcpy(known, told);
        sscanf(told, "%98[^:]:%d:%d", wanted, &nth, &status);
        calls = lost = 0;
    }
    if (!lost && (strcmp(name, wanted) || ++calls != nth)) return OK;
    lost = status >= LOST && status < LOST_END;
    return status;
}

static int called(const char *name, const char *format, ...) {
    va_list values;
    va_start(values, format);
    fprintf(lines, "%s", name);
    vfprintf(lines, format, values);
    fprintf(lines, "\n");
    va_end(values);
    return injected(name);
}

#define CALLED(...) do { int status_ = called(__func__, __VA_ARGS__); \
                         if (status_) return status_; } while (0)
/* The same for a function that needs a current context. */
#define IN_CONTEXT(...) do { CALLED(__VA_ARGS__); if (!current) return INVALID_CONTEXT; } while (0)

static void *made(enum kind kind, size_t size) {
    struct object *object = calloc(1, size);
    object->number = ++numbers, left[kind]++;
    return object;
}

static int freed(enum kind kind, struct object *object) {
    left[kind]--;
    free(object->text);
    free(object);
    return OK;
}

/* Something that a stream's graph runs, if it has one. */
static int recorded(struct object *stream, const char *text) {
    struct object *graph = stream->capture;
    if (!graph) return OK;
    size_t before = graph->text ? strlen(graph->text) : 0;
    graph->text = realloc(graph->text, before + strlen(text) + 10);
    sprintf(graph->text + before, "run %s\n", text);
    return OK;
}
