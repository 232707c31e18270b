"""Making outputs where only wanted tokens are computed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from mmfree_compiler.backends.cuda.compile.schedule import is_for_wanted
from mmfree_compiler.program import Node, Program, Stage


@dataclass(frozen=True)
class FinishOutputs:
    """Copy the outputs in a last stage, if the stage that makes them needs all tokens.

    It needs them for a state: it runs whether or not a token's outputs are wanted.
    """

    name: ClassVar[str] = "finish_outputs"

    def __call__(self, program: Program) -> Program:
        if is_for_wanted(program.body):
            return program.noted(self.name, "program", "no output copied")
        copies = {name: program.fresh(f"{name}.wanted") for name in program.outputs}
        nodes = tuple(Node("identity", (old,), (new,)) for old, new in copies.items())
        made = {new: replace(program.values[old], name=new) for old, new in copies.items()}
        finished = replace(
            program,
            values={**program.values, **made},
            body=(*program.body, Stage((), nodes)),
            outputs=tuple(copies.values()),
        )
        return finished.noted(self.name, "program", f"{len(copies)} copied")
