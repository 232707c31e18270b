"""CPU backend: TVM TIR -> LLVM, one library an instruction-set variant, one copy of the weights."""

from __future__ import annotations

from mmfree_compiler.artifact import Artifact, MemoryPlan, Variant, pack_constants
from mmfree_compiler.backends import Backend, Details
from mmfree_compiler.backends.cpu.build import libraries
from mmfree_compiler.backends.cpu.codegen import CHUNK
from mmfree_compiler.backends.cpu.density import choose_layout
from mmfree_compiler.backends.cpu.isa import ISAS
from mmfree_compiler.backends.cpu.kernel import Kernel
from mmfree_compiler.backends.cpu.rows import ROWS
from mmfree_compiler.backends.cpu.tiles import TILES
from mmfree_compiler.backends.describe import describe
from mmfree_compiler.layouts import Bytes
from mmfree_compiler.program import Program
from mmfree_compiler.runtime.cpu import ABI
from mmfree_compiler.runtime.cpu_features import VARIANTS
from mmfree_compiler.target import Target


def emit(program: Program, target: Target, details: Details) -> Artifact:
    """Compile every variant of `target` for a packed and planned program."""
    weights, tensors = pack_constants(program.constants.values())
    members: dict[str, bytes | Bytes] = {"weights.bin": weights}
    if details.tokenizer is not None:
        members["tokenizer.json"] = details.tokenizer
    built = libraries(program, tensors, target.variants)
    members |= {f"kernels/{name}.so": code for name, code in built.items()}
    return Artifact.build(
        members,
        variants=tuple(_variant(name) for name in target.variants),
        tensors=tensors,
        memory=MemoryPlan(**program.arenas, scratch=_scratch(program, target), chunk=CHUNK),
        **describe(program, target, details),
    )


def _scratch(program: Program, target: Target) -> int:
    """Bytes a thread that the hungriest variant needs."""
    kernels = (Kernel("prefill", program, ISAS[name], CHUNK) for name in target.variants)
    return max(kernel.scratch_bytes for kernel in kernels)


def _variant(name: str) -> Variant:
    return Variant(
        name=name,
        arch=VARIANTS[name].arch,
        features=tuple(sorted(VARIANTS[name].features)),
        member=f"kernels/{name}.so",
        abi=ABI,
    )


BACKEND = Backend("cpu", frozenset(ROWS) | frozenset(TILES), choose_layout, emit)
