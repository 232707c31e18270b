"""The gates around the recurrence -> mmfree.mlgru_gates and mmfree.gated_norm (numerics 7)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.fx import GraphModule, Node

from mmfree_compiler.passes.constants import constant_nodes
from mmfree_compiler.passes.pattern import (
    Bound,
    Call,
    Number,
    OneOf,
    Var,
    add,
    aten,
    call,
    first,
    mul,
    one_minus,
)
from mmfree_compiler.passes.rewrite import (
    calls,
    finish,
    insert,
    is_fp32,
    item,
    note,
    overload,
    replace,
)

H, FORGET = Var("h"), Var("forget")
LOWER = Var("lower_bound", constant=True)
SIGMOID = call(aten.sigmoid.default, Var("f"))

# forget = LB + (1 - LB) * sigmoid(f), or without a bound sigmoid(f) alone.
GATE = OneOf(
    (
        add(LOWER, mul(one_minus(LOWER), SIGMOID)),
        add(SIGMOID, mul(LOWER, one_minus(SIGMOID))),
        SIGMOID,
    )
)
# c = silu(i) * (1 - forget)
CANDIDATE = mul(call(aten.silu.default, Var("i")), one_minus(FORGET))

NORM: Call = call(overload("rms_norm"), Var("g"), Var("weight"), Number("eps"))
SIGMOID_H = call(aten.sigmoid.default, H)
GATED_NORM = OneOf(
    (
        mul(NORM, call(aten.silu.default, H)),
        mul(mul(NORM, H), SIGMOID_H),
        mul(mul(NORM, SIGMOID_H), H),
    )
)


@dataclass(frozen=True)
class DetectMLGRU:
    """The scan is in the graph already; what feeds it and what reads it becomes one op each."""

    name: str = "detect_mlgru"

    def __call__(self, gm: GraphModule) -> GraphModule:
        constants = constant_nodes(gm.graph)
        for node in filter(is_fp32, calls(gm, [aten.mul.Tensor])):
            candidate = first(CANDIDATE, node, constants)
            gate = candidate and first(GATE, candidate["forget"], constants)
            if candidate and gate and _is_row(gate, node):
                self._gates(gm, node, candidate, gate)
                continue
            bound = first(GATED_NORM, node, constants)
            if bound:
                new = insert(node, overload("gated_norm"), *(bound[k] for k in _GATED_ARGUMENTS))
                replace(node, new)
                note(gm, self.name, new, "rms_norm(g) * silu(h)")
        return finish(gm)

    def _gates(self, gm: GraphModule, node: Node, candidate: Bound, gate: Bound) -> None:
        """Replace c by item 0, and what reads forget from here on by item 1."""
        lower = gate.get("lower_bound")
        gates = insert(node, overload("mlgru_gates"), candidate["i"], gate["f"], lower)
        replace(node, item(gates, 0))
        forget: Node = candidate["forget"]
        forget.replace_all_uses_with(item(gates, 1), delete_user_cb=lambda user: gates < user)
        note(gm, self.name, gates, "gates" if lower is None else f"gates, bound {lower.name}")


_GATED_ARGUMENTS = ("g", "h", "weight", "eps")


def _is_row(gate: Bound, like: Node) -> bool:
    """Whether the lower bound, if there is one, is a row (I,)."""
    lower = gate.get("lower_bound")
    if lower is None:
        return True
    value = lower.meta["val"]
    return isinstance(value, Tensor) and tuple(value.shape) == like.meta["val"].shape[-1:]
