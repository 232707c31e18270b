"""Packing ternary weights as the kernels read them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from mmfree_compiler.backends.cuda.layouts import QUARTERS
from mmfree_compiler.parallel import each
from mmfree_compiler.program import Constant, Program
from mmfree_compiler.wording import counted


@dataclass(frozen=True)
class PackWeights:
    """Pack ternary weights as the kernels read them; all other constants stay as they are."""

    name: ClassVar[str] = "pack_weights"

    def __call__(self, program: Program) -> Program:
        """Packs part by part, and keeps no reference to the weights of `program`."""
        constants = {name: _packed(constant) for name, constant in program.constants.items()}
        count = sum(constant.role == "ternary" for constant in constants.values())
        found = f"{counted(count, 'weight')} of 2 bits"
        return replace(program, constants=constants).noted(self.name, "program", found)


def _packed(constant: Constant) -> Constant:
    if constant.role != "ternary":
        return constant
    parts = tuple(each(QUARTERS.pack, constant.parts))  # type: ignore[arg-type]  # int8 codes
    return replace(constant, dtype="uint8", parts=parts, layout=QUARTERS)
