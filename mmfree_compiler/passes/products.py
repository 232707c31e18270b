"""Products of rows with a matrix, with the factors and the bias that follow them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import GraphModule, Node

from mmfree_compiler.passes.constants import evaluate
from mmfree_compiler.passes.pattern import aten, is_tensor
from mmfree_compiler.passes.quantizer import Factor
from mmfree_compiler.passes.rewrite import is_fp32


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


# Target -> the Product of a call, made from the node and its arguments.
PRODUCTS: dict[Any, Callable[..., Product]] = {
    aten.linear.default: lambda node, x, w, bias=None: Product(node, x, w, bias),
    aten.mm.default: lambda node, x, w: Product(node, x, w, transposed=True),
    aten.matmul.default: lambda node, x, w: Product(node, x, w, transposed=True),
    aten.addmm.default: lambda node, bias, x, w: Product(node, x, w, bias, transposed=True),
    aten._int_mm.default: lambda node, x, w: Product(node, x, w, transposed=True),
}


# A product of int8 codes and ternary weights is the same number in these types.
_EXACT = (torch.float32, torch.float64)


def scalings(product: Product, constants: set[Node]) -> Iterator[Product]:
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
        keeps = user.meta["val"].dtype in _EXACT
        return dataclasses.replace(product, out=user) if keeps else None
    if user.target not in (aten.mul.Tensor, aten.div.Tensor):
        return None
    left, right = user.args
    divides = user.target is aten.div.Tensor
    if right is product.out and not divides:
        left, right = right, left
    if left is not product.out or not isinstance(right, Node | float | int):
        return None
    if isinstance(right, Node) and not (is_tensor(right) and _is_factor(right, constants)):
        return None
    factors = (*product.factors, Factor(right, divides))
    return dataclasses.replace(product, out=user, factors=factors)


def _is_factor(value: Node, constants: set[Node]) -> bool:
    """Whether a value has one element, or one per row."""
    shape = value.meta["val"].shape
    if value in constants:
        return all(size == 1 for size in shape)
    return bool(shape[-1:] == (1,))


def with_constant_factors(
    gm: GraphModule, product: Product, constants: set[Node]
) -> tuple[Product, float]:
    """The product with the constant factors that follow it, and the product of these factors.

    It ends where it last is fp32: a cast to float64 at the end is an op of its own.
    """
    scale = 1.0
    found = product, scale
    for more in scalings(product, constants):
        for factor in more.factors[len(product.factors) :]:
            value = factor.value
            if isinstance(value, Node):
                if value not in constants:
                    return found
                value = evaluate(gm, value).item()
            scale = scale / value if factor.divides else scale * value
        product = more
        if is_fp32(product.out):
            found = product, scale
    return found


def with_bias(product: Product, constants: set[Node]) -> Product:
    """The product with the constant row that is added to it, if nothing else reads the product."""
    if product.bias is not None or len(product.out.users) != 1:
        return product
    (user,) = product.out.users
    if user.target is not aten.add.Tensor or user.kwargs:
        return product
    left, right = user.args
    bias = left if right is product.out else right
    width = product.out.meta["val"].shape[-1]
    if is_tensor(bias) and bias in constants and tuple(bias.meta["val"].shape) == (width,):
        return dataclasses.replace(product, out=user, bias=bias)
    return product
