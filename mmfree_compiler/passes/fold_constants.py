"""Subgraphs of parameters only become buffers: lower bounds, widened norm weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from mmfree_compiler.origin import place_of
from mmfree_compiler.passes.constants import (
    ancestors,
    attribute,
    constant_nodes,
    evaluate_all,
)
from mmfree_compiler.passes.rewrite import constant, finish, note, replace

NARROW = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class FoldConstants:
    """Evaluate what no input reaches, up to `max_elements` per tensor; larger ones stay as stored.

    Vectors (norm weights, biases) of a narrow type are widened to fp32 where fp32 ops read them.
    """

    name: ClassVar[str] = "fold_constants"
    max_elements: int = 1 << 22

    def __call__(self, gm: GraphModule) -> GraphModule:
        constants = constant_nodes(gm.graph)
        wanted = [node for node in gm.graph.nodes if self._is_wanted(node, constants)]
        # All at once: the lower bounds of all layers share most of one expression.
        for node, value in zip(wanted, evaluate_all(gm, wanted), strict=True):
            tensor = _widened(value, node).contiguous().clone()
            stem = str(node.target) if node.op == "get_attr" else node.name
            folded = constant(gm, stem, tensor)
            folded.meta["parameters"] = _parameters(gm, node, value)
            replace(node, folded)
            note(gm, self.name, folded, f"constant {tuple(tensor.shape)}")
        return finish(gm)

    def _is_wanted(self, node: Node, constants: set[Node]) -> bool:
        value = node.meta.get("val")
        if node not in constants or not isinstance(value, Tensor):
            return False
        if value.numel() > self.max_elements:
            return False
        if constants.issuperset(node.users):
            return False  # evaluated as a part of a larger constant
        if node.op == "get_attr":
            return value.dim() == 1 and value.dtype in NARROW
        return True


def _parameters(gm: GraphModule, node: Node, value: Tensor) -> str:
    """A constant in words: the parameters that make it NaN or infinite, or its line in the code."""
    sources = [source for source in ancestors(node) if source.op == "get_attr"]
    bad = [] if value.isfinite().all() else [x for x in sources if _is_bad(attribute(gm, x))]
    if bad or node.op == "get_attr":
        return ", ".join(str(source.target) for source in bad or sources)
    names = ", ".join(str(source.target) for source in sources)
    return f"a constant computed from {names or 'numbers'} at {place_of(node)}"


def _is_bad(parameter: Tensor) -> bool:
    return not bool(parameter.isfinite().all())


def _widened(value: Tensor, node: Node) -> Tensor:
    """The constant in fp32, which is exact, unless an op computes in its narrow type."""
    results = [user.meta.get("val") for user in node.users]
    narrow = any(isinstance(x, Tensor) and x.dtype in NARROW for x in results)
    return value if narrow or value.dtype not in NARROW else value.float()
