"""No instruction of any variant rounds a product and a sum at once: results would depend on it."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

import pytest
import torch
from op_modules import SmallLM, distinct
from special_values import Pointwise, Rows
from torch import Tensor, nn

import mmfree_compiler as mmf
from mmfree_compiler.artifact import TensorEntry
from mmfree_compiler.backends.cpu.compile import compiler
from mmfree_compiler.backends.cpu.compile.build import Job, Recipe
from mmfree_compiler.backends.cpu.compile.codegen import compiled
from mmfree_compiler.backends.cpu.compile.isa import ISAS
from mmfree_compiler.backends.cpu.compile.planned import PlannedProgram

WIDTH = 37
# "portable" has no such instruction: its target is x86-64 without FMA.
WITH_ALL_OPS = {*distinct(ISAS)} - {"portable"}
TARGET = f"cpu:{','.join(ISAS)}"
# x86: vfmadd231ps, vfmsub132ss, vfnmadd..., vfmaddsub...; aarch64: fmla, fmls, fmadd, fnmsub, ...
FUSED = re.compile(r"^\s*(vfn?m(add|sub)\w*|fml[as]\w*|fn?m(add|sub)\w*)\b", re.MULTILINE)


class Everything(nn.Module):
    """Every pointwise op and every op of rows."""

    def __init__(self) -> None:
        super().__init__()
        self.pointwise, self.rows = Pointwise(), Rows(WIDTH)

    def forward(self, x: Tensor, y: Tensor) -> list[Tensor]:
        return [*self.pointwise(x, y), *self.rows(x, y)]


EXAMPLES: dict[Callable[[], nn.Module], tuple[Tensor, ...]] = {
    SmallLM: (torch.zeros(2, 3, dtype=torch.int64),),
    Everything: (torch.ones(2, WIDTH), torch.ones(2, WIDTH)),
}


@cache
def job(model: Callable[[], nn.Module]) -> Job:
    """What compiling the model for all variants gives to the code generator."""
    found: list[Job] = []

    def take(
        program: PlannedProgram, tensors: dict[str, TensorEntry], recipes: dict[str, Recipe]
    ) -> dict[str, bytes]:
        found.append(Job.of(program, tensors, recipes))
        return dict.fromkeys(recipes, b"")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiler, "libraries", take)
        mmf.compile(model(), TARGET, example_inputs=EXAMPLES[model], check=False)
    return found[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", ISAS)
def test_nothing_is_fused(name: str) -> None:
    """In products, and in all else."""
    for model in [SmallLM, Everything] if name in WITH_ALL_OPS else [SmallLM]:
        made = job(model)
        assembly = compiled(made.read_by(name), ISAS[name], made.tensors).mod.inspect_source("asm")
        assert "mul" in assembly
        found = sorted({match.group(1) for match in FUSED.finditer(assembly)})
        assert not found
