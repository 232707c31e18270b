"""Products of int8 activation codes and packed ternary weights: exact integers.

Weights are read as layouts.py packs them, as digits w + 1. So a product is `sum(q * (w + 1))`, from
which the caller subtracts the sum of the codes q. Its columns are rows of the weight.

What the functions of gemv.py and gemm.py take:

- `codes` points at int8 rows that are `stride` bytes apart, a multiple of 16; a row is zero from
  column K up to the next multiple of 16.
- `weights` points at the bytes of a whole packed weight of K columns. Both pointers are known to be
  multiples of 16 while compiling. That `stride` is one too is said by `stride // 16 * 16`: Triton
  loses tl.multiple_of on the arguments of a function that it inlines.
- COLUMNS is a power of two of at most layouts.ROWS, and divides `first_column`.
- BLOCK_K, the columns of the weight in one block, is a power of two of at least layouts.BLOCK.
- ASM: use PTX instructions. Without it, the same integers come from plain operations.
"""

from __future__ import annotations

import triton.language as tl

from mmfree_compiler.backends.cuda import layouts, strides

BLOCK = tl.constexpr(layouts.BLOCK)
BYTES = tl.constexpr(layouts.BLOCK_BYTES)
FIELDS = tl.constexpr(layouts.FIELDS)  # of a byte
ALIGNMENT = tl.constexpr(strides.ALIGNMENT)
