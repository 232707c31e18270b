"""All other ops, in the table TILES: products, pointwise ops, scans, the embedding."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce

import numpy as np
from onnx import TensorProto, helper

from mmfree_compiler.backends.onnx.compile import functions
from mmfree_compiler.backends.onnx.compile.products import ternary_linear
from mmfree_compiler.backends.onnx.compile.scope import Scope
from mmfree_compiler.backends.onnx.names import STATE
from mmfree_compiler.program import Node

Made = tuple[str, ...]
Emitter = Callable[[Scope, Node], Made]

_TYPES = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16,
}
_TIME_FIRST = (1, 0, 2)  # and back
_END = np.iinfo(np.int64).max  # of a slice


def _embedding(s: Scope, node: Node) -> Made:
    ids, table = node.inputs
    g, (constant, part) = s.graph, s.constant(table)
    kind, data = _TYPES[constant.dtype], constant.array(part)
    rows = s.tensor("table", kind, constant.shape, data, "table")
    taken = g("Gather", rows, s[ids])
    wide = constant.dtype == "float32"
    return (taken if wide else g("Cast", taken, to=TensorProto.FLOAT),)


def _mlgru_gates(s: Scope, node: Node) -> Made:
    """Both sigmoids together: for one token, the number of nodes is what takes time."""
    i, f, bound = node.inputs
    g = s.graph
    both = functions.sigmoid(g, s.powers, g("Concat", s[f], s[i], axis=-1))
    forget, gate = g.many("Split", 2, both, axis=-1, num_outputs=2)
    if bound is not None:
        rest = s.given("rest", np.float32(1) - s.row(bound))
        forget = g("Add", s[bound], g("Mul", rest, forget))
    kept = g("Sub", 1.0, forget)
    return g("Mul", g("Mul", s[i], gate), kept), forget


def _mlgru_scan(s: Scope, node: Node) -> Made:
    """Over the first axis, the only one that ONNX's reference evaluator scans."""
    c, forget = node.inputs[:2]
    g = s.graph
    rows = [g("Transpose", s[name], perm=_TIME_FIRST) for name in (forget, c)]
    recurrence = {"body": _recurrence(), "num_scan_inputs": 2}
    after, made = g.many("Scan", 2, STATE, *rows, **recurrence)
    s.after.append(after)
    return (g("Transpose", made, perm=_TIME_FIRST),)


def _recurrence() -> object:
    """h = (forget * h) + c, of one token."""
    nodes = [
        helper.make_node("Mul", ["forget", "h"], ["kept"]),
        helper.make_node("Add", ["kept", "c"], ["after"]),
        helper.make_node("Identity", ["after"], ["row"]),
    ]
    declared = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        for name in ("h", "forget", "c", "after", "row")
    }
    inputs = [declared[name] for name in ("h", "forget", "c")]
    return helper.make_graph(nodes, "recurrence", inputs, [declared["after"], declared["row"]])


def _short_conv(s: Scope, node: Node) -> Made:
    """The state holds the last k inputs, oldest first."""
    x, weight, bias = node.inputs[:3]
    g, taps = s.graph, s.row(weight)
    count = taps.shape[1]
    rows = g("Concat", STATE, s[x], axis=1)
    ends = [tap - count + 1 or _END for tap in range(count)]
    shifted = (g("Slice", rows, (tap + 1,), (end,), (1,)) for tap, end in enumerate(ends))
    weights = [s.given(f"weight{tap}", taps[:, tap]) for tap in range(count)]
    products = [g("Mul", *pair) for pair in zip(shifted, weights, strict=True)]
    out = reduce(partial(g, "Add"), products)
    s.after.append(g("Slice", rows, (-count,), (_END,), (1,)))
    return (out if bias is None else g("Add", out, s[bias]),)


def _operator(name: str) -> Emitter:
    return lambda s, node: (s.graph(name, *(s[operand] for operand in node.inputs)),)


def _function(function: Callable[..., str]) -> Emitter:
    """One of functions.py that needs powers of two."""
    return lambda s, node: (function(s.graph, s.powers, s[node.inputs[0]]),)


def _composed(function: Callable[..., str]) -> Emitter:
    return lambda s, node: (function(s.graph, *(s[operand] for operand in node.inputs)),)


TILES: dict[str, Emitter] = {
    "embedding": _embedding,
    "mlgru_gates": _mlgru_gates,
    "mlgru_scan": _mlgru_scan,
    "short_conv": _short_conv,
    "ternary_linear": ternary_linear,
    "abs": _operator("Abs"),
    "add": _operator("Add"),
    "div": _operator("Div"),
    "exp": _function(functions.exp),
    "identity": _operator("Identity"),
    "maximum": _composed(functions.maximum),
    "minimum": _composed(functions.minimum),
    "mul": _operator("Mul"),
    "neg": _operator("Neg"),
    "rdiv": _composed(lambda g, x, y: g("Div", y, x)),
    "reciprocal": _operator("Reciprocal"),
    "relu": _composed(functions.relu),
    "sigmoid": _function(functions.sigmoid),
    "silu": _function(functions.silu),
    "sqrt": _operator("Sqrt"),
    "square": _composed(lambda g, x: g("Mul", x, x)),
    "sub": _operator("Sub"),
    "swiglu": lambda s, node: (
        s.graph("Mul", functions.silu(s.graph, s.powers, s[node.inputs[0]]), s[node.inputs[1]]),
    ),
    "tanh": _function(functions.tanh),
}
