"""Settings of the kernels, which change their speed but not their results.

They are those of shapes.Sizes. `mmfree tune` (tune.py) finds the best ones for a model's shapes
on a GPU by trying; `compile` uses those found on this machine's GPU for the same shapes, or else
the sizes of the table.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from mmfree_compiler.backends.cuda.archs import ARCHS
from mmfree_compiler.backends.cuda.bindings import device_module
from mmfree_compiler.backends.cuda.choose import fitting
from mmfree_compiler.backends.cuda.compile.shapes import PlanShape, Shape, Sizes, sizes_of
from mmfree_compiler.backends.cuda.layouts import ROWS
from mmfree_compiler.backends.interface import Settings
from mmfree_compiler.building import cache
from mmfree_compiler.errors import TargetError
from mmfree_compiler.program import Program

# What a search varies: a field of Sizes, or the function of a shape of `gemm` -> fields of the
# shape -> the least and the largest value. `columns` of a fused part are programs.
VARIED: Mapping[str, Mapping[str, tuple[int, int]]] = {
    "scan": {"columns": (16, ROWS), "warps": (1, 16), "stages": (2, 8), "block_tokens": (8, 64)},
    "fused": {"columns": (32, 512), "warps": (4, 16)},
    "gemv": {"warps": (1, 16)},
    "gemm": {"warps": (1, 16)},
    "wgmma": {"stages": (2, 8)},
}
PROGRAMS, FEWEST = "fewest programs", (30, 480)


def candidates(arch: str) -> dict[str, tuple[int, ...]]:
    """Setting -> the values that a search tries: that of the table, half, and twice of it."""
    return {
        name: tuple(x for x in (value // 2, value, 2 * value) if x == value or least <= x <= most)
        for name, value, (least, most) in _settings(sizes_of(ARCHS[arch]))
    }


def defaults(arch: str) -> Settings:
    """Setting -> the value of the table."""
    return {name: value for name, value, _ in _settings(sizes_of(ARCHS[arch]))}


def plans(table: Iterable[PlanShape], arch: str, settings: Settings) -> tuple[PlanShape, ...]:
    """A table with the sizes of an architecture and of settings."""
    sizes = _sized(sizes_of(ARCHS[arch]), settings)
    return tuple(replace(plan, sizes=sizes) for plan in table)


def _settings(sizes: Sizes) -> Iterator[tuple[str, int, tuple[int, int]]]:
    """The name, the value and the range of each setting."""
    yield PROGRAMS, sizes.fewest_programs, FEWEST
    for part in _PARTS:
        for shape in _shapes(sizes, part):
            for field, ends in VARIED[_kind(part, shape)].items():
                yield _name(part, shape, field), getattr(shape, field), ends


def _sized(sizes: Sizes, settings: Settings) -> Sizes:
    made: dict[str, Any] = {"fewest_programs": settings[PROGRAMS]}
    for part in _PARTS:
        shapes = tuple(_set(part, shape, settings) for shape in _shapes(sizes, part))
        made[part] = shapes if isinstance(getattr(sizes, part), tuple) else shapes[0]
    return replace(sizes, **made)


def _set(part: str, shape: Shape, settings: Settings) -> Shape:
    fields = VARIED[_kind(part, shape)]
    given: dict[str, Any] = {field: settings[_name(part, shape, field)] for field in fields}
    return replace(shape, **given)


_PARTS = ("scan", "fused", "gemv", "gemm")


def _shapes(sizes: Sizes, part: str) -> tuple[Shape, ...]:
    found: Shape | tuple[Shape, ...] = getattr(sizes, part)
    return found if isinstance(found, tuple) else (found,)


def _kind(part: str, shape: Shape) -> str:
    return shape.function if part == "gemm" else part


def _name(part: str, shape: Shape, field: str) -> str:
    """Such as "gemm64x128 warps", or "scan columns" where there is one shape."""
    return f"{_kind(part, shape)}{shape.name if part == 'gemm' else ''} {field}"


# --- kept for this machine -----------------------------------------------------------------------


def find(program: Program, arch: str) -> Settings:
    """The settings that `keep` stored for this machine's GPU of an architecture, or the defaults.

    Those of an earlier table are left out.
    """
    known = candidates(arch)
    with suppress(TargetError, ValueError, RecursionError):  # no GPU; not JSON
        found = json.loads(cache.load(_key(program, arch)) or b"")
        same = isinstance(found, dict) and found.keys() == known.keys()
        if same and all(found[name] in known[name] for name in known):
            return {name: int(value) for name, value in found.items()}
    return defaults(arch)


def keep(program: Program, arch: str, settings: Settings) -> None:
    """Store settings for compilations of the same shapes on this machine.

    Raises TargetError if it has no GPU of the architecture, ToolchainError if the cache cannot
    store them.
    """
    cache.keep(_key(program, arch), json.dumps(dict(settings)).encode(), "the settings")


def _key(program: Program, arch: str) -> str:
    """The key for the GPU, the architecture, and the shapes of the weights."""
    weights = [node.inputs[2] for node in program.nodes() if node.op == "ternary_linear"]
    found = [program.constants[name] for name in weights if name]
    shapes = Counter((c.shape, len(c.parts)) for c in found)
    return cache.key("tuning", _gpu(arch), arch, sorted(shapes.items()))


def _gpu(arch: str) -> str:
    """The name of this machine's first GPU of an architecture. Raises TargetError without one."""
    for info in device_module().devices():
        fits = fitting(ARCHS.values(), info.capability)
        if fits is not None and fits.name == arch:
            return str(info.name)
    raise TargetError("this machine", f"has no GPU of {arch}", "Tune on the machine that has it")
