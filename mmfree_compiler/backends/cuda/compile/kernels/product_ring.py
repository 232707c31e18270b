"""A ring in shared memory through which codes and weights come to tensor cores, in Gluon.

A program multiplies one weight after another, so that its sums fit into registers. Pieces of the
rows are copied ahead, the first ones of a weight while the one before it is multiplied: see
product() in wgmma.py.

A piece has DEPTH blocks of layouts.BLOCK columns of the weight. A ring has at most one slot more
than a weight has pieces. All else is as in products.py.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import async_copy

from mmfree_compiler.backends.cuda.compile.kernels import copies
from mmfree_compiler.backends.cuda.compile.kernels.products import ALIGNMENT, BLOCK, BYTES


@gluon.constexpr_function
def copy_layout(width: int, warps: int) -> gl.BlockedLayout:
    """Rows of `width` bytes, 16 in a thread: one copy."""
    lanes = width // 16
    return gl.BlockedLayout([1, 16], [32 // lanes, lanes], [warps, 1], [1, 0])


@gluon.constexpr_function
def row_bytes(k: int) -> int:
    """The bytes of a packed row of k columns."""
    return int(-(-k // BLOCK.value) * BYTES.value)


@gluon.constexpr_function
def code_bytes(k: int) -> int:
    """The bytes of a row of k codes, with the zeros that fill it."""
    return int(-(-k // ALIGNMENT.value) * ALIGNMENT.value)


@gluon.constexpr_function
def pieces(k: int, ring: gl.tuple) -> int:
    """Pieces of a row of k columns."""
    return int(-(-k // ring[0].shape[2]))


@gluon.jit
def allocate(
    TOKENS: gl.constexpr, COLUMNS: gl.constexpr, DEPTH: gl.constexpr, SLOTS: gl.constexpr
) -> gl.tuple:
    """A ring: SLOTS for pieces of codes, and for pieces of a weight."""
    CODES: gl.constexpr = gl.NVMMASharedLayout(128, 8)
    WORDS: gl.constexpr = gl.SwizzledSharedLayout(16, 2, 4, [1, 0])
    return (
        gl.allocate_shared_memory(gl.int8, [SLOTS, TOKENS, DEPTH * BLOCK], CODES),
        gl.allocate_shared_memory(gl.int8, [SLOTS, COLUMNS, DEPTH * BYTES], WORDS),
    )


@gluon.jit
def weight_rows(
    ring: gl.tuple, weight: gl.tensor, first_column: gl.tensor, K: gl.constexpr
) -> gl.tensor:
    """Pointers at the first piece of rows of a weight."""
    LAYOUT: gl.constexpr = copy_layout(ring[1].shape[2], gl.num_warps())
    column = first_column.to(gl.int64) + gl.arange(0, ring[1].shape[1], gl.SliceLayout(1, LAYOUT))
    byte = gl.arange(0, ring[1].shape[2], gl.SliceLayout(0, LAYOUT))
    return weight.to(gl.pointer_type(gl.int8)) + column[:, None] * row_bytes(K) + byte[None, :]


@gluon.jit
def code_rows(
    ring: gl.tuple, codes: gl.tensor, stride: gl.tensor, first_token: gl.tensor, tokens: gl.tensor
) -> gl.tensor:
    """Pointers at the first piece of rows of codes.

    Those that there are not are other rows, of the first tokens: many copies of one row would wait
    for each other.
    """
    LAYOUT: gl.constexpr = copy_layout(ring[0].shape[2], gl.num_warps())
    row = gl.arange(0, ring[0].shape[1], gl.SliceLayout(1, LAYOUT))
    present = first_token + row < tokens
    token = gl.where(present, first_token + row, gl.minimum(row, tokens - 1))
    offset = token.to(gl.int64) * (stride // ALIGNMENT * ALIGNMENT)
    k = gl.arange(0, ring[0].shape[2], gl.SliceLayout(0, LAYOUT))
    return codes + offset[:, None] + k[None, :]


@gluon.jit
def start_weight(ring: gl.tuple, rows: gl.tensor, K: gl.constexpr) -> None:
    """Start to copy the first pieces of the first weight."""
    for piece in gl.static_range(ring[0].shape[0] - 1):
        _copy_row(ring[1].index(piece), rows, piece, row_bytes(K))


@gluon.jit
def start_codes(ring: gl.tuple, rows: gl.tensor, K: gl.constexpr) -> None:
    """Start to copy the first pieces of its codes, after `start_weight`."""
    for piece in gl.static_range(ring[0].shape[0] - 1):
        _copy_row(ring[0].index(piece), rows, piece, code_bytes(K))
        async_copy.commit_group()


@gluon.jit
def wait(ring: gl.tuple) -> None:
    """Wait until the next piece is in its slot, and all warps are here."""
    async_copy.wait_group(ring[0].shape[0] - 2)
    copies.barrier()


@gluon.jit
def refill(
    ring: gl.tuple,
    codes: gl.tensor,
    weight: gl.tensor,
    piece: gl.tensor,
    K: gl.constexpr,
    FIRST: gl.constexpr,
    after: gl.tuple,
    K_AFTER: gl.constexpr,
) -> None:
    """Start to copy a later piece into the slot of the one before `piece`: see `product`."""
    SLOTS: gl.constexpr = ring[0].shape[0]
    later = piece + SLOTS - 1
    free = (FIRST + later) % SLOTS
    if later < pieces(K, ring):
        _copy_row(ring[0].index(free), codes, later, code_bytes(K))
        _copy_row(ring[1].index(free), weight, later, row_bytes(K))
    elif len(after) > 0:
        _copy_row(ring[0].index(free), after[0], later - pieces(K, ring), code_bytes(K_AFTER))
        _copy_row(ring[1].index(free), after[1], later - pieces(K, ring), row_bytes(K_AFTER))
    async_copy.commit_group()


@gluon.jit
def end_copies() -> None:
    """Wait for copies that a program without tokens started: none may run when it ends."""
    async_copy.wait_group(0)


@gluon.jit
def prefetch(ring: gl.tuple, weight: gl.tensor, first_column: gl.tensor, K: gl.constexpr) -> None:
    """Have rows of a weight brought into the L2 cache: half a row by each thread."""
    HALF: gl.constexpr = row_bytes(K) // 2
    LAYOUT: gl.constexpr = gl.BlockedLayout([1], [32], [gl.num_warps()], [0])
    half = 2 * first_column.to(gl.int64) + gl.arange(0, 2 * ring[1].shape[1], LAYOUT)
    gl.inline_asm_elementwise(
        f"cp.async.bulk.prefetch.L2.global [$1], {HALF}; // $0",
        "=r,l",
        [weight.to(gl.pointer_type(gl.int8)) + half * HALF],
        dtype=gl.int32,
        is_pure=False,
        pack=1,
    )


@gluon.jit
def _copy_row(
    target: gl.shared_memory_descriptor, rows: gl.tensor, piece: gl.tensor, END: gl.constexpr
) -> None:
    """Start to copy a piece of rows of END bytes; beyond these come zeros."""
    WIDTH: gl.constexpr = target.shape[1]
    if END % WIDTH == 0:
        copies.load(target, rows + piece * WIDTH)
    else:
        LAYOUT: gl.constexpr = copy_layout(WIDTH, gl.num_warps())
        byte = piece * WIDTH + gl.arange(0, WIDTH, gl.SliceLayout(0, LAYOUT))[None, :]
        copies.load(target, rows + piece * WIDTH, mask=byte < END)
