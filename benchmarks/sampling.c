/* Where a thread spends its CPU time, for shares.py: SIGPROF interrupts it, and a handler notes the
 * instruction and the top of the stack. For Linux on x86-64. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/time.h>
#include <ucontext.h>

enum { WORDS = 64 }; /* of the stack: enough to find the return address of a small function */

typedef struct {
    uint64_t at, stack[WORDS];
} Sample;

const int sampling_words = sizeof(Sample) / sizeof(uint64_t);
static Sample *samples;
static int64_t capacity;
static _Atomic int64_t count;

static void take(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)info;
    int64_t k = atomic_fetch_add(&count, 1);
    if (k >= capacity) return;
    const greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    samples[k].at = (uint64_t)registers[REG_RIP];
    memcpy(samples[k].stack, (const void *)registers[REG_RSP], sizeof samples[k].stack);
}

static int every(int microseconds) {
    struct timeval interval = {0, microseconds};
    struct itimerval timer = {interval, interval};
    return setitimer(ITIMER_PROF, &timer, NULL);
}

/* Starts to fill `buffer`, which has room for `room` samples; returns 0 on success. */
int sampling_start(Sample *buffer, int64_t room, int microseconds) {
    samples = buffer, capacity = room, atomic_store(&count, 0);
    struct sigaction action = {.sa_sigaction = take, .sa_flags = SA_SIGINFO | SA_RESTART};
    return sigaction(SIGPROF, &action, NULL) || every(microseconds);
}

/* Returns how many samples were taken. */
int64_t sampling_stop(void) {
    every(0);
    int64_t taken = atomic_load(&count);
    return taken < capacity ? taken : capacity;
}
