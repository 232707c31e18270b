/* Drives the thread pool from a test: launches whose tasks check each other across barriers. */
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
