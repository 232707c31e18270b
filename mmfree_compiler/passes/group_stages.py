"""Grouping ops into stages, with as few barriers as row ops allow."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from mmfree_compiler.ops import OPS
from mmfree_compiler.program import Node, Program, Stage
from mmfree_compiler.wording import counted


@dataclass(frozen=True)
class GroupStages:
    """Put each op into the earliest stage where its operands are ready.

    A row op needs complete rows, so it goes into a stage after the tiles that make its operands.
    Any other op works on columns, so it may share a stage with the ops that make its operands.
    """

    name: ClassVar[str] = "group_stages"

    def __call__(self, program: Program) -> Program:
        made_in: dict[str, tuple[int, bool]] = {}  # value -> its stage, and whether tiles make it
        stages: list[tuple[list[Node], list[Node]]] = []
        for node in program.nodes():
            by_rows = OPS[node.op].kind == "row"
            at = 0
            for stage, by_tiles in (made_in[name] for name in node.inputs if name in made_in):
                at = max(at, stage + 1 if by_rows and by_tiles else stage)
            if at == len(stages):
                stages.append(([], []))
            stages[at][0 if by_rows else 1].append(node)
            made_in |= dict.fromkeys(node.outputs, (at, not by_rows))
        body = tuple(Stage(tuple(rows), tuple(tiles)) for rows, tiles in stages)
        ops = counted(sum(1 for _ in program.nodes()), "op")
        found = f"{ops} in {counted(len(body), 'stage')}"
        return replace(program, body=body).noted(self.name, "program", found)
