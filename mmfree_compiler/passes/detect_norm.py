"""RMS normalization, written out or as one op -> mmfree.rms_norm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.fx import GraphModule, Node

from mmfree_compiler.passes.constants import constant_nodes, evaluate
from mmfree_compiler.passes.pattern import (
    Bound,
    Literal,
    Number,
    OneOf,
    Pattern,
    Var,
    add,
    aten,
    call,
    first,
    mul,
)
from mmfree_compiler.passes.rewrite import (
    are_rows,
    constant,
    finish,
    insert,
    is_fp32,
    note,
    overload,
    replace,
)

X, W = Var("x"), Var("weight", constant=True)
LAST, KEEP = Literal([-1]), Literal(True)

SQUARES = call(aten.square.default, X)
WIDTH = Number("width")
KEPT_MEAN = OneOf(
    (
        call(aten.mean.dim, SQUARES, LAST, KEEP),
        call(aten.div.Tensor, call(aten.sum.dim_IntList, SQUARES, LAST, KEEP), WIDTH),
    )
)
FLAT_MEAN = OneOf(
    (
        call(aten.mean.dim, SQUARES, LAST),
        call(aten.div.Tensor, call(aten.sum.dim_IntList, SQUARES, LAST), WIDTH),
    )
)


def unsqueezed(pattern: Pattern) -> Pattern:
    return call(aten.unsqueeze.default, pattern, Literal(-1))


def variance(mean: Pattern) -> Pattern:
    return add(mean, OneOf((Number("eps"), Var("eps", constant=True))))


def root(mean: Pattern) -> Pattern:
    return OneOf(
        (
            call(aten.sqrt.default, variance(mean)),
            call(aten.pow.Tensor_Scalar, variance(mean), Literal(0.5)),
        )
    )


def inverse(mean: Pattern) -> Pattern:
    return OneOf(
        (
            call(aten.rsqrt.default, variance(mean)),
            call(aten.reciprocal.default, root(mean)),
            call(aten.pow.Tensor_Scalar, variance(mean), Literal(-0.5)),
        )
    )


MEAN = OneOf((KEPT_MEAN, unsqueezed(FLAT_MEAN)))
ROOT = OneOf((root(MEAN), unsqueezed(root(FLAT_MEAN))))
INVERSE = OneOf((inverse(MEAN), unsqueezed(inverse(FLAT_MEAN))))
NORM = OneOf((mul(X, INVERSE), call(aten.div.Tensor, X, ROOT)))
WEIGHTED = OneOf(
    (
        mul(NORM, W),
        mul(X, mul(INVERSE, W)),
        mul(mul(X, W), INVERSE),
        call(aten.div.Tensor, mul(X, W), ROOT),
    )
)
# The larger one first: a norm with a weight contains one without.
SPELLINGS = (WEIGHTED, NORM)
_ENDS = {aten.mul.Tensor, aten.div.Tensor}


@dataclass(frozen=True)
class DetectNorm:
    """Make one op of `x / sqrt(mean(x^2) + eps) * w` (numerics 3), however it is written."""

    name: ClassVar[str] = "detect_norm"

    def __call__(self, gm: GraphModule) -> GraphModule:
        constants = constant_nodes(gm.graph)
        for node in reversed(list(gm.graph.nodes)):
            bound = _one_op(node) or _written_out(node, constants)
            if bound is not None and node.users:  # a part of a norm found before has no users
                self._rewrite(gm, node, bound)
        return finish(gm)

    def _rewrite(self, gm: GraphModule, node: Node, bound: Bound) -> None:
        weight, eps = _weight_row(gm, node, bound.get("weight")), bound["eps"]
        if weight is None:
            return
        number = evaluate(gm, eps).item() if isinstance(eps, Node) else float(eps)
        new = insert(node, overload("rms_norm"), bound["x"], weight, number)
        replace(node, new)
        note(gm, self.name, new, f"rms_norm, eps {number:g}")


def _written_out(node: Node, constants: set[Node]) -> Bound | None:
    if node.target not in _ENDS or node in constants or not is_fp32(node):
        return None
    for spelling in SPELLINGS:
        bound = first(spelling, node, constants)
        if bound and _is_norm(node, bound):
            return bound
    return None


def _is_norm(node: Node, bound: Bound) -> bool:
    """Whether what matched computes in fp32, on whole rows, with one eps."""
    x, eps = bound["x"], bound["eps"]
    return (
        are_rows(node, x)
        and bound.get("width", _width(x)) == _width(x)
        and (not isinstance(eps, Node) or eps.meta["val"].numel() == 1)
    )


def _one_op(node: Node) -> Bound | None:
    """aten.rms_norm over the last dimension; its eps of None means the dtype's epsilon."""
    if node.target is not aten.rms_norm.default:
        return None
    x, shape, weight, eps = [*node.args, None, None][:4]  # weight and eps may be left out
    assert isinstance(x, Node)
    assert isinstance(shape, list)
    if len(shape) != 1 or not is_fp32(node) or not is_fp32(x):
        return None
    eps = torch.finfo(x.meta["val"].dtype).eps if eps is None else eps
    return {"x": x, "weight": weight, "eps": eps}


def _width(node: Node) -> Any:
    return node.meta["val"].shape[-1]


def _weight_row(gm: GraphModule, node: Node, weight: Node | None) -> Node | None:
    """The weight of the norm at `node` as a row (D,): ones without a weight, None if not a row."""
    width = _width(node)
    if weight is None:
        return constant(gm, "ones", torch.ones(width))
    value = weight.meta["val"]
    if value.numel() == 1:
        element = insert(node, aten.reshape.default, weight, [1])
        return insert(node, aten.expand.default, element, [width])
    if value.shape[-1] != value.numel():
        return None
    return weight if value.dim() == 1 else insert(node, aten.reshape.default, weight, [width])
