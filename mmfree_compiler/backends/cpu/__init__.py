"""CPU backend: TVM TIR -> LLVM, one library an instruction-set variant, one copy of the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace

import numpy as np

from mmfree_compiler.artifact import Artifact, MemoryPlan, Variant, pack_constants
from mmfree_compiler.backends import Backend, Details
from mmfree_compiler.backends.cpu.build import libraries
from mmfree_compiler.backends.cpu.codegen import CHUNK
from mmfree_compiler.backends.cpu.density import choose_layout
from mmfree_compiler.backends.cpu.isa import ISAS, tuned
from mmfree_compiler.backends.cpu.kernel import Kernel
from mmfree_compiler.backends.cpu.rows import ROWS
from mmfree_compiler.backends.cpu.tiles import TILES
from mmfree_compiler.backends.cpu.tuning import Tuning, find
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
    tunings = {name: find(program, name) or ISAS[name].tuning for name in target.variants}
    built = libraries(program, tensors, tunings)
    members |= {f"kernels/{name}.so": code for name, code in built.items()}
    return Artifact.build(
        members,
        variants=tuple(_variant(name, tuning) for name, tuning in tunings.items()),
        tensors=tensors,
        memory=_plan(program, tunings),
        **describe(program, target, details),
    )


def retuned(artifact: Artifact, program: Program, tuning: Tuning) -> Artifact:
    """An artifact of one variant with kernels of other settings, to run in this process.

    It shares the weights; its manifest's hashes are those of `artifact`.
    """
    manifest = artifact.manifest
    (variant,) = manifest.variants
    tunings = {variant.name: tuning}
    code = libraries(program, manifest.tensors, tunings)[variant.name]
    members = {**artifact.members, variant.member: np.frombuffer(code, np.uint8)}
    changed = {"memory": _plan(program, tunings)}
    return replace(artifact, manifest=manifest.model_copy(update=changed), members=members)


def _plan(program: Program, tunings: Mapping[str, Tuning]) -> MemoryPlan:
    """With as much scratch a thread as the hungriest variant needs."""
    isas = (tuned(name, tuning) for name, tuning in tunings.items())
    scratch = max(Kernel("prefill", program, isa, CHUNK).scratch_bytes for isa in isas)
    return MemoryPlan(**program.arenas, scratch=scratch, chunk=CHUNK)


def _variant(name: str, tuning: Tuning) -> Variant:
    return Variant(
        name=name,
        arch=VARIANTS[name].arch,
        features=tuple(sorted(VARIANTS[name].features)),
        member=f"kernels/{name}.so",
        abi=ABI,
        tuning=asdict(tuning),
    )


BACKEND = Backend("cpu", frozenset(ROWS) | frozenset(TILES), choose_layout, emit)
