"""What ONNX's operators compute, in torch, in the table OPERATORS.

A function takes the node's attributes and its operands (values.py), and returns a value, or a tuple
of them where the node has several outputs. Its name in the table has the domain in front, but for
ONNX's own.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmfree_compiler.backends.onnx.importing.shaping import SHAPING
from mmfree_compiler.backends.onnx.importing.values import Value, axes_of, each

Attributes = Mapping[str, Any]
Operator = Callable[..., Value]


def _unary(function: Callable[[Tensor], Tensor]) -> Operator:
    return lambda _, x: function(x)


def _binary(function: Callable[[Any, Any], Any]) -> Operator:
    return lambda _, x, y: each(function, x, y)


def _divide(_: Attributes, x: Value, y: Value) -> Value:
    def one(a: Value, b: Value) -> Value:
        whole = not isinstance(a, Tensor | float) and not isinstance(b, Tensor | float)
        return a // b if whole else a / b

    return each(one, x, y)


def _extreme(function: Callable[..., Tensor], bound: str) -> Operator:
    """Max or Min of any number of operands; one that is a number bounds the other."""

    def two(x: Value, y: Value) -> Value:
        if isinstance(x, Tensor) and isinstance(y, Tensor):
            return function(x, y)
        tensor, number = (x, y) if isinstance(x, Tensor) else (y, x)
        return torch.clamp(tensor, **{bound: number})

    return lambda _, *operands: reduce(two, operands)


def _clip(attributes: Attributes, x: Tensor, low: Value = None, high: Value = None) -> Tensor:
    low = attributes.get("min") if low is None else low
    high = attributes.get("max") if high is None else high
    return x if low is None and high is None else torch.clamp(x, low, high)


def _reduce(function: Callable[..., Tensor]) -> Operator:
    """Axes are an operand in newer opsets, an attribute in older ones."""

    def reduced(attributes: Attributes, x: Tensor, axes: Value = None) -> Tensor:
        axes = attributes.get("axes") if axes is None else axes
        if not axes:
            if attributes.get("noop_with_empty_axes"):
                return x
            axes = tuple(range(x.dim()))
        return function(x, axes_of(x, axes), bool(attributes.get("keepdims", 1)))

    return reduced


def _gemm(attributes: Attributes, a: Tensor, b: Tensor, c: Value = None) -> Tensor:
    a = a.t() if attributes.get("transA") else a
    alpha, beta = attributes.get("alpha", 1.0), attributes.get("beta", 1.0)
    weight = b if attributes.get("transB") else b.t()
    if alpha == 1 and (c is None or beta == 1):
        return F.linear(a, weight, c)
    product: Tensor = F.linear(a, weight) * alpha
    return product if c is None else torch.add(product, c, alpha=beta)


def _rms_norm(attributes: Attributes, x: Tensor, scale: Value = None) -> Tensor:
    shape = list(x.shape[attributes.get("axis", -1) :])
    return F.rms_norm(x, shape, scale, attributes.get("epsilon", 1e-5))


def _layer_norm(attributes: Attributes, x: Tensor, scale: Tensor, bias: Value = None) -> Tensor:
    shape = list(x.shape[attributes.get("axis", -1) :])
    return F.layer_norm(x, shape, scale, bias, attributes.get("epsilon", 1e-5))


def _swish(attributes: Attributes, x: Tensor) -> Tensor:
    alpha = float(attributes.get("alpha", 1.0))
    return F.silu(x) if alpha == 1 else x * torch.sigmoid(x * alpha)


def _gelu(attributes: Attributes, x: Tensor) -> Tensor:
    return F.gelu(x, approximate=attributes.get("approximate", "none"))


ARITHMETIC: dict[str, Operator] = {
    "Abs": _unary(torch.abs),
    "Add": _binary(operator.add),
    "And": _binary(torch.logical_and),
    "Clip": _clip,
    "Cos": _unary(torch.cos),
    "Div": _divide,
    "Dropout": lambda _, x, *__: x,
    "Equal": _binary(operator.eq),
    "Erf": _unary(torch.erf),
    "Exp": _unary(torch.exp),
    "Floor": _unary(torch.floor),
    "Gelu": _gelu,
    "Gemm": _gemm,
    "Greater": _binary(operator.gt),
    "HardSwish": _unary(F.hardswish),
    "Identity": lambda _, x: x,
    "LayerNormalization": _layer_norm,
    "Less": _binary(operator.lt),
    "Log": _unary(torch.log),
    "MatMul": _binary(torch.matmul),
    "Max": _extreme(torch.maximum, "min"),
    "Min": _extreme(torch.minimum, "max"),
    "Mul": _binary(operator.mul),
    "Neg": _unary(torch.neg),
    "Not": _unary(torch.logical_not),
    "Pow": _binary(operator.pow),
    "RMSNormalization": _rms_norm,
    "Reciprocal": _unary(torch.reciprocal),
    "ReduceMax": _reduce(torch.amax),
    "ReduceMean": _reduce(torch.mean),
    "ReduceMin": _reduce(torch.amin),
    "ReduceSum": _reduce(torch.sum),
    "Relu": _unary(torch.relu),
    "Round": _unary(torch.round),
    "Sigmoid": _unary(torch.sigmoid),
    "Sign": _unary(torch.sign),
    "Sin": _unary(torch.sin),
    "Softmax": lambda attributes, x: torch.softmax(x, attributes.get("axis", -1)),
    "Sqrt": _unary(torch.sqrt),
    "Sub": _binary(operator.sub),
    "Swish": _swish,
    "Tanh": _unary(torch.tanh),
    "Where": lambda _, condition, x, y: torch.where(condition, x, y),
    "com.microsoft.SimplifiedLayerNormalization": _rms_norm,
}
OPERATORS = ARITHMETIC | SHAPING
