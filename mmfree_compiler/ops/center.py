"""Row op `center`."""

from __future__ import annotations

from torch import Tensor

from mmfree_compiler.ops.register import like_first, op
from mmfree_compiler.ops.statistics import mean


@op("row", like_first)
def center(x: Tensor) -> Tensor:
    """`x - mean(x)`; a row that holds NaN or infinity becomes NaN.

    The mean of a row far from zero is rounded coarsely. Subtracting it leaves deviations that are
    nearly exact, and their mean is what the rounding took.
    """
    deviations = x - mean(x)
    return deviations - mean(deviations)
