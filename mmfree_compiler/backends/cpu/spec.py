"""The options of a cpu target: names of variants, and "density=BITS"."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mmfree_compiler.backends.cpu.layouts import LAYOUTS
from mmfree_compiler.backends.cpu.variants import VARIANTS, usual_variants
from mmfree_compiler.errors import TargetError

DENSITIES = {f"{layout.bits:g}": layout.name for layout in LAYOUTS.values()}
AUTO = "auto"


@dataclass(frozen=True)
class Spec:
    """The instruction-set variants to compile for, in order of preference.

    `density` is the number of bits per ternary weight, a key of DENSITIES, or "auto" for the
    fastest one of each variant (density.py).
    """

    variants: tuple[str, ...]
    density: str = AUTO

    def __str__(self) -> str:
        variants = () if self.variants == usual_variants() else self.variants
        density = () if self.density == AUTO else (f"density={self.density}",)
        return ",".join((*variants, *density))


def parse(options: str) -> Spec:
    """Parse "x86-64-v3,portable,density=2"; without variants, the usual ones for this machine.

    Raises a TargetError that lists the known words on an unknown one.
    """
    words = dict.fromkeys(options.split(",")) if options else {}  # each once, in order
    if "" in words or "density" in words:
        cause = "has an empty option" if "" in words else "density needs a value"
        raise TargetError(f"target 'cpu:{options}'", cause, "Write cpu:portable,density=2")
    variants = tuple(word for word in words if "=" not in word)
    assignments = [word.split("=", 1) for word in words if "=" in word]
    _check(options, "variant", variants, VARIANTS)
    _check(options, "option", [name for name, _ in assignments], ("density",))
    _check(options, "density", [value for _, value in assignments], (AUTO, *DENSITIES))
    if len(assignments) > 1:
        raise TargetError(f"target 'cpu:{options}'", "names several densities", "Name one")
    density = assignments[0][1] if assignments else AUTO
    return Spec(variants or usual_variants(), density)


def _check(options: str, kind: str, found: Iterable[str], known: Iterable[str]) -> None:
    listed = tuple(known)
    unknown = [word for word in found if word not in listed]
    if unknown:
        cause = f"unknown {kind} {', '.join(unknown)!r}"
        raise TargetError(f"target 'cpu:{options}'", cause, f"Known: {', '.join(listed)}")
