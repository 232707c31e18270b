"""The cycle model's figures of compiled models, and of shapes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mmfree_compiler.artifact import Artifact
from mmfree_compiler.backends.fpga.facts import read_facts
from mmfree_compiler.backends.fpga.isa.encoding import decode_program
from mmfree_compiler.backends.fpga.layouts import Trits
from mmfree_compiler.backends.fpga.spec import Spec
from mmfree_compiler.backends.fpga.strides import LINE
from mmfree_compiler.backends.fpga.timing.projection import Model, project
from mmfree_compiler.backends.projection import Projection
from mmfree_compiler.program import Constant, Program


def project_artifact(artifact: Artifact) -> Projection:
    """See projection.Projector.project."""
    build = artifact.entry.builds[0]
    code = {role: decode_program(artifact.members[name]) for role, name in build.members.items()}
    packed = [t for t in artifact.entry.tensors.values() if t.role == "ternary"]
    lines = sum(tensor.nbytes for tensor in packed) // LINE
    return project(Model(read_facts(build), code, lines))


def project_shape(program: Program, spec: Spec, shape: str) -> Projection:
    """See projection.Projector.project_shape."""
    from mmfree_compiler.backends.fpga.compile.compiler import programs

    constants = {name: _packed(c, spec.layout) for name, c in program.constants.items()}
    made = programs(replace(program, constants=constants), spec)
    items = [
        (part.count, item)
        for part in made.parts
        for draft in part.drafts
        for item in draft.items
        if item.role == "ternary"
    ]
    lines = sum(count * item.lines for count, item in items)
    return project(Model(made.facts, made.code, lines), shape)


def _packed(constant: Constant, layout: Trits) -> Constant:
    """A weight as it would be packed, without memory for it."""
    if constant.role != "ternary":
        return constant
    lines = np.broadcast_to(np.uint8(0), (layout.lines(constant.matrix_shape), LINE))
    parts = (lines,) * len(constant.parts)
    return replace(constant, dtype="uint8", parts=parts, layout=layout)
