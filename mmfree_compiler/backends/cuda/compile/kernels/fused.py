"""Parts of a kernel that makes one token's row and multiplies it, in Gluon: layouts are explicit.

Triton's own layouts put 17 to 45 barriers into such a kernel. Here a warp owns whole rows of a
weight, and codes and sums cross the program once each, through shared memory. All else is as in
products.py and reductions.py, whose functions Gluon kernels call as they are.

A row is a block of joint.py of at least 256 floats. The words of a piece of R rows of a weight are
tiles (R, WORDS) of int32 in `word_layout`, one per WORDS words, and its sums are (R,) in the slice
of that layout. Behind shared memory the sums of all pieces are in row_ring.py's `column_layout`.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from mmfree_compiler.backends.cuda import layouts
from mmfree_compiler.backends.cuda.compile.kernels.gemv import dp4a
from mmfree_compiler.backends.cuda.compile.kernels.products import FIELDS
from mmfree_compiler.backends.cuda.compile.kernels.row_ring import column_layout

BLOCK_WORDS = gl.constexpr(layouts.BLOCK_BYTES // 4)


@gluon.constexpr_function
def word_layout(words: int, warps: int) -> gl.BlockedLayout:
    """Rows of a weight in warps."""
    return gl.BlockedLayout([1, max(1, min(4, words // 32))], [1, 32], [warps, 1], [1, 0])


@gluon.constexpr_function
def field_mask(field: int) -> int:
    """The bits of a field in a word, as int32."""
    mask: int = 0x03030303 << (2 * field)
    return mask - (1 << 32) if mask >> 31 else mask


@gluon.jit
def load_words(
    weights: gl.tensor,
    column: gl.tensor,
    ROW: gl.constexpr,
    WORDS: gl.constexpr,
    LAYOUT: gl.constexpr,
) -> gl.tuple:
    """The words of rows `column` (R,) of a weight with ROW words in a row, tile by tile."""
    place = gl.arange(0, WORDS, gl.SliceLayout(0, LAYOUT))[None, :]
    at = weights.to(gl.pointer_type(gl.int32)) + column.to(gl.int64)[:, None] * ROW + place
    tiles = ()
    for first in gl.static_range(0, ROW, WORDS):
        if first + WORDS <= ROW:
            tiles += (gl.load(at + first),)  # type: ignore[assignment]  # it grows
        else:
            exists = (place < ROW - first) & (column >= 0)[:, None]
            tiles += (gl.load(at + first, mask=exists),)  # type: ignore[assignment]  # it grows
    return tiles


@gluon.jit
def share(code: gl.tensor) -> gl.shared_memory_descriptor:
    """A row of int8 codes in shared memory, four in a word, field by field.

    Field s of word w of a weight goes with word s * BLOCK / 16 + w of it.
    """
    WORDS: gl.constexpr = code.shape[0] // 4
    quads = gl.reshape(code.to(gl.int32) & 255, [WORDS, 4])
    place = gl.arange(0, 4, gl.SliceLayout(0, quads.type.layout))
    words = gl.sum(quads << (8 * place)[None, :], 1)
    blocks = gl.reshape(words, [WORDS // (FIELDS * BLOCK_WORDS), FIELDS, BLOCK_WORDS])
    fields = gl.reshape(gl.permute(blocks, (1, 0, 2)), [WORDS])
    layout: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [0])
    return gl.allocate_shared_memory(gl.int32, [WORDS], layout, fields)


@gluon.jit
def products(words: gl.tuple, codes: gl.tuple, COUNT: gl.constexpr) -> gl.tuple:
    """`sum(q * w)` in int32 (COUNT,) of each product, in `column_layout`.

    `words` has the tiles of each piece of each product, `codes` what `share` made for it. What is
    beyond the columns of the pieces is anything.
    """
    sums = ()
    for n in gl.static_range(len(words)):
        of_pieces = ()
        for piece in gl.static_range(len(words[n])):
            of_pieces += (_product(words[n][piece], codes[n]),)  # type: ignore[assignment]  # it grows
        sums += (of_pieces,)  # type: ignore[assignment]  # it grows
    # All are stored after all are made: codes that products share are read once.
    shared = ()
    for n in gl.static_range(len(sums)):
        shared += (_shared(sums[n], COUNT),)  # type: ignore[assignment]  # it grows
    found = ()
    for n in gl.static_range(len(shared)):
        found += (shared[n].load(column_layout(gl.num_warps())),)  # type: ignore[assignment]  # it grows
    return found


@gluon.jit
def _shared(pieces: gl.tuple, COUNT: gl.constexpr) -> gl.shared_memory_descriptor:
    """Pieces one after another in shared memory."""
    shared = gl.allocate_shared_memory(gl.int32, [COUNT], gl.SwizzledSharedLayout(1, 1, 1, [0]))
    _store(shared, 0, pieces)
    return shared


@gluon.jit
def _store(shared: gl.shared_memory_descriptor, FIRST: gl.constexpr, pieces: gl.tuple) -> None:
    COLUMNS: gl.constexpr = pieces[0].shape[0]
    shared.slice(FIRST, COLUMNS).store(pieces[0])
    if len(pieces) > 1:
        _store(shared, FIRST + COLUMNS, pieces[1:])


@gluon.jit
def _product(tiles: gl.tuple, codes: gl.shared_memory_descriptor) -> gl.tensor:
    """`sum(q * w)` in int32 (R,): that of the digits w + 1, less the sum of the codes q.

    A mask leaves field s where it is in its byte: its sum is 4^s times that of the digits.
    """
    WORDS: gl.constexpr = tiles[0].shape[1]
    FIELD: gl.constexpr = codes.shape[0] // FIELDS
    LAYOUT: gl.constexpr = gl.SliceLayout(0, tiles[0].type.layout)
    less = gl.full([WORDS], 0, gl.int32, LAYOUT)
    minus_ones = gl.full([WORDS], -1, gl.int32, LAYOUT)
    total = gl.full_like(tiles[0], 0)
    for s in gl.static_range(FIELDS):
        sums = gl.full_like(total, 0)
        for n in gl.static_range(len(tiles)):
            q = codes.slice(s * FIELD + n * WORDS, WORDS).load(LAYOUT)
            less = dp4a(minus_ones, q, less, True)
            sums = _unsigned_dp4a(tiles[n] & field_mask(s), q[None, :], sums)
        total += sums >> (2 * s)
    return gl.sum(total + less[None, :], 1)


@gluon.jit
def _unsigned_dp4a(a: gl.tensor, b: gl.tensor, c: gl.tensor) -> gl.tensor:
    """c plus the dot product of the four uint8 of a and the four int8 of b."""
    return gl.inline_asm_elementwise(
        "dp4a.u32.s32 $0, $1, $2, $3;", "=r,r,r,r", [a, b, c], gl.int32, is_pure=True, pack=1
    )
