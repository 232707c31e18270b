"""Whether outputs are a module's own, up to rounding: numerics 5's edges counted in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

TOLERANCE = 2e-5  # of the largest number of the row
NOISE = 10.0  # times what jitter moves
JITTER = 3e-7
EDGE = 1e-4  # codes this close to a .5 edge may differ

aten = torch.ops.aten
# What has edges -> where they are: the fraction of the operand at which the result jumps.
_EDGES = {
    aten.round.default: 0.5,
    aten.round_.default: 0.5,
    aten.floor.default: 0.0,
    aten.floor_.default: 0.0,
    aten.trunc.default: 0.0,
    aten._to_copy.default: 0.0,
}
_EXACT = {
    *_EDGES,
    aten.clone.default,
    aten.abs.default,
    aten.neg.default,
    aten.amax.default,
    aten.max.dim,
    aten.clamp.default,
    aten.embedding.default,
    aten.cat.default,
    aten.index.Tensor,
    aten.where.self,
}


class Jitter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Every result is off by a rounding error; `near_edge` tells whether one was rounded.

    With `size` 0 results stay as they are, and edges are noticed all the same.
    """

    def __init__(self, size: float = JITTER) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.size, self.near_edge = size, False
        self.random = torch.Generator().manual_seed(0)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _EDGES:
            self.near_edge |= _near(args[0], kwargs.get("dtype"), _EDGES[func])
        out = func(*args, **kwargs)
        schema = func._schema
        if func in _EXACT or schema.is_mutable or any(r.alias_info for r in schema.returns):
            return out
        return pytree.tree_map_only(Tensor, self._moved, out)

    def _moved(self, x: Tensor) -> Tensor:
        if not x.is_floating_point():
            return x
        noise = torch.randn(x.shape, generator=self.random)
        return x * (1 + self.size * noise).to(x.dtype)


def _near(x: Tensor, dtype: torch.dtype | None, edge: float) -> bool:
    """Whether rounding errors may change what `x` becomes as `dtype`, integers if None."""
    if not x.is_floating_point():
        return False
    if dtype is not None and dtype.is_floating_point:
        low, high = ((x * factor).to(dtype) for factor in (1 - JITTER, 1 + JITTER))
        return dtype.itemsize < x.dtype.itemsize and not torch.equal(low, high)
    distance = (x.double() - edge).frac().abs()
    distance = torch.minimum(distance, 1 - distance)
    return bool(((distance > 0) & (distance < EDGE)).any())  # codes that are cast are whole


@dataclass
class Agreement:
    """How many rows have been compared, and how many differ that rounding may explain."""

    rows: int = 0
    excused: int = 0

    def compare(self, got: Any, expected: Any, jittered: Any, near_edge: bool) -> str:
        """What is wrong with outputs `got`; "" if nothing is. Counts their rows."""
        leaves, spec = pytree.tree_flatten(got)
        wanted, wanted_spec = pytree.tree_flatten(expected)
        if spec != wanted_spec:
            return f"returns {spec}, the module {wanted_spec}"
        moved = pytree.tree_leaves(jittered)
        faults = (self._leaf(*leaf, near_edge) for leaf in zip(leaves, wanted, moved, strict=True))
        return next(filter(None, faults), "")

    def _leaf(self, got: Any, expected: Any, moved: Any, near_edge: bool) -> str:
        if not isinstance(expected, Tensor):
            return "" if got == expected else f"returns {got!r}, the module {expected!r}"
        if _described(got) != _described(expected):
            return f"returns {_described(got)}, the module {_described(expected)}"
        error = _row_errors(got, expected)
        noise = _row_errors(moved, expected)
        wrong = ~(error <= TOLERANCE + NOISE * noise.nan_to_num(1.0))
        self.rows += wrong.numel()
        if not wrong.any():
            return ""
        text = f"{int(wrong.sum())} of {wrong.numel()} rows differ, by {float(error.max()):.2g}"
        if near_edge or bool((noise > 1e-3).any()):
            self.excused += int(wrong.sum())
            return text if self.excused > self.rows / 2 and self.rows > 20 else ""
        return text


def _described(x: Any) -> str:
    return f"{x.dtype} {tuple(x.shape)}" if isinstance(x, Tensor) else repr(x)[:80]


def _row_errors(got: Tensor, expected: Tensor) -> Tensor:
    """The largest difference in each row over the row's largest number; infinite for other NaN."""
    one, other = (x.detach().double().reshape(*x.shape[:-1], -1) for x in (got, expected))
    if one.numel() == 0:
        return one.sum(-1)
    same = (one == other) | (one.isnan() & other.isnan())
    error = torch.where(same, 0.0, (one - other).abs()).nan_to_num(torch.inf).amax(-1)
    largest = torch.where(other.isfinite(), other, 0.0).abs().amax(-1).clamp(min=1e-30)
    return error / largest
