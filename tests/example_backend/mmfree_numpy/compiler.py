"""The half that compiles: packs the weights, and writes the Program as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

from mmfree_compiler.artifact import WEIGHTS, Build, pack_constants
from mmfree_compiler.backends.interface import Emitted, ProgramPass
from mmfree_compiler.program import Constant, Loop, Program, Step, stages_of
from mmfree_numpy import Spec
from mmfree_numpy.layout import FOUR_CODES
from mmfree_numpy.ops import OPS, SCANS


@dataclass(frozen=True)
class PackCodes:
    """Ternary weights become bytes of four codes; other constants stay as they are."""

    name: ClassVar[str] = "pack_codes"

    def __call__(self, program: Program) -> Program:
        constants = {name: _packed(constant) for name, constant in program.constants.items()}
        packed = replace(program, constants=constants)
        return packed.noted(self.name, "program", "four codes per byte")


def _packed(constant: Constant) -> Constant:
    if constant.role != "ternary":
        return constant
    parts = tuple(FOUR_CODES.pack(part) for part in constant.parts)
    return replace(constant, dtype="uint8", parts=parts, layout=FOUR_CODES)


class NumpyCompiler:
    """See mmfree_compiler.backends.interface.Compiler."""

    ops = frozenset(OPS) | frozenset(SCANS)

    def passes(self, program: Program, spec: Spec) -> tuple[ProgramPass, ...]:
        return (PackCodes(),)

    def emit(self, program: Program, spec: Spec) -> Emitted:
        weights, tensors = pack_constants(program.constants.values())
        code = json.dumps([_step(step) for step in program.body]).encode()
        build = Build(name="numpy", abi=1, members={"program": "program.json"})
        return Emitted((build,), tensors, {WEIGHTS: weights, "program.json": code})


def _step(step: Step) -> dict[str, Any]:
    """A loop as it is, a stage as a loop that runs once."""
    nodes = [asdict(node) for stage in stages_of(step) for node in stage.nodes]
    if not isinstance(step, Loop):
        return {"count": 1, "nodes": nodes, "carried": [], "updates": [], "results": []}
    wiring = {"carried": step.carried, "updates": step.updates, "results": step.results}
    return {"count": step.count, "nodes": nodes, **wiring}
