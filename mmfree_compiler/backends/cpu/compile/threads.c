/* The thread pool of a compiled library, which replaces TVM's: parallel launch and barrier.
 *
 * TVM's generated code calls both through the pointers at the end of this file, with the types of
 * tvm/runtime/c_backend_api.h. A launch runs task 0 in the calling thread and tasks 1..n-1 in
 * workers, which are created when first needed and then kept. Only one launch runs at a time;
 * launches of other threads wait for it. All symbols are hidden: each library has its own pool, and
 * a TVM runtime in the same process cannot replace it.
 *
 * A waiting thread spins for SPIN_NS, then sleeps in a futex. It does not spin when a launch has
 * more tasks than CPUs. Workers avoid the caller's CPU: see `keep_apart`. For Linux on x86-64 and
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

enum { MAX_TASKS = 256, CACHE_LINE = 64, SPIN_NS = 50000, PAUSES_PER_CLOCK_READ = 32 };

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
    Event start; /* one count per launch that this worker takes part in */
    pthread_t thread;
    int id; /* its task_id */
} Worker;

static struct {
    pthread_mutex_t launching; /* held during a launch; guards the other fields */
    Worker workers[MAX_TASKS - 1];
    int worker_count;
    int cpus; /* the number of CPUs that the workers may run on */
    int spin;
    pthread_t caller; /* task 0's thread */
    _Atomic int caller_cpu; /* its CPU when it last checked */
    Task task; /* of the running launch; NULL tells workers to exit */
    void *closure;
    Group group;
    Event done; /* one count per launch */
    Event barrier; /* one count per barrier that all tasks have reached */
    _Alignas(CACHE_LINE) _Atomic int32_t arrived; /* tasks waiting in the barrier */
    _Atomic int32_t running; /* workers that have not finished their task */
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

static int spin_while(Event *event, uint32_t old) { /* 1 if the count is still `old` */
    int64_t end = now_ns() + SPIN_NS;
    do {
        for (int i = 0; i < PAUSES_PER_CLOCK_READ; i++) {
            if (atomic_load_explicit(&event->count, memory_order_acquire) != old) return 0;
            pause_cpu();
        }
    } while (now_ns() < end);
    return 1;
}

static int wait_while(Event *event, uint32_t old, int spin) { /* 1 if it slept */
    if (spin && !spin_while(event, old)) return 0;
    /* Sequentially consistent with `advance`: it sees the sleeper, or the futex the new count. */
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
 * When all CPUs are busy, the kernel puts a thread on the CPU of the thread that wakes it. The two
 * would then take turns, each spinning for SPIN_NS at every barrier. As both sleep a lot, the kernel
 * sees no reason to separate them. The caller's affinity is read each time, because it can change.
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

/* How a CPU rounds is a register that a program may have set for itself: torch and libraries built
 * with -ffast-math flush denormals to zero. Kernels round to nearest and keep denormals. */
#if defined(__x86_64__)
enum { PLAIN_FLOATS = 0x1f80 }; /* and raise no exceptions: Intel's manual, volume 1, 10.2.3 */
static uint64_t float_mode(void) { return __builtin_ia32_stmxcsr(); }
static void set_float_mode(uint64_t mode) { __builtin_ia32_ldmxcsr((unsigned)mode); }
#else
enum { PLAIN_FLOATS = 0 }; /* of FPCR: Arm's architecture reference manual, C5.2.8 */
static uint64_t float_mode(void) {
    uint64_t mode;
    __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
    return mode;
}
static void set_float_mode(uint64_t mode) { __asm__ volatile("msr fpcr, %0" : : "r"(mode)); }
#endif

static int with_plain_floats(Task task, int id, Group *group, void *closure) {
    uint64_t before = float_mode();
    set_float_mode(PLAIN_FLOATS);
    int status = task(id, group, closure);
    set_float_mode(before);
    return status;
}

static void run_task(int id) {
    int status = with_plain_floats(pool.task, id, &pool.group, pool.closure);
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
        spin = pool.spin; /* now: after the next line the fields may belong to the next launch */
        if (atomic_fetch_sub(&pool.running, 1) == 1) advance(&pool.done);
    }
}

static int available_cpus(void) {
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) ? MAX_TASKS : CPU_COUNT(&set);
}

/* Create workers until there are `wanted`, or fewer if the system allows no more threads. */
static void grow(int wanted) {
    if (pool.worker_count >= wanted) return;
    pool.cpus = available_cpus(); /* now: the new workers inherit this thread's affinity */
    sigset_t all, before; /* workers block signals, which are for the program's own threads, */
    const int faults[] = {SIGBUS, SIGFPE, SIGILL, SIGSEGV}; /* except for their own faults */
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

/* Set the number of tasks of this thread's next launches, 1 to MAX_TASKS. */
__attribute__((visibility("hidden"))) void mmfree_set_threads(int32_t n) {
    next_tasks = n < 1 ? 1 : n > MAX_TASKS ? MAX_TASKS : n;
}

/* Tasks read their number from `group`, so that fewer tasks than requested do all the work. */
static int launch(Task task, void *closure, int num_task) {
    (void)num_task; /* 0 in generated code, which means all threads */
    if (next_tasks == 1) return with_plain_floats(task, 0, &(Group){NULL, 1}, closure);
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

/* A forked child has no workers, and may inherit a launch of a thread that it does not have. */
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

/* Runs at exit and before the library is unmapped: no worker may still run its code then. */
__attribute__((destructor)) static void stop_pool(void) {
    pthread_mutex_lock(&pool.launching);
    pool.task = NULL;
    for (int i = 0; i < pool.worker_count; i++) advance(&pool.workers[i].start);
    for (int i = 0; i < pool.worker_count; i++) pthread_join(pool.workers[i].thread, NULL);
    pool.worker_count = 0;
    pthread_mutex_unlock(&pool.launching);
    __cxa_finalize(&pool);
}

/* Strong definitions of the symbols that TVM's objects declare weak. */
__attribute__((visibility("hidden")))
int (*__TVMBackendParallelLaunch)(Task, void *, int) = launch;
__attribute__((visibility("hidden"))) int (*__TVMBackendParallelBarrier)(int, Group *) = barrier;
