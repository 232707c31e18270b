"""The options of a cuda target: names of architectures."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from mmfree_compiler.backends.cuda.archs import ARCHS
from mmfree_compiler.backends.cuda.bindings import device_module
from mmfree_compiler.backends.cuda.choose import fitting
from mmfree_compiler.errors import TargetError


@dataclass(frozen=True)
class Spec:
    """The architectures to compile for."""

    archs: tuple[str, ...]

    def __str__(self) -> str:
        return "" if self.archs == _usual() else ",".join(self.archs)


def parse(options: str) -> Spec:
    """Parse "sm_90,sm_80"; "" is the first GPU of this machine, or all architectures without one.

    Raises a TargetError that lists them on an unknown one.
    """
    archs = tuple(dict.fromkeys(options.split(","))) if options else _usual()
    unknown = [name for name in archs if name not in ARCHS]
    if unknown:
        cause = f"unknown architecture {', '.join(unknown)!r}"
        raise TargetError(f"target 'cuda:{options}'", cause, f"Known: {', '.join(ARCHS)}")
    return Spec(archs)


def here() -> Spec:
    """The architecture of this machine's first GPU. Raises TargetError if there is none."""
    first = device_module().devices()[0]
    arch = fitting(ARCHS.values(), first.capability)
    if arch is None:
        cause = "is of no architecture that kernels are compiled for"
        raise TargetError(f"GPU {first.index} ({first.name})", cause, f"Known: {', '.join(ARCHS)}")
    return Spec((arch.name,))


@cache
def _usual() -> tuple[str, ...]:
    try:
        return here().archs
    except TargetError:
        return tuple(ARCHS)
