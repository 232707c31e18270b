"""Give constants the layout that a target's kernels read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from mmfree_compiler.layouts import LAYOUTS
from mmfree_compiler.parallel import each
from mmfree_compiler.program import TABLE, VECTOR, Array, Constant, Program, round_up


@dataclass(frozen=True)
class PackWeights:
    """Ternary weights become `layout`; other rows are padded with zeros to whole vectors."""

    layout: str
    name = "pack_weights"

    def __call__(self, program: Program) -> Program:
        """Packs part by part; the arrays of the program that comes in are not kept."""
        packers: dict[str, Callable[[Constant], Constant]] = {}
        for node in program.nodes():
            if node.op == "ternary_linear":
                packers[_name(node.inputs[2])] = self._ternary
            if node.op == "short_conv":
                packers[_name(node.inputs[1])] = _taps_first
            if node.op == "embedding":
                packers[_name(node.inputs[1])] = _table
        constants = {
            name: packers.get(name, _padded)(constant)
            for name, constant in program.constants.items()
        }
        return replace(program, constants=constants)

    def _ternary(self, constant: Constant) -> Constant:
        pack = LAYOUTS[self.layout].pack
        parts = tuple(each(pack, constant.parts))  # type: ignore[arg-type]  # int8 codes
        return replace(constant, dtype="uint8", parts=parts, layout=self.layout)


def _name(operand: str | None) -> str:
    assert operand is not None
    return operand


def _padded(constant: Constant) -> Constant:
    layout = "dense" if constant.shape[-1] % VECTOR == 0 else "padded"
    parts = tuple(_pad_rows(part) for part in constant.parts)
    return replace(constant, parts=parts, layout=layout)


def _taps_first(constant: Constant) -> Constant:
    """A convolution's (D, k) as k rows of D: a vector then holds one tap of 16 channels."""
    parts = tuple(part.T for part in constant.parts)
    return _padded(replace(constant, shape=constant.shape[::-1], parts=parts))


def _table(constant: Constant) -> Constant:
    return replace(_padded(constant), layout=TABLE)


def _pad_rows(array: Array) -> Array:
    width = array.shape[-1]
    padding = [(0, 0)] * (array.ndim - 1) + [(0, round_up(width, VECTOR) - width)]
    return np.pad(array, padding) if padding[-1][1] else np.ascontiguousarray(array)
