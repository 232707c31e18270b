"""Giving ternary weights the layout that a variant's product reads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from mmfree_compiler.backends.onnx.layouts import MAX_COLUMNS
from mmfree_compiler.backends.onnx.variants import Variant
from mmfree_compiler.errors import TargetError
from mmfree_compiler.parallel import each
from mmfree_compiler.program import Constant, Program
from mmfree_compiler.wording import counted


@dataclass(frozen=True)
class PackWeights:
    """Pack ternary weights into blocks with sentinels.

    Raises TargetError on rows so long that ONNX Runtime's sums would not be exact.
    """

    variant: Variant
    name: ClassVar[str] = "pack_weights"

    def __call__(self, program: Program) -> Program:
        weights = {n: c for n, c in program.constants.items() if c.role == "ternary"}
        packed = {name: self._packed(constant) for name, constant in weights.items()}
        found = f"{counted(len(weights), 'ternary weight')} as {self.variant.layout.name}"
        changed = replace(program, constants={**program.constants, **packed})
        return changed.noted(self.name, "program", found)

    def _packed(self, constant: Constant) -> Constant:
        _, columns = constant.matrix_shape
        if columns > MAX_COLUMNS:
            cause = f"has {columns} columns; sums are exact up to {MAX_COLUMNS}"
            raise TargetError(
                f"ternary weight {constant.name}", cause, "Compile for another target"
            )
        layout = self.variant.layout
        parts = tuple(each(layout.pack, constant.parts))  # type: ignore[arg-type]  # int8 codes
        return replace(constant, dtype="uint8", parts=parts, layout=layout)
