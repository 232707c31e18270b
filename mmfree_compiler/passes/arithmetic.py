"""The value of one call on constants, with the same bits on every machine.

torch's own kernels for exp, or for the sum of a row, give other last bits on another CPU or with
other threads. docs/arithmetic.md, "Constants", has the steps, and what is not promised.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from mmfree_compiler.ops import OPS
from mmfree_compiler.passes.sums import (
    REDUCTIONS,
    cumsum,
    is_reduction,
    mean_along,
    parts,
    softmax,
    sum_along,
)

aten = torch.ops.aten

# torch rounds each element of their results once, so it can also be computed in blocks of rows.
ELEMENTWISE = {
    aten.abs.default,
    aten.add.Tensor,
    aten.clamp.default,
    aten.div.Tensor,
    aten.mul.Tensor,
    aten.neg.default,
    aten.round.default,
    aten.sign.default,
    aten.sub.Tensor,
    aten.to.dtype,
}
_RESULTS = (torch.float32, torch.bfloat16, torch.float16)
_OP_OF = {spelling: op for op in OPS.values() for spelling in op.aten}

# The result of a call's arguments, with floats in fp32.
Steps = Callable[..., Any]


def compute(target: Any, args: Any, kwargs: Any) -> Any:
    """The value of a call, by written steps where there are some, else by torch's kernel.

    Narrow floats are widened, which is exact, and the result is rounded to their type.
    """
    steps = steps_of(target)
    if steps is None or _is_exact(target, args, kwargs):
        return target(*args, **kwargs)
    if len(args) == 1 and is_reduction(target, args[0], kwargs):
        return REDUCTIONS[target](lambda: parts(args[0]))
    dtype = _result(pytree.tree_leaves((args, kwargs)))
    if dtype is None:
        return target(*args, **kwargs)
    wide_args, wide_kwargs = pytree.tree_map(lambda x: _cast(x, torch.float32), (args, kwargs))
    result = steps(*wide_args, **wide_kwargs)
    return pytree.tree_map(lambda x: _cast(x, dtype), result)


def apply(target: Any, args: Any, kwargs: Any) -> Any:
    """A call in a module that runs: torch's own value, but for numbers, which `compute` gives.

    A ulp of mean|w| would carry some weights of a large model over their .5 edge.
    """
    result = target(*args, **kwargs)
    is_number = isinstance(result, Tensor) and result.numel() == 1
    return compute(target, args, kwargs) if is_number and steps_of(target) else result


@cache
def steps_of(target: Any) -> Steps | None:
    """The steps of an operator; None where torch's kernel is all there is."""
    tags = {tag.name for tag in getattr(target, "tags", ())}  # older torch has fewer
    if "nondeterministic_seeded" in tags or _writes(target):
        return None
    if target in _WRITTEN:
        return _WRITTEN[target]
    if target in _OP_OF:
        return partial(_by_reference, target)
    is_float = tags & {"pointwise", "reduction"}
    return partial(_in_double, target) if is_float else None


def _writes(target: Any) -> bool:
    """Whether an operator writes into its arguments."""
    schema = getattr(target, "_schema", None)
    return schema is not None and bool(schema.is_mutable)


def _is_exact(target: Any, args: Any, kwargs: Any) -> bool:
    """Whether torch rounds once: not where it adds a multiple, or may return either zero."""
    numbers = [x for x in args if isinstance(x, int | float)]
    return target in ELEMENTWISE and 0 not in numbers and "alpha" not in kwargs


def _result(leaves: list[Any]) -> torch.dtype | None:
    """The type of a result of these arguments; None if only torch knows it, or for fp64."""
    tensors = [x for x in leaves if isinstance(x, Tensor)]
    types = {x.dtype for x in tensors if x.is_floating_point()}
    asked = {x for x in leaves if isinstance(x, torch.dtype)}
    fits = len(types) == 1 and types.issubset(_RESULTS) and asked.issubset({torch.float32})
    if not fits or not all(x.numel() for x in tensors):
        return None
    return torch.float32 if asked else types.pop()


def _cast(x: Any, dtype: torch.dtype) -> Any:
    return x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x


@dataclass(frozen=True)
class _Values:
    """The Builder (ops/spelling.py) that computes: its nodes are tensors."""

    op: str

    def __call__(self, name: str, *operands: Any) -> Any:
        given = [x for x in operands if x is not None]
        if len(given) != len(OPS[name].parameters):
            return None
        return OPS[name].reference(*(torch.as_tensor(x, dtype=torch.float32) for x in given))

    def is_constant(self, x: Any) -> bool:
        return not isinstance(x, Tensor)


def _by_reference(target: Any, *args: Any, **kwargs: Any) -> Any:
    """As ops of the table compute it, in the spelling that every backend gets."""
    op = _OP_OF[target]
    result = None if kwargs else op.aten[target](_Values(op.name), *args)
    return _in_double(target, *args, **kwargs) if result is None else result


def _in_double(target: Any, *args: Any, **kwargs: Any) -> Any:
    """torch's kernel in fp64: what depends on the machine is gone when the result is rounded."""
    wide_args, wide_kwargs = pytree.tree_map(_doubled, (args, kwargs))
    return target(*wide_args, **wide_kwargs)


def _doubled(x: Any) -> Any:
    """An argument in fp64; torch would have rounded a number to fp32."""
    if isinstance(x, float):
        return torch.tensor(x, dtype=torch.float32).item()
    return torch.float64 if x is torch.float32 else _cast(x, torch.float64)


# Sums have no order, or a written one.
_WRITTEN: dict[Any, Steps] = {
    aten._softmax.default: softmax,
    aten.cumsum.default: cumsum,
    aten.mean.default: mean_along,
    aten.mean.dim: mean_along,
    aten.softmax.int: softmax,
    aten.sum.default: sum_along,
    aten.sum.dim_IntList: sum_along,
}
