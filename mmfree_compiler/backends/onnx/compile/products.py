"""Ternary products: how each variant multiplies spread codes with a packed weight."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import TensorProto

from mmfree_compiler.backends.onnx.compile.scope import Scope
from mmfree_compiler.backends.onnx.layouts import BLOCK, Spacing, padded_rows
from mmfree_compiler.backends.onnx.names import REST_WEIGHT
from mmfree_compiler.backends.onnx.variants import MS, STANDARD
from mmfree_compiler.backends.ternary import Bytes
from mmfree_compiler.program import Node


def ternary_linear(s: Scope, node: Node) -> tuple[str, ...]:
    """The bias comes last: one right behind a product would be added within its kernel."""
    codes, scale, weight, weight_scale, bias = node.inputs
    g, (constant, part) = s.graph, s.constant(weight)
    rows, columns = constant.matrix_shape
    s.sizes.update(rows=rows, columns=columns)
    layout, spacing = s.variant.layout, Spacing.of(columns)
    packed: Bytes = constant.parts[part].view(np.uint8)
    data, rest = layout.parts(packed, (rows, columns))
    total = PRODUCTS[s.variant.name](s, s[codes], data, (spacing.blocks, padded_rows(rows)))
    if spacing.rest:
        matrix = s.tensor(REST_WEIGHT, TensorProto.INT8, rest.shape, rest, "ternary")
        more = g("MatMul", s.rest(codes), g("Cast", matrix, to=TensorProto.FLOAT))
        total = g("Add", total, more)
    if padded_rows(rows) > rows:
        total = g("Slice", total, (0,), (rows,), (-1,))
    out = g("Mul", total, g("Mul", s[scale], s[weight_scale]))
    return (out if bias is None else g("Add", out, s[bias]),)


def _by_dequantizing(s: Scope, codes: str, data: Bytes, size: tuple[int, int]) -> str:
    """Standard operators, which ONNX Runtime fuses to MatMulNBits.

    It does so for scales of blocks that nothing else reads.
    """
    g, (count, stored) = s.graph, size
    shape = count * BLOCK, stored
    packed = s.tensor("weight", TensorProto.INT2, shape, data, "ternary")
    ones = np.ones(size, np.float32)
    scales = s.tensor("block_scales", TensorProto.FLOAT, ones.shape, ones, "ternary")
    matrix = g("DequantizeLinear", packed, scales, axis=0, block_size=BLOCK)
    return g("MatMul", codes, matrix)


def _by_nbits(s: Scope, codes: str, data: Bytes, size: tuple[int, int]) -> str:
    """MatMulNBits at accuracy level 4: activations are quantized to int8 by blocks.

    The cast says what type it makes, which the checker does not know.
    """
    g, (count, stored) = s.graph, size
    shape = stored, count, BLOCK // 4
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


PRODUCTS: dict[str, Callable[[Scope, str, Bytes, tuple[int, int]], str]] = {
    STANDARD: _by_dequantizing,
    MS: _by_nbits,
}
