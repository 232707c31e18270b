"""Giving constants the layouts that the kernels read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from mmfree_compiler.backends.cpu.compile.density import Density
from mmfree_compiler.backends.cpu.compile.packed import packed_name, reading
from mmfree_compiler.backends.cpu.compile.planned import PackedProgram
from mmfree_compiler.backends.cpu.layouts import LAYOUTS, PADDED, TAPS_FIRST, Layout
from mmfree_compiler.parallel import each
from mmfree_compiler.program import DENSE, Constant, Program


@dataclass(frozen=True)
class PackWeights:
    """Pack ternary weights, and pad all other constants with zeros to whole vectors.

    `densities` has the layout of each variant. A weight that is packed in several layouts becomes
    several constants, named by `packed_name`. The Program reads the first of them; `reading`
    returns a Program that reads another.
    """

    densities: Mapping[str, Density]
    name: ClassVar[str] = "pack_weights"

    def __call__(self, program: Program) -> PackedProgram:
        """Packs part by part, and keeps no reference to the arrays of `program`."""
        layouts = {variant: density.layout for variant, density in self.densities.items()}
        distinct = tuple(dict.fromkeys(layouts.values()))
        constants: dict[str, Constant] = {}
        for constant in program.constants.values():
            for packed in _PACK[constant.role](constant, distinct):
                constants[packed.name] = packed
        for variant, density in self.densities.items():
            program = program.noted(self.name, variant, density.reason)
        # Layouts apart in the file: Linux maps whole pieces of it around what a build reads.
        apart = sorted(constants.values(), key=lambda constant: constant.layout.name)
        fields = vars(program) | {"constants": {constant.name: constant for constant in apart}}
        return reading(PackedProgram(**fields, layouts=layouts), distinct[0])


def _ternary(constant: Constant, layouts: tuple[str, ...]) -> list[Constant]:
    return [_packed(constant, LAYOUTS[name]) for name in layouts]


def _packed(constant: Constant, layout: Layout) -> Constant:
    parts = tuple(each(layout.pack, constant.parts))  # type: ignore[arg-type]  # int8 codes
    name = packed_name(constant.name, layout.name)
    return replace(constant, name=name, dtype="uint8", parts=parts, layout=layout)


def _taps(constant: Constant, _: tuple[str, ...]) -> list[Constant]:
    parts = tuple(map(TAPS_FIRST.pack, constant.parts))
    return [replace(constant, parts=parts, layout=TAPS_FIRST)]


def _rows(constant: Constant, _: tuple[str, ...]) -> list[Constant]:
    parts = tuple(map(PADDED.pack, constant.parts))
    whole = all(part.shape == constant.shape for part in parts)
    return [replace(constant, parts=parts, layout=DENSE if whole else PADDED)]


_PACK: dict[str, Callable[[Constant, tuple[str, ...]], list[Constant]]] = {
    "ternary": _ternary,
    "taps": _taps,
    "table": _rows,
    "row": _rows,
}
