"""The rules of canonicalize: each takes a node and returns what its users should use, or None."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from torch.fx import Node

from mmfree_compiler.ops import OPS
from mmfree_compiler.passes.pattern import Literal, OneOf, Var, add, aten, call, first, mul
from mmfree_compiler.passes.quantizer import is_rounded
from mmfree_compiler.passes.rewrite import insert, is_fp32, overload, same_shape

# Their result is their first operand if dtype and shape stay the same.
IDENTITIES = {
    aten.alias.default,
    aten.clone.default,
    aten.contiguous.default,
    aten.detach.default,
    aten.dropout.default,
    aten.expand.default,
    aten.lift_fresh_copy.default,
    aten.reshape.default,
    aten.slice.Tensor,
    aten.to.device,
    aten.to.dtype,
    aten.view.default,
}

CASTS = {aten._to_copy.default, aten.to.dtype_layout, aten.to.other, aten.type_as.default}

X, Q = Var("x"), Var("q")
# The straight-through estimator without its detach: x + (q - x) is q.
STRAIGHT_THROUGH = OneOf(
    (
        add(X, call(aten.sub.Tensor, Q, X)),
        call(aten.sub.Tensor, add(X, Q), X),
    )
)
SILU = mul(X, call(aten.sigmoid.default, X))
SQUARE = OneOf((call(aten.pow.Tensor_Scalar, X, Literal(2)), mul(X, X)))
# Not x + 0, which is 0 where x is -0.
NEUTRAL = OneOf((mul(X, Literal(1)), call(aten.div.Tensor, X, Literal(1))))
REDUCTIONS = {aten.amax.default, aten.max.dim, aten.mean.dim, aten.sum.dim_IntList}
ZEROS = {aten.new_zeros.default, aten.zeros.default, aten.zeros_like.default}


def _identity(node: Node, _: set[Node]) -> Node | None:
    if node.target not in IDENTITIES or not node.args:
        return None
    if node.target is aten.dropout.default and node.args[2]:
        return None  # it drops elements in inference too
    source = node.args[0]
    assert isinstance(source, Node)
    before, after = source.meta["val"], node.meta["val"]
    return source if before.dtype == after.dtype and same_shape(before, after) else None


def _cast(node: Node, _: set[Node]) -> Node | None:
    """A cast becomes aten.to.dtype, or its operand if the dtype stays the same."""
    if node.target not in CASTS:
        return None
    source, dtype = node.args[0], node.meta["val"].dtype
    assert isinstance(source, Node)
    same = source.meta["val"].dtype == dtype
    return source if same else insert(node, aten.to.dtype, source, dtype)


def _straight_through(node: Node, constants: set[Node]) -> Node | None:
    """q instead of x + (q - x): equal but for rounding where q was made of x by a quantizer.

    For other q, such as clamp(x, -1, 1), a large x leaves nothing of q in the sum.
    """
    bound = first(STRAIGHT_THROUGH, node, constants)
    if bound is None or not (is_rounded(bound["q"]) or node in constants):
        return None
    found: Node = bound["q"]
    return found


def _silu(node: Node, constants: set[Node]) -> Node | None:
    bound = first(SILU, node, constants)
    return insert(node, aten.silu.default, bound["x"]) if bound else None


def _neutral(node: Node, constants: set[Node]) -> Node | None:
    bound = first(NEUTRAL, node, constants)
    found: Node | None = bound["x"] if bound else None
    return found


def _last_dimension(node: Node, _: set[Node]) -> Node | None:
    """Dimensions of a reduction are counted from the end: the last one is -1."""
    if node.target in REDUCTIONS and len(node.args) > 1:
        source, dims, *rest = node.args
        assert isinstance(source, Node)
        rank = max(1, source.meta["val"].dim())  # torch takes 0 and -1 for a scalar's dimension
        if isinstance(dims, int):
            node.args = (source, dims % rank - rank, *rest)
        elif isinstance(dims, list):
            node.args = (source, [dim % rank - rank for dim in dims], *rest)
    return None


def _unsqueeze(node: Node, _: set[Node]) -> Node | None:
    """A new last dimension is -1."""
    if node.target is aten.unsqueeze.default and node.args[1] == node.meta["val"].dim() - 1:
        node.args = (node.args[0], -1)
    return None


def _square(node: Node, constants: set[Node]) -> Node | None:
    bound = first(SQUARE, node, constants)
    return insert(node, aten.square.default, bound["x"]) if bound else None


def _layer_norm(node: Node, constants: set[Node]) -> Node | None:
    """Of rows: center, RMS norm, bias. The variance is the mean of the centered row's squares."""
    if node.target is not aten.layer_norm.default or node in constants:
        return None
    x, shape, weight, bias, eps = [*node.args, *_LAYER_NORM_DEFAULTS[len(node.args) - 2 :]][:5]
    assert isinstance(x, Node)
    assert isinstance(shape, list)
    rows = len(shape) == 1 and is_fp32(node) and is_fp32(x)
    if not rows or not constants.issuperset({weight, bias} - {None}):
        return None
    centered = insert(node, overload("center"), x)
    normed = insert(node, aten.rms_norm.default, centered, shape, weight, eps)
    return normed if bias is None else insert(node, aten.add.Tensor, normed, bias)


