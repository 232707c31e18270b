"""ONNX compiler: a Program becomes one ONNX model that ONNX Runtime runs with the same bits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mmfree_compiler.artifact import WEIGHTS, Artifact, Build
from mmfree_compiler.backends.explained import Profile
from mmfree_compiler.backends.interface import Emitted, ProgramPass
from mmfree_compiler.backends.onnx.compile.external import embed, moved_out
from mmfree_compiler.backends.onnx.compile.model import EMITTERS, model
from mmfree_compiler.backends.onnx.compile.passes.pack_weights import PackWeights
from mmfree_compiler.backends.onnx.facts import ABI, MODEL, Facts
from mmfree_compiler.backends.onnx.file import MEMBER
from mmfree_compiler.backends.onnx.spec import Spec
from mmfree_compiler.backends.onnx.variants import VARIANTS
from mmfree_compiler.errors import TargetError
from mmfree_compiler.program import Program

# Protocol buffers end at 2 GiB; nodes and names take far less than what is left here.
MAX_EMBEDDED = (1 << 31) - (1 << 26)
MAX_TENSOR = 1 << 31  # bytes of one tensor that ONNX Runtime takes from memory


@dataclass(frozen=True)
class OnnxCompiler:
    """See interface.Compiler. Constants of more than `embedded` bytes are a file of their own.

    One of more than `largest` bytes is refused (TargetError).
    """

    embedded: int = MAX_EMBEDDED
    largest: int = MAX_TENSOR
    ops: ClassVar[frozenset[str]] = frozenset(EMITTERS)

    def passes(self, program: Program, spec: Spec) -> tuple[ProgramPass, ...]:  # noqa: ARG002 - the interface
        return (PackWeights(VARIANTS[spec.variant]),)

    def emit(self, program: Program, spec: Spec) -> Emitted:
        made = model(program, VARIANTS[spec.variant])
        for name, data in made.data.items():
            if data.nbytes > self.largest:
                cause = f"has {data.nbytes:,} bytes; ONNX Runtime takes at most {self.largest:,}"
                raise TargetError(f"constant {name}", cause, "Save the checkpoint in bfloat16")
        weights, location = np.empty(0, np.uint8), ""
        if made.stored.total() > self.embedded:
            weights, location = moved_out(made)
        else:
            embed(made)
        facts = Facts(
            variant=spec.variant,
            weights=_ternary_weights(program),
            ternary_bytes=made.stored["ternary"],
            table_bytes=made.stored["table"],
            other_bytes=made.stored["row"],
            location=location,
        )
        build = Build(name=spec.variant, abi=ABI, members={MODEL: MEMBER}, facts=facts.model_dump())
        code = made.proto.SerializeToString(deterministic=True)
        return Emitted((build,), members={WEIGHTS: weights, MEMBER: code})

    def profile(self, artifact: Artifact, threads: int | None) -> Profile:
        """See explained.Profiler."""
        from mmfree_compiler.backends.onnx.compile.profile import profile

        return profile(artifact, threads)


def _ternary_weights(program: Program) -> int:
    constants = [c for c in program.constants.values() if c.role == "ternary"]
    return sum(math.prod(c.shape) * len(c.parts) for c in constants)
