"""The options of an ONNX target: the name of a variant."""

from __future__ import annotations

from dataclasses import dataclass

from mmfree_compiler.backends.onnx.variants import STANDARD, VARIANTS
from mmfree_compiler.errors import TargetError


@dataclass(frozen=True)
class Spec:
    """The variant to make."""

    variant: str = STANDARD

    def __str__(self) -> str:
        return "" if self.variant == STANDARD else self.variant


def parse(options: str) -> Spec:
    """Parse "" or the name of a variant. Raises a TargetError that lists them."""
    if options and options not in VARIANTS:
        cause = f"unknown variant {options!r}"
        raise TargetError(f"target 'onnx:{options}'", cause, f"Known: {', '.join(VARIANTS)}")
    return Spec(options or STANDARD)
