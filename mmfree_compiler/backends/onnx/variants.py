"""Variants of the ONNX target: which operators a model is made of."""

from __future__ import annotations

from dataclasses import dataclass

from mmfree_compiler.backends.onnx.layouts import INT2_COLUMNS, NBITS_ROWS, BlockLayout


@dataclass(frozen=True)
class Variant:
    """`opset` of the standard operators, `ir_version` of the file; `layout` of ternary weights.

    `domains` are other sets of operators, with their versions.
    """

    name: str
    opset: int
    ir_version: int
    layout: BlockLayout
    domains: tuple[tuple[str, int], ...] = ()


STANDARD, MS = "standard", "ms"
VARIANTS = {
    variant.name: variant
    for variant in (
        # INT2 came with opset 25, BitCast with 26.
        Variant(STANDARD, 26, 13, INT2_COLUMNS),
        Variant(MS, 21, 10, NBITS_ROWS, (("com.microsoft", 1),)),
    )
}
