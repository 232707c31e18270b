"""Products of quantized rows with constant weights -> mmfree.bit_linear, by structure alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch.fx import GraphModule, Node

from mmfree_compiler.passes.constants import constant_nodes
from mmfree_compiler.passes.pattern import aten
from mmfree_compiler.passes.products import (
    PRODUCTS,
    Product,
    scalings,
    with_bias,
    with_constant_factors,
)
from mmfree_compiler.passes.quantizer import Proof, Region, is_rounded, prove, regions
from mmfree_compiler.passes.rewrite import calls, finish, insert, is_fp32, note, overload, replace

COMPUTED = "a product of two computed values"
FLOAT = "its rows are not quantized: a float linear layer"
ROUNDED = "its rows are quantized, but not to int8 by each row's maximum"


@dataclass(frozen=True)
class Match:
    """A product whose rows are proven to be `source` quantized; `gain` belongs to the weight."""

    product: Product
    source: Node
    eps: float
    gain: float


@dataclass(frozen=True)
class DetectBitLinear:
    """Replace each product of per-token int8 rows (numerics 5) with a constant weight by one op.

    The weight stays the graph's own constant expression. A product that does not match has the
    reason in its `meta["reason"]`.
    """

    name: ClassVar[str] = "detect_bitlinear"

    def __call__(self, gm: GraphModule) -> GraphModule:
        constants = constant_nodes(gm.graph)
        matches = [_match(gm, node, constants) for node in calls(gm, PRODUCTS)]
        replaced: dict[Node, Node] = {}  # a product's result may be another product's row
        for match in matches:
            if match is None:
                continue
            new = _rewrite(match, replaced.get(match.source, match.source))
            replaced[match.product.out] = new
            note(gm, self.name, new, f"int8 rows, eps {match.eps:g}")
        return finish(gm)


def _match(gm: GraphModule, node: Node, constants: set[Node]) -> Match | None:
    product = PRODUCTS[node.target](node, *node.args)
    if product.weight not in constants or product.x in constants:
        node.meta["reason"] = COMPUTED
        return None
    node.meta["reason"] = ROUNDED if is_rounded(product.x) else FLOAT
    for scaled in scalings(product, constants):
        for region in regions(scaled.x, scaled.factors, constants):
            proof = prove(gm, region)
            if proof is not None:
                return _matched(gm, scaled, region, proof, constants)
    return None


def _matched(
    gm: GraphModule, product: Product, region: Region, proof: Proof, constants: set[Node]
) -> Match | None:
    """The match of a proven region and of the ops after its product; None unless it is fp32."""
    product, scale = with_constant_factors(gm, product, constants)
    product = with_bias(product, constants)
    if not is_fp32(product.out) or not is_fp32(region.source):
        return None
    return Match(product, region.source, proof.eps, proof.gain * scale)


def _rewrite(match: Match, source: Node) -> Node:
    """Replace the product and the ops that scale it by mmfree.bit_linear."""
    product, out, weight = match.product, match.product.out, match.product.weight
    if product.transposed:
        weight = insert(out, aten.t.default, weight)
    if match.gain != 1:
        weight = insert(out, aten.mul.Tensor, weight, match.gain)
    new = insert(out, overload("bit_linear"), source, weight, product.bias, match.eps)
    replace(out, new)
    return new
