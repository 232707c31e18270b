"""Norms and the quantizers that read them -> mmfree.norm_quant, one op per row that they share."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import ClassVar

from torch.fx import GraphModule, Node

from mmfree_compiler.passes.rewrite import calls, finish, insert, item, note, overload, replace
from mmfree_compiler.wording import counted


@dataclass(frozen=True)
class Branch:
    """quantize(rms_norm(row, weight, eps), quant_eps)."""

    quantize: Node
    norm: Node

    @property
    def group(self) -> tuple[Node, float, float]:
        """What the branches of one norm_quant have in common: the row and both eps."""
        row, _, eps = self.norm.args
        quant_eps = self.quantize.args[1]
        assert isinstance(row, Node)
        assert isinstance(eps, float)
        assert isinstance(quant_eps, float)
        return row, eps, quant_eps


@dataclass(frozen=True)
class FuseNormQuant:
    """Make one op of the norms and quantizers that read one row, such as those of i, f and g.

    One reduction serves all of them (numerics 5). The outer norm is fused too when only the
    branches read it.
    """

    name: ClassVar[str] = "fuse_norm_quant"

    def __call__(self, gm: GraphModule) -> GraphModule:
        groups: dict[tuple[Node, float, float], list[Branch]] = defaultdict(list)
        for node in calls(gm, [overload("quantize")]):
            norm = node.args[0]
            if isinstance(norm, Node) and norm.target is overload("rms_norm"):
                branch = Branch(node, norm)
                groups[branch.group].append(branch)
        for (row, eps, quant_eps), branches in groups.items():
            self._fuse(gm, row, eps, quant_eps, branches)
        return finish(gm)

    def _fuse(
        self, gm: GraphModule, row: Node, eps: float, quant_eps: float, branches: list[Branch]
    ) -> None:
        x, outer, outer_eps = _outer(row, branches)
        weights = [branch.norm.args[1] for branch in branches]
        first = min(branch.quantize for branch in branches)
        fused = insert(first, overload("norm_quant"), x, outer, outer_eps, weights, eps, quant_eps)
        for k, branch in enumerate(branches):  # items 2k and 2k + 1 are its codes and scale
            for user in list(branch.quantize.users):
                index = user.args[1]
                assert isinstance(index, int)
                replace(user, item(fused, 2 * k + index))
        note(gm, self.name, fused, f"{counted(len(branches), 'row')} of codes, one reduction")


def _outer(row: Node, branches: list[Branch]) -> tuple[Node, Node | None, float]:
    """The fused op's row, with the outer norm's weight and eps; no weight if it is not fused."""
    norms = {branch.norm for branch in branches}
    quantizers = {branch.quantize for branch in branches}
    only_quantized = all(quantizers.issuperset(norm.users) for norm in norms)
    if row.target is not overload("rms_norm") or set(row.users) != norms or not only_quantized:
        return row, None, 0.0
    x, weight, eps = row.args
    assert isinstance(x, Node)
    assert isinstance(weight, Node)
    assert isinstance(eps, float)
    return x, weight, eps
