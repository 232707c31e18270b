"""What bounds any program on this machine's CPUs, by a program that is one ternary product."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmfree_compiler.artifact import aligned_empty, pack_constants
from mmfree_compiler.backends.cpu.compile.bench import ROUNDS, Bench, Tensors
from mmfree_compiler.backends.cpu.compile.build import Recipe
from mmfree_compiler.backends.cpu.compile.isa import ISAS
from mmfree_compiler.backends.cpu.compile.planned import PlannedProgram
from mmfree_compiler.backends.cpu.facts import MemoryPlan
from mmfree_compiler.backends.cpu.run.states import CpuStates
from mmfree_compiler.backends.cpu.strides import float_stride
from mmfree_compiler.backends.explained import Rates
from mmfree_compiler.program import Constant, Node, Program, Stage, Value

_ROWS, _COLUMNS = 256, 1024
_CODES, _SCALE, _WEIGHT, _FACTOR = "codes", "scale", "weight", "factor"

PRODUCT = Program(
    kind="module",
    inputs=("x",),
    outputs=("y",),
    values={
        "x": Value("x", _COLUMNS),
        _CODES: Value(_CODES, _COLUMNS, "int8"),
        _SCALE: Value(_SCALE, 1),
        "y": Value("y", _ROWS),
    },
    constants={
        _WEIGHT: Constant(
            _WEIGHT,
            "int8",
            (_ROWS, _COLUMNS),
            (np.ones((_ROWS, _COLUMNS), np.int8),),
            "ternary",
        ),
        _FACTOR: Constant(_FACTOR, "float32", (1,), (np.ones(1, np.float32),)),
    },
    states=(),
    body=(
        Stage(
            (Node("quantize", ("x",), (_CODES, _SCALE), {"quant_eps": 1e-5}),),
            (Node("ternary_linear", (_CODES, _SCALE, _WEIGHT, _FACTOR, None), ("y",)),),
        ),
    ),
)


def gauge(program: Program, variant: str, nbytes: int, threads: int) -> Rates:
    """See explained.Gauge. `program` is PRODUCT after the passes for `variant`."""
    assert isinstance(program, PlannedProgram)
    packed, tensors = pack_constants(program.constants.values())
    weights = aligned_empty(max(nbytes, packed.size), np.uint8)
    weights[:] = 0  # written, so that each page has memory of its own
    weights[: packed.size] = packed
    recipe = Recipe(program.layouts[variant], ISAS[variant].tuning)
    rows = [weights, *_rows()]
    memory = MemoryPlan(**program.arenas)
    stretched = _stretched(tensors, weights.size)
    bench = Bench.of(program, stretched, (variant, recipe), rows, memory, threads)
    return bench.rates(bench.seconds() for _ in range(ROUNDS))


def _stretched(tensors: Tensors, end: int) -> Tensors:
    """With the weight up to `end`, as if all that is read were it."""
    return {
        name: t.model_copy(update={"nbytes": end - t.offset}) if t.role == "ternary" else t
        for name, t in tensors.items()
    }


def _rows() -> list[NDArray[Any]]:
    """Rows of the input and the output, the slot and the state of one token."""
    x, y = (np.ones(float_stride(width), np.float32) for width in (_COLUMNS, _ROWS))
    return [x, y, np.zeros(1, np.int32), CpuStates.zero((), 1).array]
