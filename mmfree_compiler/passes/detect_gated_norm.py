"""The output gate of the recurrence, `rms_norm(g) * silu(h)` -> mmfree.gated_norm (numerics 7)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch.fx import GraphModule

from mmfree_compiler.passes.constants import constant_nodes
from mmfree_compiler.passes.pattern import Number, OneOf, Var, aten, call, first, mul
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

H = Var("h")
NORM = call(overload("rms_norm"), Var("g"), Var("weight"), Number("eps"))
SIGMOID = call(aten.sigmoid.default, H)
GATED_NORM = OneOf(
    (
        mul(NORM, call(aten.silu.default, H)),
        mul(mul(NORM, H), SIGMOID),
        mul(mul(NORM, SIGMOID), H),
    )
)
ARGUMENTS = ("g", "h", "weight", "eps")


@dataclass(frozen=True)
class DetectGatedNorm:
    """Make one op of the normalized gate times the activated state."""

    name: ClassVar[str] = "detect_gated_norm"

    def __call__(self, gm: GraphModule) -> GraphModule:
        constants = constant_nodes(gm.graph)
        for node in filter(is_fp32, calls(gm, [aten.mul.Tensor])):
            bound = first(GATED_NORM, node, constants)
            if bound is not None and are_rows(bound["g"], bound["h"]):
                arguments = [bound[name] for name in ARGUMENTS]
                new = insert(node, overload("gated_norm"), *arguments)
                replace(node, new)
                note(gm, self.name, new, "rms_norm(g) * silu(h)")
        return finish(gm)
