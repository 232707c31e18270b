"""Products of quantized rows with constant weights -> mmfree.bit_linear, by structure alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from dataclasses import replace as changed
from typing import Any

from torch.fx import GraphModule, Node

from mmfree_compiler.passes.constants import constant_nodes, evaluate
from mmfree_compiler.passes.pattern import aten
from mmfree_compiler.passes.quantizer import Factor, is_rounded, prove, regions
from mmfree_compiler.passes.rewrite import calls, finish, insert, is_fp32, note, overload, replace


@dataclass(frozen=True)
class Product:
    """`x @ weight.T + bias`, then scaled by `factors`: `out` is the last node that belongs to it.

    `weight` is (N, K), or (K, N) when `transposed`.
    """

    out: Node
    x: Node
    weight: Node
    bias: Node | None = None
    transposed: bool = False
    factors: tuple[Factor, ...] = ()


PRODUCTS: dict[Any, Callable[..., Product]] = {
    aten.linear.default: lambda n, x, w, bias=None: Product(n, x, w, bias),
    aten.mm.default: lambda n, x, w: Product(n, x, w, transposed=True),
    aten.matmul.default: lambda n, x, w: Product(n, x, w, transposed=True),
    aten.addmm.default: lambda n, bias, x, w: Product(n, x, w, bias, transposed=True),
    aten._int_mm.default: lambda n, x, w: Product(n, x, w, transposed=True),
}


@dataclass(frozen=True)
class DetectBitLinear:
    """Walk back from every product; what is per-token int8 (numerics 5) becomes one op.

    The weight stays the graph's own constant expression. A product that does not match keeps the
    reason in its `meta["reason"]`.
    """

    name: str = "detect_bitlinear"

    def __call__(self, gm: GraphModule) -> GraphModule:
        constants = constant_nodes(gm.graph)
        matches = [_match(gm, node, constants) for node in calls(gm, PRODUCTS)]
        became: dict[Node, Node] = {}  # a product's result may be another one's row
        for match in filter(None, matches):
            new = _rewrite(match, became.get(match.source, match.source))
            became[match.product.out] = new
            note(gm, self.name, new, f"int8 rows, eps {match.eps:g}")
        return finish(gm)


@dataclass(frozen=True)
class Match:
    """A product whose rows are proven to be `source` quantized; `gain` belongs to the weight."""

    product: Product
    source: Node
    eps: float
    gain: float


_FLOAT = "its rows are not quantized: a float linear layer"
_ROUNDED = "its rows are quantized, but not to int8 by each row's maximum"


def _match(gm: GraphModule, node: Node, constants: set[Node]) -> Match | None:
    product = PRODUCTS[node.target](node, *node.args)
    if product.weight not in constants or product.x in constants:
        node.meta["reason"] = "a product of two computed values"
        return None
    node.meta["reason"] = _ROUNDED if is_rounded(product.x) else _FLOAT
    for scaled in _scalings(product, constants):
        for region in regions(scaled.x, scaled.factors, constants):
            proof = prove(gm, region)
            if proof is not None:
                scaled, scale = _constant_scale(gm, scaled, constants)
                whole = _with_bias(scaled, constants)
                if not (is_fp32(whole.out) and is_fp32(region.source)):
                    return None
                return Match(whole, region.source, proof.eps, proof.gain * scale)
    return None


def _rewrite(match: Match, source: Node) -> Node:
    """Put mmfree.bit_linear in place of the product and of what scales it."""
    product, out, weight = match.product, match.product.out, match.product.weight
    if product.transposed:
        weight = insert(out, aten.t.default, weight)
    if match.gain != 1:
        weight = insert(out, aten.mul.Tensor, weight, match.gain)
    new = insert(out, overload("bit_linear"), source, weight, product.bias, match.eps)
    replace(out, new)
    return new


# --- what scales a product's output -------------------------------------------------------------


def _scalings(product: Product, constants: set[Node]) -> Iterator[Product]:
    """The product with none of the factors that follow it, with one, with two..."""
    following: Product | None = product
    while following is not None:
        yield following
        following = _scaled(following, constants)


def _scaled(product: Product, constants: set[Node]) -> Product | None:
    """The product with the one factor or cast that follows it, if nothing else reads it."""
    if product.bias is not None or len(product.out.users) != 1:
        return None
    (user,) = product.out.users
    if user.target is aten.to.dtype:
        return changed(product, out=user)
    if user.target not in (aten.mul.Tensor, aten.div.Tensor):
        return None
    left, right = user.args
    divides = user.target is aten.div.Tensor
    if right is product.out and not divides:
        left, right = right, left
    if left is not product.out or not isinstance(right, Node | float | int):
        return None
    if isinstance(right, Node) and not _is_factor(right, constants):
        return None
    return changed(product, out=user, factors=(*product.factors, Factor(right, divides)))


def _is_factor(value: Node, constants: set[Node]) -> bool:
    """Whether a value has one element, or one a row."""
    shape = value.meta["val"].shape
    return all(size == 1 for size in shape) if value in constants else shape[-1:] == (1,)


def _constant_scale(
    gm: GraphModule, product: Product, constants: set[Node]
) -> tuple[Product, float]:
    """Take in the constant factors that still follow; also returns what they come to."""
    scale = 1.0
    while (more := _scaled(product, constants)) is not None:
        for factor in more.factors[len(product.factors) :]:
            if factor.value not in constants and isinstance(factor.value, Node):
                return product, scale
            value = factor.value
            number = evaluate(gm, value).item() if isinstance(value, Node) else value
            scale = scale / number if factor.divides else scale * number
        product = more
    return product, scale


def _with_bias(product: Product, constants: set[Node]) -> Product:
    """Take in a constant row that is added to the product and to nothing else."""
    if product.bias is not None or len(product.out.users) != 1:
        return product
    (user,) = product.out.users
    if user.target is not aten.add.Tensor or user.kwargs:
        return product
    left, bias = user.args
    if bias is product.out:
        bias = left
    width = product.out.meta["val"].shape[-1]
    if isinstance(bias, Node) and bias in constants and tuple(bias.meta["val"].shape) == (width,):
        return changed(product, out=user, bias=bias)
    return product
