/* The thread pool of a compiled library, in place of TVM's runtime: parallel launch and barrier.
 *
 * TVM's generated code calls both through the pointers at the end of this file, with the types of
 * tvm/runtime/c_backend_api.h. A launch runs task 0 in the calling thread and tasks 1..n-1 in
 * workers, which are made when first needed and kept. One launch runs at a time; another thread's
 * waits for it. All symbols are hidden: a library has its own pool, and a TVM runtime in the same
 * process cannot put its own in place of it.
 *
 * Waiting means spinning for SPIN_NS, then sleeping in a futex; no spinning at all when a launch has
 * more tasks than CPUs. Workers keep off the caller's CPU: see `keep_apart`. Linux, x86-64 and
 * aarch64.
 */
#define _GNU_SOURCE
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { MAX_TASKS = 256, CACHE_LINE = 64, SPIN_NS = 50000, PAUSES_A_CLOCK_READ = 32 };

typedef struct { /* TVMParallelGroupEnv */
    void *sync_handle;
    int32_t num_task;
} Group;

typedef int (*Task)(int task_id, Group *group, void *closure); /* FTVMParallelLambda */

/* A counter that threads wait on. */
typedef struct {
    _Alignas(CACHE_LINE) _Atomic uint32_t count;
    _Atomic uint32_t sleepers;
} Event;

typedef struct {
    Event start; /* one count a launch that this worker takes part in */
    pthread_t thread;
    int id; /* its task_id */
} Worker;

static struct {
    pthread_mutex_t launching; /* held during a launch; guards what follows */
    Worker workers[MAX_TASKS - 1];
    int worker_count;
    int cpus; /* that the workers may run on */
    int spin;
    pthread_t caller; /* task 0's thread */
    _Atomic int caller_cpu; /* where that ran when it last looked */
    Task task; /* of the running launch; NULL tells workers to end */
    void *closure;
    Group group;
    Event done; /* one count a launch */
    Event barrier; /* one count a barrier that all tasks have reached */
    _Alignas(CACHE_LINE) _Atomic int32_t arrived; /* tasks waiting in the barrier */
    _Atomic int32_t running; /* workers that have not ended their task */
    _Atomic int32_t status;
} pool = {.launching = PTHREAD_MUTEX_INITIALIZER};

static _Thread_local int32_t next_tasks = 1;

static void futex(Event *event, int operation, uint32_t value) {
    syscall(SYS_futex, &event->count, operation | FUTEX_PRIVATE_FLAG, value, NULL, NULL, 0);
}

static void pause_cpu(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#else
    __asm__ volatile("yield");
#endif
}

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int spin_while(Event *event, uint32_t old) { /* 1 when the count is still `old` */
    int64_t end = now_ns() + SPIN_NS;
    do {
        for (int i = 0; i < PAUSES_A_CLOCK_READ; i++) {
            if (atomic_load_explicit(&event->count, memory_order_acquire) != old) return 0;
            pause_cpu();
        }
    } while (now_ns() < end);
    return 1;
}

static int wait_while(Event *event, uint32_t old, int spin) { /* 1 when it slept */
    if (spin && !spin_while(event, old)) return 0;
    /* Sequentially consistent with `advance`: it sees the sleeper, or futex sees the new count. */
    atomic_fetch_add(&event->sleepers, 1);
    while (atomic_load(&event->count) == old) futex(event, FUTEX_WAIT, old);
    atomic_fetch_sub(&event->sleepers, 1);
    return 1;
}

static void advance(Event *event) {
    atomic_fetch_add(&event->count, 1);
    if (atomic_load(&event->sleepers)) futex(event, FUTEX_WAKE, INT32_MAX);
}

/* Called by a task's thread that may have been moved: a worker on the caller's CPU leaves it.
 *
 * When all CPUs are busy the kernel puts a thread on the CPU of the thread that wakes it. There the
 * two would take turns, each spinning out its time at every barrier; and as both sleep a lot, the
 * kernel sees no reason to part them. What the caller may use is asked each time: it can change.
 */
static void keep_apart(int id) {
    int cpu = sched_getcpu();
    if (id == 0) {
        atomic_store_explicit(&pool.caller_cpu, cpu, memory_order_relaxed);
        return;
    }
    if (!pool.spin || cpu != atomic_load_explicit(&pool.caller_cpu, memory_order_relaxed)) return;
    cpu_set_t others;
    if (pthread_getaffinity_np(pool.caller, sizeof others, &others)) return;
    CPU_CLR(cpu, &others);
    if (CPU_COUNT(&others)) sched_setaffinity(0, sizeof others, &others);
}

static void run_task(int id) {
    int status = pool.task(id, &pool.group, pool.closure);
    if (status) atomic_store(&pool.status, status);
}

