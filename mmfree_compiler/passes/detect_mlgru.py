"""The gates of the recurrence -> mmfree.mlgru_gates (numerics 7)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.fx import GraphModule, Node

from mmfree_compiler.passes.constants import constant_nodes
from mmfree_compiler.passes.pattern import (
    Bound,
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
    are_rows,
    calls,
    finish,
    insert,
    is_fp32,
    item,
    note,
    overload,
    replace,
)

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
CANDIDATE = mul(call(aten.silu.default, Var("i")), one_minus(Var("forget")))


@dataclass(frozen=True)
class DetectMLGRU:
    """Make one op of `forget` and `c = silu(i) * (1 - forget)`, which the recurrence reads."""

    name: ClassVar[str] = "detect_mlgru"

    def __call__(self, gm: GraphModule) -> GraphModule:
        constants = constant_nodes(gm.graph)
        for node in filter(is_fp32, calls(gm, [aten.mul.Tensor])):
            candidate = first(CANDIDATE, node, constants)
            if candidate is None:
                continue
            gate = first(GATE, candidate["forget"], constants)
            if gate is None or not are_rows(candidate["i"], gate["f"]):
                continue
            if _is_row(gate.get("lower_bound"), node):
                self._rewrite(gm, node, candidate, gate)
        return finish(gm)

    def _rewrite(self, gm: GraphModule, node: Node, candidate: Bound, gate: Bound) -> None:
        """Replace c by item 0, and uses of forget from here on by item 1."""
        lower = gate.get("lower_bound")
        gates = insert(node, overload("mlgru_gates"), candidate["i"], gate["f"], lower)
        replace(node, item(gates, 0))
        forget: Node = candidate["forget"]
        forget.replace_all_uses_with(item(gates, 1), delete_user_cb=lambda user: gates < user)
        note(gm, self.name, gates, "gates" if lower is None else f"gates, bound {lower.name}")


def _is_row(lower: Node | None, like: Node) -> bool:
    """Whether the lower bound is a row (I,), as wide as `like`, or absent."""
    if lower is None:
        return True
    value = lower.meta["val"]
    return isinstance(value, Tensor) and tuple(value.shape) == like.meta["val"].shape[-1:]
