// The machine's own limits, measured: reading from memory, and 8-bit multiply-adds in registers.
// ceilings.py says which CPU features each kernel needs; it never calls one without them.

#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#define MAX_THREADS 256

// A kernel reads `bytes` of `data` once, or repeats a block of multiply-adds `count` times. Each
// returns something of its results, so that no compiler drops the work.
typedef uint64_t Kernel(const char *data, size_t bytes, long count);

typedef uint64_t Lanes __attribute__((vector_size(32)));
enum { LINE = 64, AHEAD = 4096, STREAMS = 4 };

static Lanes line_at(const char *address) {
    const Lanes *lanes = (const Lanes *)address;
    return lanes[0] + lanes[1];
}

static uint64_t read_plain(const char *data, size_t bytes, long count) {
    Lanes sums[8] = {{0}};
    (void)count;
    for (size_t at = 0; at + 8 * LINE <= bytes; at += 8 * LINE)
        for (int i = 0; i < 8; i++) sums[i] += line_at(data + at + LINE * i);
    for (int i = 1; i < 8; i++) sums[0] += sums[i];
    return sums[0][0] ^ sums[0][1] ^ sums[0][2] ^ sums[0][3];
}

static uint64_t read_prefetched(const char *data, size_t bytes, long count) {
    Lanes sums[STREAMS] = {{0}};
    size_t part = bytes / STREAMS;
    (void)count;
    for (size_t at = 0; at + LINE <= part; at += LINE)
        for (int i = 0; i < STREAMS; i++) {
            __builtin_prefetch(data + part * i + at + AHEAD, 0, 3);
            sums[i] += line_at(data + part * i + at);
        }
    for (int i = 1; i < STREAMS; i++) sums[0] += sums[i];
    return sums[0][0] ^ sums[0][1] ^ sums[0][2] ^ sums[0][3];
}

#if defined(__x86_64__)
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

// Twelve independent sums hide the latency; asm keeps what the loop repeats from being folded.
#define TWELVE(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)

__attribute__((target("avx512f,avx512vnni")))
static uint64_t vnni(const char *data, size_t bytes, long count) {
    __m512i x = _mm512_set1_epi8(1), y = _mm512_set1_epi8(2);
    (void)data, (void)bytes;
#define ZERO(i) __m512i sum##i = _mm512_setzero_si512();
    TWELVE(ZERO)
    for (long k = 0; k < count; k++) {
#define DOT(i) __asm__ volatile("vpdpbusd %2, %1, %0" : "+v"(sum##i) : "v"(x), "v"(y));
        TWELVE(DOT)
    }
#define ADD(i) x = _mm512_add_epi32(x, sum##i);
    TWELVE(ADD)
    return (uint64_t)_mm512_reduce_add_epi32(x);
}

