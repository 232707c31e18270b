/* AMX-int8 in software, for machines without it: a handler of the illegal instructions.
 *
 * Covers what the kernels use: ldtilecfg, tilerelease, tilezero, tileloadd, tilestored, tdpbsud.
 * Written from Intel's manual, volume 2: operands, and faults of a wrong configuration. A process
 * that meets any other illegal instruction dies of it as before.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

enum { TILES = 8, ROWS = 16, ROW_BYTES = 64 };

typedef struct {
    uint8_t palette, start, reserved[14];
    uint16_t row_bytes[TILES], reserved_bytes[8];
    uint8_t rows[TILES], reserved_rows[8];
} Config;

static _Thread_local struct {
    Config config;
    uint8_t tile[TILES][ROWS][ROW_BYTES];
} amx;

static uint64_t emulated; /* instructions, of all threads: tests see that the handler did the work */

uint64_t amx_emulated(void) { return __atomic_load_n(&emulated, __ATOMIC_RELAXED); }

/* gregs index of register r as instructions number them. */
static const int REGISTERS[16] = {
    REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
    REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

typedef struct { /* C4 | R X B mmmmm | W vvvv L pp | opcode | modrm [sib] [displacement] */
    int opcode, prefix, reg, rm, vvvv, memory, length;
    uint8_t *address; /* of a memory operand, without the index */
    int64_t stride;   /* the index; to tileloadd and tilestored bytes from row to row */
} Instruction;

static int decode(const uint8_t *code, const greg_t *registers, Instruction *out) {
    if (code[0] != 0xC4 || (code[1] & 31) != 2 || code[2] & 0x84) return 0; /* 0F38, W0, L0 */
    int modrm = code[4], mode = modrm >> 6, sib_base = 0;
    *out = (Instruction){.opcode = code[3],
                         .prefix = code[2] & 3,
                         .reg = (modrm >> 3 & 7) | (~code[1] >> 7 & 1) << 3,
                         .rm = (modrm & 7) | (~code[1] >> 5 & 1) << 3,
                         .vvvv = ~code[2] >> 3 & 15,
                         .memory = mode != 3,
                         .length = 5};
    if (!out->memory) return 1;
    int base = out->rm;
    if ((modrm & 7) == 4) {
        int sib = code[out->length++], index = (sib >> 3 & 7) | (~code[1] >> 6 & 1) << 3;
        sib_base = sib & 7;
        base = sib_base | (~code[1] >> 5 & 1) << 3;
        if (index != 4) out->stride = (int64_t)registers[REGISTERS[index]] << (sib >> 6);
    }
    int64_t displacement = 0;
    int wide = mode == 2 || (mode == 0 && ((modrm & 7) == 5 || sib_base == 5));
    if (wide) {
        int32_t value;
        memcpy(&value, code + out->length, 4);
        displacement = value, out->length += 4;
    } else if (mode == 1) {
        displacement = (int8_t)code[out->length++];
    }
    if (mode == 0 && (modrm & 7) == 5) /* relative to the next instruction */
        displacement += (int64_t)code + out->length;
    else if (!(mode == 0 && sib_base == 5))
        displacement += registers[REGISTERS[base]];
    out->address = (uint8_t *)displacement;
    return 1;
}

static int load_config(const Instruction *i) {
    memcpy(&amx.config, i->address + i->stride, sizeof amx.config); /* plain base + index */
    memset(amx.tile, 0, sizeof amx.tile);
    if (amx.config.palette != 1) return 0;
    for (int t = 0; t < TILES; t++) {
        int rows = amx.config.rows[t], bytes = amx.config.row_bytes[t];
        if (rows > ROWS || bytes > ROW_BYTES || !rows != !bytes) return 0;
    }
    return 1;
}

static int move(const Instruction *i, int store) {
    int rows = amx.config.rows[i->reg], bytes = amx.config.row_bytes[i->reg];
    if (!amx.config.palette || !rows) return 0;
    if (!store) memset(amx.tile[i->reg], 0, sizeof amx.tile[0]);
    for (int r = 0; r < rows; r++) {
        uint8_t *memory = i->address + r * i->stride, *row = amx.tile[i->reg][r];
        if (store) memcpy(memory, row, bytes);
        else memcpy(row, memory, bytes);
    }
    return 1;
}

/* sums (M, N) int32 += signed (M, K) x unsigned (K, N), K in groups of four bytes. */
static int multiply(const Instruction *i) {
    const Config *c = &amx.config;
    int rows = c->rows[i->reg], columns = c->row_bytes[i->reg] / 4, depth = c->rows[i->vvvv];
    if (!c->palette || c->rows[i->rm] != rows || c->row_bytes[i->rm] != depth * 4 ||
        c->row_bytes[i->vvvv] != columns * 4)
        return 0;
    for (int m = 0; m < rows; m++) {
        int32_t sums[ROWS];
        memcpy(sums, amx.tile[i->reg][m], sizeof sums);
        const int8_t *a = (const int8_t *)amx.tile[i->rm][m];
        for (int k = 0; k < depth; k++)
            for (int n = 0; n < columns; n++)
                for (int j = 0; j < 4; j++)
                    sums[n] += a[4 * k + j] * amx.tile[i->vvvv][k][4 * n + j];
        memcpy(amx.tile[i->reg][m], sums, sizeof sums);
    }
    return 1;
}

static int execute(const Instruction *i) { /* prefix: 0 none, 1 66, 2 F3, 3 F2 */
    switch (i->opcode << 8 | i->prefix << 4 | i->memory) {
    case 0x4901: return load_config(i);
    case 0x4900: memset(&amx, 0, sizeof amx); return 1; /* tilerelease */
    case 0x4930: memset(amx.tile[i->reg], 0, sizeof amx.tile[0]); return amx.config.palette;
    case 0x4B31: return move(i, 0);
    case 0x4B21: return move(i, 1);
    case 0x5E20: return multiply(i);
    default: return 0;
    }
}

static void on_illegal(int number, siginfo_t *info, void *context) {
    (void)info;
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    Instruction i;
    if (decode((const uint8_t *)registers[REG_RIP], registers, &i) && execute(&i)) {
        registers[REG_RIP] += i.length;
        __atomic_fetch_add(&emulated, 1, __ATOMIC_RELAXED);
        return;
    }
    signal(number, SIG_DFL); /* again, and for good */
}

__attribute__((constructor)) static void install(void) {
    struct sigaction action = {.sa_sigaction = on_illegal, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigaction(SIGILL, &action, NULL);
}
