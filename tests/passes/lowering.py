"""Modules after all graph passes: which ops they became, and what these compute."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from mmfree_compiler.ops import OPS
from mmfree_compiler.passes import GRAPH, left_over, run
from mmfree_compiler.trace import trace

NAMES = set(OPS)
WITH_NORM, WITHOUT_NORM = ["norm_quant", "ternary_linear"], ["quantize", "ternary_linear"]


def lowered(module: nn.Module, x: Tensor) -> GraphModule:
    return run(GRAPH, trace(module.eval(), (x,)))


def op_names(gm: GraphModule) -> list[str]:
    overloads = {op.overload: op.name for op in OPS.values()}
    return [overloads[n.target] for n in gm.graph.nodes if n.target in overloads]


def assert_same(gm: GraphModule, module: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        # fp32 sums in another order; the seed puts no activation on a .5 edge.
        torch.testing.assert_close(gm(x), module(x), rtol=1e-4, atol=1e-4)


def check(module: nn.Module, x: Tensor, expected: list[str]) -> GraphModule:
    """The lowered graph, which has the expected ops only, and computes what the module does."""
    gm = lowered(module, x)
    assert op_names(gm) == expected
    assert left_over(gm, NAMES) == []
    assert_same(gm, module, x)
    return gm