static void *work(void *argument) {
    Worker *self = argument;
    int spin = 0;
    for (uint32_t launches = 0;; launches++) {
        wait_while(&self->start, launches, spin);
        if (!pool.task) return NULL;
        keep_apart(self->id);
        run_task(self->id);
        spin = pool.spin; /* here: after the next line the fields may be those of the next launch */
        if (atomic_fetch_sub(&pool.running, 1) == 1) advance(&pool.done);
    }
}

static int available_cpus(void) {
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) ? MAX_TASKS : CPU_COUNT(&set);
}

/* Have up to `wanted` workers, fewer when the system gives no more threads. */
static void grow(int wanted) {
    if (pool.worker_count >= wanted) return;
    pool.cpus = available_cpus(); /* now: the new workers inherit this thread's affinity */
    sigset_t all, before; /* signals are for the program's own threads */
    const int faults[] = {SIGBUS, SIGFPE, SIGILL, SIGSEGV}; /* but for those of a thread's own */
    sigfillset(&all);
    for (int i = 0; i < 4; i++) sigdelset(&all, faults[i]);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (pool.worker_count < wanted) {
        Worker *worker = &pool.workers[pool.worker_count];
        memset(worker, 0, sizeof *worker);
        worker->id = pool.worker_count + 1;
        if (pthread_create(&worker->thread, NULL, work, worker)) break;
        pool.worker_count++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* How many tasks this thread's next launches have, 1 to MAX_TASKS. */
__attribute__((visibility("hidden"))) void mmfree_set_threads(int32_t n) {
    next_tasks = n < 1 ? 1 : n > MAX_TASKS ? MAX_TASKS : n;
}

/* Tasks read their number from `group`, so that fewer than the thread asked for do all the work. */
static int launch(Task task, void *closure, int num_task) {
    (void)num_task; /* 0 in generated code: "as many as there are" */
    if (next_tasks == 1) return task(0, &(Group){NULL, 1}, closure);
    pthread_mutex_lock(&pool.launching);
    grow(next_tasks - 1);
    int tasks = pool.worker_count + 1 < next_tasks ? pool.worker_count + 1 : next_tasks;
    pool.task = task;
    pool.closure = closure;
    pool.group = (Group){NULL, tasks};
    pool.spin = tasks <= pool.cpus;
    pool.caller = pthread_self();
    keep_apart(0);
    atomic_store(&pool.status, 0);
    atomic_store(&pool.running, tasks - 1);
    uint32_t launches = atomic_load(&pool.done.count);
    for (int i = 0; i < tasks - 1; i++) advance(&pool.workers[i].start);
    run_task(0);
    if (tasks > 1) wait_while(&pool.done, launches, pool.spin);
    int status = atomic_load(&pool.status);
    pthread_mutex_unlock(&pool.launching);
    return status;
}

static int barrier(int task_id, Group *group) {
    if (group->num_task == 1) return 0;
    /* Read before arriving: until this task arrives, nobody can advance it. */
    uint32_t passed = atomic_load(&pool.barrier.count);
    if (atomic_fetch_add(&pool.arrived, 1) + 1 < group->num_task) {
        if (wait_while(&pool.barrier, passed, pool.spin)) keep_apart(task_id);
    } else {
        atomic_store(&pool.arrived, 0);
        advance(&pool.barrier);
    }
    return 0;
}

/* A forked child has none of the workers, and perhaps a launch that another thread was in. */
static void forget_workers(void) {
    memset(&pool, 0, sizeof pool);
    pthread_mutex_init(&pool.launching, NULL);
}

/* pthread_atfork for a library that may be unmapped: __cxa_finalize(&pool) undoes it. */
extern int __register_atfork(void (*)(void), void (*)(void), void (*child)(void), void *library);
extern void __cxa_finalize(void *library);

__attribute__((constructor)) static void start_pool(void) {
    __register_atfork(NULL, NULL, forget_workers, &pool);
}

/* At exit and before the library is unmapped: no worker may still run its code. */
__attribute__((destructor)) static void stop_pool(void) {
    pthread_mutex_lock(&pool.launching);
    pool.task = NULL;
    for (int i = 0; i < pool.worker_count; i++) advance(&pool.workers[i].start);
    for (int i = 0; i < pool.worker_count; i++) pthread_join(pool.workers[i].thread, NULL);
    pool.worker_count = 0;
    pthread_mutex_unlock(&pool.launching);
    __cxa_finalize(&pool);
}

/* Strong definitions of what TVM's objects declare weak. */
__attribute__((visibility("hidden")))
int (*__TVMBackendParallelLaunch)(Task, void *, int) = launch;
__attribute__((visibility("hidden"))) int (*__TVMBackendParallelBarrier)(int, Group *) = barrier;
