"""`silu(gate) * up` -> mmfree.swiglu."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch.fx import GraphModule

from mmfree_compiler.passes.constants import constant_nodes
from mmfree_compiler.passes.pattern import Var, aten, call, first, mul
from mmfree_compiler.passes.rewrite import (
    are_rows,
    calls,
    finish,
    insert,
    is_fp32,
    note,
    overload,
    replace,
)

SWIGLU = mul(call(aten.silu.default, Var("gate")), Var("up"))


@dataclass(frozen=True)
class DetectGLU:
    """Make one op of the gated unit `silu(gate) * up` (numerics 8).

    Runs after detect_mlgru and detect_gated_norm, whose rules are special cases of this one.
    """

    name: ClassVar[str] = "detect_glu"

    def __call__(self, gm: GraphModule) -> GraphModule:
        constants = constant_nodes(gm.graph)
        for node in calls(gm, [aten.mul.Tensor]):
            bound = first(SWIGLU, node, constants)
            if bound is None or node in constants or not is_fp32(node):
                continue
            if are_rows(bound["gate"], bound["up"]):
                new = insert(node, overload("swiglu"), bound["gate"], bound["up"])
                replace(node, new)
                note(gm, self.name, new, "silu(gate) * up")
        return finish(gm)
