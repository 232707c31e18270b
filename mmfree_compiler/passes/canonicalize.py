"""One spelling for each thing that export and models write in several ways."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from mmfree_compiler.passes.constants import attribute, constant_nodes
from mmfree_compiler.passes.pattern import (
    COMMUTATIVE,
    Literal,
    OneOf,
    Var,
    add,
    aten,
    call,
    first,
    mul,
)
from mmfree_compiler.passes.rewrite import (
    calls,
    finish,
    insert,
    note,
    overload,
    replace,
    same_shape,
)

# Another name of the same operation on the same arguments.
ALIASES = {
    aten.absolute.default: aten.abs.default,
    aten.add.Scalar: aten.add.Tensor,
    aten.clip.default: aten.clamp.default,
    aten.clamp_min.default: aten.clamp.default,
    aten.div.Scalar: aten.div.Tensor,
    aten.divide.Tensor: aten.div.Tensor,
    aten.mul.Scalar: aten.mul.Tensor,
    aten.multiply.Tensor: aten.mul.Tensor,
    aten.negative.default: aten.neg.default,
    aten.special_expit.default: aten.sigmoid.default,
    aten.sub.Scalar: aten.sub.Tensor,
    aten.subtract.Tensor: aten.sub.Tensor,
    aten.true_divide.Tensor: aten.div.Tensor,
}

# Their result is their first operand whenever type and shape stay as they were.
IDENTITIES = {
    aten._to_copy.default,
    aten.alias.default,
    aten.clone.default,
    aten.contiguous.default,
    aten.detach.default,
    aten.dropout.default,  # traced in inference mode
    aten.expand.default,
    aten.lift_fresh_copy.default,
    aten.reshape.default,
    aten.slice.Tensor,
    aten.to.device,
    aten.to.dtype,
    aten.to.dtype_layout,
    aten.type_as.default,
    aten.view.default,
}

ASSERTIONS = {
    aten._assert_async.msg,
    aten._assert_scalar.default,
    aten._assert_tensor_metadata.default,
    aten.sym_constrain_range_for_size.default,
    torch.ops.aten.sym_constrain_range.default,
}

X, Q = Var("x"), Var("q")
# The straight-through estimator, its detach gone: x + (q - x) computes q.
STRAIGHT_THROUGH = OneOf(
    (
        add(X, call(aten.sub.Tensor, Q, X)),
        call(aten.sub.Tensor, add(X, Q), X),
    )
)
SILU = mul(X, call(aten.sigmoid.default, X))
SQUARE = OneOf((call(aten.pow.Tensor_Scalar, X, Literal(2)), mul(X, X)))
# x * 1, x / 1, x + 0, x - 0
NEUTRAL = OneOf(
    (
        mul(X, Literal(1)),
        call(aten.div.Tensor, X, Literal(1)),
        add(X, Literal(0)),
        call(aten.sub.Tensor, X, Literal(0)),
    )
)
REDUCTIONS = {aten.amax.default, aten.max.dim, aten.mean.dim, aten.sum.dim_IntList}
ZEROS = {aten.new_zeros.default, aten.zeros.default, aten.zeros_like.default}


@dataclass(frozen=True)
class Canonicalize:
    """Drop what computes nothing and rename what has several names; the values stay equal."""

    name: str = "canonicalize"

    def __call__(self, gm: GraphModule) -> GraphModule:
        for node in calls(gm, ASSERTIONS):
            gm.graph.erase_node(node)
        constants = constant_nodes(gm.graph)
        for node in list(gm.graph.nodes):
            if node.op != "call_function":
                continue
            node.target = ALIASES.get(node.target, node.target)
            self._inline_scalars(gm, node)
            for rule, text in RULES.items():
                new = rule(node, constants)
                if new is not None:
                    if text:
                        note(gm, self.name, new, text)
                    replace(node, new)
                    break
        return finish(gm)

    def _inline_scalars(self, gm: GraphModule, node: Node) -> None:
        """Numbers that are written as 0-dimensional tensors become arguments."""
        if node.target not in _TAKES_NUMBERS or len(node.args) != 2:
            return
        left, right = node.args
        if node.target in COMMUTATIVE and _is_number(left):
            left, right = right, left
        if isinstance(left, Node) and _is_number(right):
            assert isinstance(right, Node)
            node.args = (left, attribute(gm, right).item())


_TAKES_NUMBERS = {aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor}


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, Node)
        and value.op == "get_attr"
        and isinstance(value.meta["val"], Tensor)
        and value.meta["val"].dim() == 0
    )


# --- rules: node -> what its users should use, or None ------------------------------------------


def _identity(node: Node, _: set[Node]) -> Node | None:
    if node.target not in IDENTITIES or not node.args:
        return None
    source = node.args[0]
    assert isinstance(source, Node)
    before, after = source.meta["val"], node.meta["val"]
    return source if before.dtype == after.dtype and same_shape(before, after) else None


def _straight_through(node: Node, constants: set[Node]) -> Node | None:
    bound = first(STRAIGHT_THROUGH, node, constants)
    if bound is None or not same_shape(bound["q"].meta["val"], node.meta["val"]):
        return None
    found: Node = bound["q"]
    return found


def _silu(node: Node, constants: set[Node]) -> Node | None:
    bound = first(SILU, node, constants)
    return insert(node, aten.silu.default, bound["x"]) if bound else None


def _neutral(node: Node, constants: set[Node]) -> Node | None:
    bound = first(NEUTRAL, node, constants)
    if bound is None or bound["x"].meta["val"].dtype != node.meta["val"].dtype:
        return None
    found: Node = bound["x"]
    return found


def _last_dimension(node: Node, _: set[Node]) -> Node | None:
    """Reductions count their dimensions from the end, so that the last one is always -1."""
    if node.target in REDUCTIONS and len(node.args) > 1:
        source, dims, *rest = node.args
        assert isinstance(source, Node)
        rank = source.meta["val"].dim()
        listed = [dims] if isinstance(dims, int) else dims or []
        assert isinstance(listed, list)
        counted = [dim % rank - rank for dim in listed]
        node.args = (source, counted[0] if isinstance(dims, int) else counted, *rest)
    return None


def _unsqueeze(node: Node, _: set[Node]) -> Node | None:
    """A new last dimension is always -1."""
    if node.target is aten.unsqueeze.default and node.args[1] == node.meta["val"].dim() - 1:
        node.args = (node.args[0], -1)
    return None


def _square(node: Node, constants: set[Node]) -> Node | None:
    bound = first(SQUARE, node, constants)
    return insert(node, aten.square.default, bound["x"]) if bound else None


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
    """A slice of the last dimension counts from its end and names its bounds."""
    if node.target is not aten.slice.Tensor or len(node.args) > 4 or node.kwargs:
        return None
    source, dim, start, end = (*node.args, 0, None, None)[: max(4, len(node.args))]
    if not isinstance(source, Node) or dim != source.meta["val"].dim() - 1:
        return None
    start, end, _step = slice(start, end).indices(source.meta["val"].shape[-1])
    return insert(node, aten.slice.Tensor, source, -1, start, end)


def _embedding(node: Node, _: set[Node]) -> Node | None:
    """An embedding whose result is fp32; a narrow table is widened by the op itself."""
    if node.target is aten.to.dtype and node.meta["val"].dtype == torch.float32:
        source = node.args[0]
    else:
        source = node if node.meta.get("val") is not None else None
    if not isinstance(source, Node) or source.target is not aten.embedding.default:
        return None
    if node is source and node.meta["val"].dtype != torch.float32:
        return None
    return insert(node, overload("embedding"), source.args[1], source.args[0])


def _zero_state(node: Node, _: set[Node]) -> Node | None:
    """A scan that begins from explicit zeros begins from none."""
    position = _STATE_ARGUMENT.get(node.target)
    if position is None or len(node.args) <= position:
        return None
    state = node.args[position]
    if isinstance(state, Node) and state.target in ZEROS:
        node.args = (*node.args[:position], None)
    return None


_SPLITS = {aten.chunk.default, aten.split.Tensor, aten.split.sizes, aten.split_with_sizes.default}
_STATE_ARGUMENT = {overload("mlgru_scan"): 2, overload("short_conv"): 3}

# Rules in order, each with what to note; those without a note only drop or rename.
RULES: dict[Callable[[Node, set[Node]], Node | None], str] = {
    _embedding: "embedding",
    _identity: "",
    _straight_through: "straight-through estimator removed",
    _neutral: "",
    _last_dimension: "",
    _unsqueeze: "",
    _silu: "x * sigmoid(x)",
    _square: "",
    _part: "part of a split",
    _slice: "",
    _zero_state: "",
}
