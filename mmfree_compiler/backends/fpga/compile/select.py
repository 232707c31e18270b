"""Instruction selection: the instructions of each op, in the table SELECT."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mmfree_compiler.backends.fpga.compile.builder import Builder
from mmfree_compiler.backends.fpga.compile.draft import Buffer, place
from mmfree_compiler.backends.fpga.strides import row_lines
from mmfree_compiler.program import Node

Select = Callable[[Builder, Node], None]


def _unary(name: str) -> Select:
    def select(b: Builder, node: Node) -> None:
        (out,), (x,) = node.outputs, node.inputs
        b.add(name, node, dst=b.value(out), a=b.row_value(node, x), n=_width(b, out))

    return select


def _binary(name: str) -> Select:
    def select(b: Builder, node: Node) -> None:
        x, y = node.inputs
        _vec(b, node, name, node.outputs[0], x, y)

    return select


def _vec(b: Builder, node: Node, name: str, out: str, x: str | None, y: str | None) -> None:
    second, form = b.second(node, y)
    first, n = b.row_value(node, x), _width(b, out)
    b.add(name, node, dst=b.value(out), a=first, b=second, mode=form, n=n)


def _embedding(b: Builder, node: Node) -> None:
    (out,), (_, table) = node.outputs, node.inputs
    assert table is not None
    constant = b.program.constants[table]
    step = constant.shape[0] if len(constant.parts) > 1 else 0
    width = _width(b, out)
    address, mode = place("table", table), constant.dtype
    b.add("gather", node, dst=b.value(out), n=width, mode=mode, table=step, address=address)


def _rms_norm(b: Builder, node: Node) -> None:
    (out,), (x, weight) = node.outputs, node.inputs
    _norm(b, node, out, x, weight)


def _norm(b: Builder, node: Node, out: str, x: str | None, weight: str | None) -> None:
    width = _width(b, out)
    row, eps = b.constant(node, weight, width), b.numbers(_number(node, "eps"))
    b.add("norm", node, dst=b.value(out), a=b.row_value(node, x), weight=row, eps=eps, n=width)


def _gated_norm(b: Builder, node: Node) -> None:
    """silu(h) * norm(g)."""
    (out,), (g, h, weight) = node.outputs, node.inputs
    _norm(b, node, out, g, weight)
    _vec(b, node, "swiglu", out, h, out)


def _quantize(b: Builder, node: Node) -> None:
    codes, scale = node.outputs
    constants = b.quant_constants(0.0, 0.0, _number(node, "quant_eps"))
    _quant(b, node, codes, scale, node.inputs[0], "plain", constants=constants)


def _norm_quant(b: Builder, node: Node) -> None:
    x, outer, *inners = node.inputs
    width = _width(b, node.outputs[0])
    names = ("outer_eps", "inner_eps", "quant_eps")
    constants = b.quant_constants(*(_number(node, name) for name in names))
    operands: dict[str, Buffer] = {"constants": constants}
    if outer is not None:
        operands["outer"] = b.constant(node, outer, width)
    mode = "norm" if outer is None else "norms"
    pairs = zip(node.outputs[::2], node.outputs[1::2], inners, strict=True)
    for codes, scale, inner in pairs:
        row = b.constant(node, inner, width)
        _quant(b, node, codes, scale, x, mode, inner=row, **operands)


def _quant(
    b: Builder, node: Node, codes: str, scale: str, x: str | None, mode: str, **operands: Buffer
) -> None:
    b.scales[codes] = scale
    a, n = b.row_value(node, x), _width(b, codes)
    b.add("quant", node, dst=b.value(codes), a=a, mode=mode, n=n, **operands)


def _ternary_linear(b: Builder, node: Node) -> None:
    (out,), (codes, scale, weight, weight_scale, bias) = node.outputs, node.inputs
    operand = b.codes(node, codes, scale)
    items = b.weight(node, weight_scale, weight)
    n, k = items[-1].shape
    b.add("product", node, dst=b.value(out), a=operand, n=n, k=k, items=items)
    if bias is not None:
        _vec(b, node, "add", out, out, bias)


def _mlgru_gates(b: Builder, node: Node) -> None:
    (c, forget), (i, f, bound) = node.outputs, node.inputs
    if bound is None:
        b.add("sigmoid", node, dst=b.value(forget), a=b.row_value(node, f), n=_width(b, c))
    else:
        _vec(b, node, "forget", forget, f, bound)
    _vec(b, node, "input", c, i, forget)


def _mlgru_scan(b: Builder, node: Node) -> None:
    (out,), (c, forget, _) = node.outputs, node.inputs
    width = _width(b, out)
    with b.state(node, row_lines(width)) as state:
        rows = {"c": b.row_value(node, c), "forget": b.row_value(node, forget)}
        b.add("scan", node, dst=b.value(out), state=state, n=width, **rows)


def _short_conv(b: Builder, node: Node) -> None:
    (out,), (x, weight, bias, _) = node.outputs, node.inputs
    width, taps = _width(b, out), b.program.state(str(node.state)).shape[0]
    with b.state(node, taps * row_lines(width)) as state:
        row, weights = b.row_value(node, x), b.taps(weight)
        b.add(
            "conv", node, dst=b.value(out), a=row, weight=weights, state=state, n=width, taps=taps
        )
    if bias is not None:
        _vec(b, node, "add", out, out, bias)


def _width(b: Builder, name: str) -> int:
    return b.program.values[name].width


def _number(node: Node, name: str) -> float:
    return float(str(node.attrs[name]))


SELECT: Mapping[str, Select] = {
    "abs": _unary("abs"),
    "add": _binary("add"),
    "center": _unary("center"),
    "div": _binary("div"),
    "embedding": _embedding,
    "exp": _unary("exp"),
    "gated_norm": _gated_norm,
    "identity": _unary("copy"),
    "maximum": _binary("max"),
    "minimum": _binary("min"),
    "mlgru_gates": _mlgru_gates,
    "mlgru_scan": _mlgru_scan,
    "mul": _binary("mul"),
    "neg": _unary("neg"),
    "norm_quant": _norm_quant,
    "quantize": _quantize,
    "rdiv": _binary("rdiv"),
    "reciprocal": _unary("recip"),
    "relu": _unary("relu"),
    "rms_norm": _rms_norm,
    "short_conv": _short_conv,
    "sigmoid": _unary("sigmoid"),
    "silu": _unary("silu"),
    "sqrt": _unary("sqrt"),
    "square": _unary("square"),
    "sub": _binary("sub"),
    "swiglu": _binary("swiglu"),
    "tanh": _unary("tanh"),
    "ternary_linear": _ternary_linear,
}
