"""Group ops into stages: the fewest barriers that complete rows need."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mmfree_compiler.ops import OPS
from mmfree_compiler.program import Node, Program, Stage


@dataclass(frozen=True)
class GroupStages:
    """Each op goes into the earliest stage where its operands are ready.

    A row op must see complete rows: it starts a stage after the tiles that make its operands. Any
    other op works on columns, so it may follow, in the same stage, whatever made its operands.
    """

    name = "group_stages"

    def __call__(self, program: Program) -> Program:
        made_in: dict[str, tuple[int, bool]] = {}  # value -> its stage, and whether tiles make it
        stages: list[tuple[list[Node], list[Node]]] = []
        for node in program.nodes():
            by_rows = OPS[node.op].kind == "row"
            ready = [made_in[name] for name in node.inputs if name in made_in]
            at = max((stage + (by_rows and tiles) for stage, tiles in ready), default=0)
            if at == len(stages):
                stages.append(([], []))
            stages[at][0 if by_rows else 1].append(node)
            made_in |= dict.fromkeys(node.outputs, (at, not by_rows))
        body = tuple(Stage(tuple(rows), tuple(tiles)) for rows, tiles in stages)
        return replace(program, body=body)