__attribute__((target("avx2")))
static uint64_t maddubs(const char *data, size_t bytes, long count) {
    __m256i x = _mm256_set1_epi8(1), y = _mm256_set1_epi8(2);
    (void)data, (void)bytes;
#define ZERO_AVX2(i) __m256i sum##i = _mm256_setzero_si256();
    TWELVE(ZERO_AVX2)
    for (long k = 0; k < count; k++) {
        __m256i product;
#define MADD(i)                                                       \
    __asm__ volatile("vpmaddubsw %3, %2, %0\n\tvpaddw %0, %1, %1"     \
                     : "=&x"(product), "+x"(sum##i) : "x"(x), "x"(y));
        TWELVE(MADD)
    }
#define ADD_AVX2(i) x = _mm256_add_epi32(x, sum##i);
    TWELVE(ADD_AVX2)
    return (uint64_t)_mm256_extract_epi32(x, 0);
}

typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t column_bytes[16];
    uint8_t rows[16];
} TileConfig;

enum { TILE = 1024, STEPS = 32, PAIRS = 4 };  // operands: 256 KiB of codes, 64 KiB of weights

__attribute__((target("amx-tile,amx-int8")))
static void start_amx(void) {
    TileConfig config = {.palette = 1};
    for (int i = 0; i < 8; i++) config.column_bytes[i] = 64, config.rows[i] = 16;
    _tile_loadconfig(&config);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}

__attribute__((target("amx-tile,amx-int8")))
static void load_amx(const char *codes, const char *weights) {
    _tile_loadd(4, codes, 64);
    _tile_loadd(5, codes + STEPS * TILE, 64);
    _tile_loadd(6, weights, 64);
    _tile_loadd(7, weights + STEPS * TILE, 64);
}

__attribute__((target("amx-tile,amx-int8")))
static void multiply_amx(void) {
    _tile_dpbssd(0, 4, 6);
    _tile_dpbssd(1, 4, 7);
    _tile_dpbssd(2, 5, 6);
    _tile_dpbssd(3, 5, 7);
}

__attribute__((target("amx-tile,amx-int8")))
static uint64_t end_amx(void) {
    int32_t sums[256];
    _tile_stored(0, sums, 64);
    _tile_release();
    return (uint64_t)sums[0];
}

// Four tiles of 16x16 sums from two of each operand, which stay loaded.
__attribute__((target("amx-tile,amx-int8")))
static uint64_t amx(const char *data, size_t bytes, long count) {
    (void)bytes;
    start_amx();
    load_amx(data, data + TILE);
    for (long k = 0; k < count; k++) multiply_amx();
    return end_amx();
}

// The same with operands from L2, as for a product of 128 tokens, 32 columns and 2,048 of k.
__attribute__((target("amx-tile,amx-int8")))
static uint64_t amx_loads(const char *data, size_t bytes, long count) {
    const char *weights = data + 2 * PAIRS * STEPS * TILE;
    (void)bytes;
    start_amx();
    for (long done = 0; done < count; done++) {
        long step = done % STEPS, pair = done / STEPS % PAIRS;
        load_amx(data + (2 * pair * STEPS + step) * TILE, weights + step * TILE);
        multiply_amx();
    }
    return end_amx();
}

// Linux gives a process the tiles' state on request only: ARCH_REQ_XCOMP_PERM, XTILEDATA.
int ceilings_allow_amx(void) { return (int)syscall(SYS_arch_prctl, 0x1023, 18); }

static Kernel *const KERNELS[] = {read_plain, read_prefetched, vnni, maddubs, amx, amx_loads};
#else
static Kernel *const KERNELS[] = {read_plain, read_prefetched};
#endif

typedef struct {
    Kernel *kernel;
    const char *data;
    size_t bytes;
    long count;
    int cpu;
    pthread_barrier_t *barrier;
    uint64_t result;
    double seconds;
} Job;

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static void *work(void *argument) {
    Job *job = argument;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(job->cpu, &set);
    pthread_setaffinity_np(pthread_self(), sizeof set, &set);
    pthread_barrier_wait(job->barrier);
    double started = now();
    job->result = job->kernel(job->data, job->bytes, job->count);
    pthread_barrier_wait(job->barrier);
    job->seconds = now() - started;
    return NULL;
}

// Seconds that `threads` threads, one on each of `cpus`, take for `kernel`: `bytes` of `data` shared
// out among them, or `count` repetitions each. Ends the process when a thread cannot be started.
double ceilings_seconds(
    int kernel, const char *data, size_t bytes, long count, int threads, const int *cpus) {
    pthread_t handles[MAX_THREADS];
    Job jobs[MAX_THREADS];
    pthread_barrier_t barrier;
    size_t share = bytes / (size_t)threads / 4096 * 4096;
    if (threads > MAX_THREADS) abort();
    pthread_barrier_init(&barrier, NULL, (unsigned)threads);
    for (int i = 0; i < threads; i++) {
        const char *part = data + share * (size_t)i;
        jobs[i] = (Job){KERNELS[kernel], part, share, count, cpus[i], &barrier, 0, 0};
        if (pthread_create(&handles[i], NULL, work, &jobs[i])) abort();
    }
    for (int i = 0; i < threads; i++) pthread_join(handles[i], NULL);
    pthread_barrier_destroy(&barrier);
    return jobs[0].seconds;
}
