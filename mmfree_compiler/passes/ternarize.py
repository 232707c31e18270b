"""Weights to ternary codes and a scale: bit_linear -> quantize + ternary_linear."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from mmfree_compiler.errors import UnsupportedError
from mmfree_compiler.parallel import each
from mmfree_compiler.passes.constants import (
    ancestors,
    attribute,
    evaluate,
    evaluate_rows,
    identity,
)
from mmfree_compiler.passes.rewrite import (
    calls,
    constant,
    finish,
    insert,
    item,
    note,
    overload,
    replace,
)
from mmfree_compiler.wording import few


@dataclass(frozen=True)
class Ternary:
    """The nodes of a weight's codes, (N, K) int8, and of its scale, (1,) fp32."""

    codes: Node
    scale: Node


@dataclass(frozen=True)
class Ternarize:
    """Fold each weight expression into codes -1, 0, 1 and one scale (numerics 4).

    The graph's own expression is evaluated, so weights that are already ternary are not quantized
    again. A bit_linear whose weight has other values than -c, 0 and c stays, with the reason in its
    `meta["reason"]`.

    Raises UnsupportedError on weights without elements, and on finite weights that are not finite
    once they are quantized.
    """

    name: ClassVar[str] = "ternarize"

    def __call__(self, gm: GraphModule) -> GraphModule:
        found = calls(gm, [overload("bit_linear")])
        _check_filled([_weight(node) for node in found])
        weights = fold_all(gm, [_weight(node) for node in found])
        _check_quantized(gm, [_weight(n) for n, x in zip(found, weights, strict=True) if x is None])
        rows: dict[tuple[Node, float], Node] = {}
        for node, ternary in zip(found, weights, strict=True):
            x, weight, bias, eps = node.args
            assert isinstance(x, Node)
            assert isinstance(weight, Node)
            assert isinstance(eps, float)
            if ternary is None:
                node.meta["reason"] = f"its weight has {_distinct(gm, weight)} distinct values"
                continue
            codes, scale = self._quantized(rows, node, x, eps)
            linear = overload("ternary_linear")
            new = insert(node, linear, codes, scale, ternary.codes, ternary.scale, bias)
            replace(node, new)
            note(gm, self.name, new, f"ternary weight {tuple(ternary.codes.meta['val'].shape)}")
        return finish(gm)

    def _quantized(
        self, rows: dict[tuple[Node, float], Node], node: Node, x: Node, eps: float
    ) -> tuple[Node, Node]:
        """The codes and scale of a row; layers that read the same row share them."""
        if (x, eps) not in rows:
            rows[x, eps] = insert(node, overload("quantize"), x, eps)
        return item(rows[x, eps], 0), item(rows[x, eps], 1)


def _weight(node: Node) -> Node:
    weight = node.args[1]
    assert isinstance(weight, Node)
    return weight


def fold_all(gm: GraphModule, weights: list[Node]) -> list[Ternary | None]:
    """Fold every weight, equal expressions once; None where the values are not ternary."""
    keys: dict[Node, str] = {}
    unique = {identity(weight, keys): weight for weight in weights}
    folded = each(lambda weight: fold(gm, weight), unique.values())
    ternaries: dict[str, Ternary] = {}
    for (key, weight), parts in zip(unique.items(), folded, strict=True):
        if parts is not None:
            codes, scale = parts
            stem = _stem(weight)
            ternaries[key] = Ternary(
                constant(gm, f"{stem}_codes", codes), constant(gm, f"{stem}_scale", scale)
            )
    return [ternaries.get(keys[weight]) for weight in weights]


def fold(gm: GraphModule, weight: Node) -> tuple[Tensor, Tensor] | None:
    """Codes (N, K) int8 and scale (1,) fp32 of a constant expression; None if it is not ternary."""
    codes = torch.empty(tuple(weight.meta["val"].shape), dtype=torch.int8)
    scale: Tensor | None = None
    for rows, block in evaluate_rows(gm, weight):
        if scale is None or scale == 0:  # all blocks so far were zeros
            scale = block.abs().max().float()
        signs = block.sign().float()
        codes[rows] = signs
        if signs.mul_(scale).sub_(block).abs_().max() != 0:  # NaN is not 0
            return None
    assert scale is not None
    return codes, scale.reshape(1)


def _check_filled(weights: list[Node]) -> None:
    """Raise UnsupportedError on weights without elements, all at once."""
    empty = [weight for weight in weights if not weight.meta["val"].numel()]
    if empty:
        names = dict.fromkeys(map(_stem, empty))
        cause = "has no elements, so it has no scale"
        raise UnsupportedError(f"weight {few([*names], 20)}", cause, "Remove the layer")


def _check_quantized(gm: GraphModule, weights: list[Node]) -> None:
    """Raise UnsupportedError on those whose quantizer overflows, all at once."""
    overflows = [weight for weight in weights if _overflows(gm, weight)]
    if overflows:
        cause = "the mean of |w| overflows float32, or is divided by while it is 0"
        names = dict.fromkeys(map(_stem, overflows))
        raise UnsupportedError(f"weight {few([*names], 20)}", cause, "Scale the weights")


def _overflows(gm: GraphModule, weight: Node) -> bool:
    """Whether a weight is not finite though all is finite that it is computed from."""
    stored = [attribute(gm, node) for node in ancestors(weight) if node.op == "get_attr"]
    finite = all(x.isfinite().all() for x in stored)
    return finite and not evaluate(gm, weight).isfinite().all()


def _distinct(gm: GraphModule, weight: Node) -> int:
    return int(evaluate(gm, weight).unique().numel())


def _stem(weight: Node) -> str:
    """The name of the largest tensor that a weight is computed from, if there is one."""
    sources = [node for node in ancestors(weight) if node.op == "get_attr"]
    largest = max(sources, key=lambda node: int(node.meta["val"].numel()), default=weight)
    return str(largest.target if largest.op == "get_attr" else largest.name)
