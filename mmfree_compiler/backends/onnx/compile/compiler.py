"""ONNX compiler: a Program becomes one ONNX model that ONNX Runtime runs with the same bits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mmfree_compiler.artifact import WEIGHTS, Build
from mmfree_compiler.backends.interface import Emitted, ProgramPass
from mmfree_compiler.backends.onnx.compile.external import moved_out
from mmfree_compiler.backends.onnx.compile.model import EMITTERS, model
from mmfree_compiler.backends.onnx.compile.passes.pack_weights import PackWeights
from mmfree_compiler.backends.onnx.facts import ABI, MODEL, Facts
from mmfree_compiler.backends.onnx.file import MEMBER
from mmfree_compiler.backends.onnx.spec import Spec
from mmfree_compiler.backends.onnx.variants import VARIANTS
from mmfree_compiler.program import Program

# Protocol buffers end at 2 GiB; nodes and names take far less than what is left here.
MAX_EMBEDDED = (1 << 31) - (1 << 26)


@dataclass(frozen=True)
class OnnxCompiler:
    """See interface.Compiler. Constants of more than `embedded` bytes are a file of their own."""

    embedded: int = MAX_EMBEDDED
    ops: ClassVar[frozenset[str]] = frozenset(EMITTERS)

    def passes(self, program: Program, spec: Spec) -> tuple[ProgramPass, ...]:  # noqa: ARG002 - the interface
        return (PackWeights(VARIANTS[spec.variant]),)

    def emit(self, program: Program, spec: Spec) -> Emitted:
        made, stored = model(program, VARIANTS[spec.variant])
        weights, location = np.empty(0, np.uint8), ""
        if stored.total() > self.embedded:
            weights, location = moved_out(made)
        facts = Facts(
            variant=spec.variant,
            weights=_ternary_weights(program),
            ternary_bytes=stored["ternary"],
            table_bytes=stored["table"],
            other_bytes=stored["row"],
            location=location,
        )
        build = Build(name=spec.variant, abi=ABI, members={MODEL: MEMBER}, facts=facts.model_dump())
        code = made.SerializeToString(deterministic=True)
        return Emitted((build,), members={WEIGHTS: weights, MEMBER: code})


def _ternary_weights(program: Program) -> int:
    constants = [c for c in program.constants.values() if c.role == "ternary"]
    return sum(math.prod(c.shape) * len(c.parts) for c in constants)
