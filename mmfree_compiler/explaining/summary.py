"""An explanation in one sentence."""

from __future__ import annotations

from collections.abc import Iterator

from mmfree_compiler.explaining.schema import Audit, Coverage, TargetPart
from mmfree_compiler.wording import counted, few


def summary(
    targets: tuple[TargetPart, ...], coverage: tuple[Coverage, ...], audit: Audit | None
) -> str:
    """What the compiler made of a model: loops, ternary products, what is left in floats."""
    return "; ".join(_parts(targets, coverage, audit))


def _parts(
    targets: tuple[TargetPart, ...], coverage: tuple[Coverage, ...], audit: Audit | None
) -> Iterator[str]:
    program = targets[0].program if targets else None
    for loop in program.loops if program else ():
        yield f"{loop.count} equal layers became one loop of {counted(len(loop.stages), 'stage')}"
    products = sum(row.count for row in coverage if row.op == "ternary_linear")
    if products:
        bits = targets[0].bits_per_weight if targets else None
        at = f" at {bits:.2g} bits per weight" if bits else ""
        yield f"{counted(products, 'ternary product')}{at}"
    if audit is not None:
        yield audited(audit)


def audited(audit: Audit) -> str:
    """The result of an audit."""
    if not audit.products:
        return "no product of float matrices is left"
    names = [product.op for product in audit.products]
    left = counted(len(names), "product")
    return f"{left} of float matrices left: {few(list(dict.fromkeys(names)))}"
