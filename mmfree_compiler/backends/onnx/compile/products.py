"""Ternary products: how each variant multiplies spread codes with a packed weight."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import TensorProto

from mmfree_compiler.backends.onnx.compile.scope import Scope
from mmfree_compiler.backends.onnx.layouts import BLOCK, blocks, padded_rows
from mmfree_compiler.backends.onnx.variants import MS, STANDARD
from mmfree_compiler.program import Constant, Node


def ternary_linear(s: Scope, node: Node) -> tuple[str, ...]:
    """The bias comes last: one right behind a product would be added within its kernel."""
    codes, scale, weight, weight_scale, bias = node.inputs
    g = s.graph
    constant, part = s.constant(weight)
    rows, columns = constant.matrix_shape
    s.sizes.update(rows=rows, columns=columns)
    total = PRODUCTS[s.variant.name](s, s[codes], constant, part)
    if padded_rows(rows) > rows:
        total = g("Slice", total, (0,), (rows,), (-1,))
    out = g("Mul", total, g("Mul", s[scale], s[weight_scale]))
    return (out if bias is None else g("Add", out, s[bias]),)


def _by_dequantizing(s: Scope, codes: str, weight: Constant, part: int) -> str:
    """Standard operators, which ONNX Runtime fuses to MatMulNBits.

    It does so for scales of blocks that nothing else reads.
    """
    g, (rows, columns) = s.graph, weight.matrix_shape
    shape = blocks(columns) * BLOCK, padded_rows(rows)
    data = weight.parts[part]
    packed = s.tensor("weight", TensorProto.INT2, shape, data, "ternary")
    ones = np.ones((blocks(columns), padded_rows(rows)), np.float32)
    scales = s.tensor("block_scales", TensorProto.FLOAT, ones.shape, ones, "ternary")
    matrix = g("DequantizeLinear", packed, scales, axis=0, block_size=BLOCK)
    return g("MatMul", codes, matrix)


def _by_nbits(s: Scope, codes: str, weight: Constant, part: int) -> str:
    """MatMulNBits at accuracy level 4: activations are quantized to int8 by blocks.

    The cast says what type it makes, which the checker does not know.
    """
    g, (rows, columns) = s.graph, weight.matrix_shape
    count, stored = blocks(columns), padded_rows(rows)
    shape, data = (stored, count, BLOCK // 4), weight.parts[part]
    total = g(
        "MatMulNBits",
        codes,
        s.tensor("weight", TensorProto.UINT8, shape, data, "ternary"),
        s.given("block_scales", np.ones((stored, count), np.float32)),
        domain="com.microsoft",
        K=count * BLOCK,
        N=stored,
        bits=2,
        block_size=BLOCK,
        accuracy_level=4,
    )
    return g("Cast", total, to=TensorProto.FLOAT)


PRODUCTS: dict[str, Callable[[Scope, str, Constant, int], str]] = {
    STANDARD: _by_dequantizing,
    MS: _by_nbits,
}