def _part(node: Node, _: set[Node]) -> Node | None:
    """An item of chunk or split along the last dimension is a slice."""
    if node.target is not operator.getitem:
        return None
    split, index = node.args
    if not isinstance(split, Node) or split.target not in _SPLITS:
        return None
    source = split.args[0]
    dim = split.args[2] if len(split.args) > 2 else split.kwargs.get("dim", 0)
    assert isinstance(source, Node)
    assert isinstance(dim, int)
    assert isinstance(index, int)
    if dim % source.meta["val"].dim() != source.meta["val"].dim() - 1:
        return None
    widths = [part.shape[-1] for part in split.meta["val"]]
    start = sum(widths[:index])
    return insert(node, aten.slice.Tensor, source, -1, start, start + widths[index], like=node)


def _slice(node: Node, _: set[Node]) -> Node | None:
    """A slice of the last dimension, -1, states both bounds, neither negative."""
    if node.target is not aten.slice.Tensor or len(node.args) > 4 or node.kwargs:
        return None
    defaults = (None, 0, None, None)
    arguments: list[Any] = [*node.args, *defaults[len(node.args) :]]
    source, dim, start, end = arguments
    if not isinstance(source, Node) or dim != source.meta["val"].dim() - 1:
        return None
    start, end, _step = slice(start, end).indices(source.meta["val"].shape[-1])
    return insert(node, aten.slice.Tensor, source, -1, start, end)


def _embedding(node: Node, _: set[Node]) -> Node | None:
    """An embedding whose result is fp32; the op itself widens a narrow table."""
    is_cast = node.target is aten.to.dtype or node.target in CASTS
    source = node.args[0] if is_cast else node
    if not isinstance(source, Node) or source.target is not aten.embedding.default:
        return None
    if not is_fp32(node):
        return None
    return insert(node, overload("embedding"), source.args[1], source.args[0])


def _zero_state(node: Node, _: set[Node]) -> Node | None:
    """A scan that starts from explicit zeros starts from no state."""
    position = _STATE_ARGUMENT.get(node.target)
    if position is None or len(node.args) <= position:
        return None
    state = node.args[position]
    if isinstance(state, Node) and state.target in ZEROS:
        node.args = (*node.args[:position], None)
    return None


_LAYER_NORM_DEFAULTS = (None, None, 1e-5)  # weight, bias, eps
_SPLITS = {aten.chunk.default, aten.split.Tensor, aten.split.sizes, aten.split_with_sizes.default}
# A scan's state is its last argument.
_STATE_ARGUMENT = {op.overload: len(op.parameters) - 1 for op in OPS.values() if op.kind == "scan"}

# Rules in order, each with the text of its note; rules without one only drop or rename.
RULES: dict[Callable[[Node, set[Node]], Node | None], str] = {
    _embedding: "embedding",
    _cast: "",
    _identity: "",
    _straight_through: "straight-through estimator removed",
    _neutral: "times or over 1",
    _last_dimension: "",
    _unsqueeze: "",
    _silu: "x * sigmoid(x)",
    _square: "",
    _layer_norm: "center and RMS norm",
    _part: "part of a split",
    _slice: "",
    _zero_state: "",
}
