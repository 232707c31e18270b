/* Drives the thread pool from a test: launches whose tasks check each other across barriers. */
#define _GNU_SOURCE
#include <sched.h>
#include <stdint.h>

typedef struct {
    void *sync_handle;
    int32_t num_task;
} Group;

extern int (*__TVMBackendParallelLaunch)(int (*)(int, Group *, void *), void *, int);
extern int (*__TVMBackendParallelBarrier)(int, Group *);
void mmfree_set_threads(int32_t n);

typedef struct {
    int rounds, tasks, mistakes;
    int round_of[1024];
} Run;

static int check(int id, Group *group, void *closure) {
    Run *run = closure;
    if (id == 0) run->tasks = group->num_task;
    for (int round = 1; round <= run->rounds; round++) {
        run->round_of[id] = round;
        __TVMBackendParallelBarrier(id, group);
        for (int other = 0; other < group->num_task; other++)
            if (run->round_of[other] != round) __atomic_fetch_add(&run->mistakes, 1, __ATOMIC_RELAXED);
        __TVMBackendParallelBarrier(id, group);
    }
    return 0;
}

static int fail_in(int id, Group *group, void *closure) {
    (void)group;
    return id == *(int *)closure ? -1 : 0;
}

/* Mistakes seen in `launches` launches of `tasks` tasks, or of 1 to 8 in turn when `tasks` is 0. */
int stress(int tasks, int launches, int rounds) {
    int mistakes = 0;
    for (int i = 0; i < launches; i++) {
        int asked = tasks ? tasks : 1 + i % 8;
        Run run = {.rounds = rounds};
        mmfree_set_threads(asked);
        mistakes += __TVMBackendParallelLaunch(check, &run, 0) != 0;
        mistakes += run.mistakes + (run.tasks != asked);
    }
    return mistakes;
}

/* The number of tasks that a launch has after `tasks` were asked for. */
int tasks_of_a_launch(int tasks) {
    Run run = {.rounds = 1};
    mmfree_set_threads(tasks);
    __TVMBackendParallelLaunch(check, &run, 0);
    return run.tasks;
}

/* What a launch of four tasks returns when task `id` fails. */
int status_of_failure(int id) {
    mmfree_set_threads(4);
    return __TVMBackendParallelLaunch(fail_in, &id, 0);
}

static int check_floats(int id, Group *group, void *closure) {
    (void)id, (void)group;
    volatile float denormal = 1e-40f, one = 1, small = 0x1p-30f;
    if (denormal * one == 0 || one + small != one || one - small != one)
        __atomic_fetch_add((int *)closure, 1, __ATOMIC_RELAXED);
    return 0;
}

/* The number of `tasks` tasks that do not round to nearest, or that flush denormals. */
int unusual_floats(int tasks) {
    int count = 0;
    mmfree_set_threads(tasks);
    __TVMBackendParallelLaunch(check_floats, &count, 0);
    return count;
}

static int pin_worker(int id, Group *group, void *cpus) {
    (void)group;
    return id == 1 ? sched_setaffinity(0, sizeof(cpu_set_t), cpus) : 0;
}

static int ask_worker(int id, Group *group, void *cpus) {
    (void)group;
    return id == 1 ? sched_getaffinity(0, sizeof(cpu_set_t), cpus) : 0;
}

/* 1 when a worker put on CPU `cpu`, the caller's, leaves it; the caller may use `allowed`.
 * The caller may be moved before it launches, so try it several times. */
int worker_leaves(int cpu, uint64_t allowed) {
    cpu_set_t one, all, found;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    CPU_ZERO(&all);
    for (int i = 0; i < 64; i++)
        if (allowed >> i & 1) CPU_SET(i, &all);
    mmfree_set_threads(2);
    for (int i = 0; i < 100; i++) {
        sched_setaffinity(0, sizeof one, &one);
        __TVMBackendParallelLaunch(pin_worker, &one, 0);
        sched_setaffinity(0, sizeof all, &all);
        __TVMBackendParallelLaunch(ask_worker, &found, 0);
        CPU_AND(&one, &found, &all);
        if (!CPU_EQUAL(&one, &found)) return -1; /* it may use what the caller may not */
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        if (!CPU_EQUAL(&one, &found)) return 1;
    }
    return 0;
}
