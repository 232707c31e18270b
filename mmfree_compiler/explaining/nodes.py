"""The final Program of a target as nodes and edges, to be drawn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from mmfree_compiler.explaining.costs import cost, meaning, together
from mmfree_compiler.explaining.drawn import (
    ConstantUse,
    Edge,
    GraphNode,
    Kind,
    LoopBox,
    NoteLine,
    Operand,
    ProgramGraph,
    StageBox,
)
from mmfree_compiler.notes import Note
from mmfree_compiler.ops import OPS
from mmfree_compiler.program import Constant, Loop, Node, Program, Stage


def program_graph(program: Program, notes: Iterable[Note] = ()) -> ProgramGraph:
    """The nodes, values, stages and loops of `program`; `notes` go to the nodes that they name."""
    drawing = _Drawing(program, _by_node(notes))
    for name in program.inputs:
        drawing.outside(name, "input", outputs=(_operand(program, name),))
        drawing.maker[name] = f"input {name}"
    read = {name for node in program.nodes() for name in node.inputs}
    for constant in program.constants.values():
        if constant.name in read:
            drawing.outside(constant.name, "constant", constants=(_use(constant),))
    for slot in program.states:
        drawing.outside(slot.name, "state", times=slot.count)
    for step in program.body:
        drawing.loop(step) if isinstance(step, Loop) else drawing.stage(step, None, 1)
    for name in program.outputs:
        drawing.outside(name, "output", inputs=(_operand(program, name),))
        drawing.edge(name, f"output {name}")
    return ProgramGraph(
        nodes=tuple(drawing.nodes),
        edges=tuple(drawing.edges),
        stages=tuple(drawing.stages),
        loops=tuple(drawing.loops),
    )


def _by_node(notes: Iterable[Note]) -> dict[str, list[NoteLine]]:
    found: dict[str, list[NoteLine]] = {}
    for note in notes:
        line = NoteLine(node=note.node, text=f"{note.pass_name}: {note.text}")
        found.setdefault(note.node, []).append(line)
    return found


@dataclass
class _Drawing:
    """The graph under construction; `maker` is the id of the node that makes a value."""

    program: Program
    notes: Mapping[str, list[NoteLine]]
    nodes: list[GraphNode] = field(default_factory=list)
    edges: list[Edge] = field(default_factory=list)
    stages: list[StageBox] = field(default_factory=list)
    loops: list[LoopBox] = field(default_factory=list)
    maker: dict[str, str] = field(default_factory=dict)

    def outside(self, name: str, kind: Kind, **fields: object) -> None:
        """A node that is not a call of an op."""
        self.nodes.append(GraphNode(id=f"{kind} {name}", op=name, kind=kind, **fields))  # type: ignore[arg-type]

    def edge(self, name: str, reader: str) -> None:
        source = f"constant {name}" if name in self.program.constants else self.maker.get(name)
        if source:  # else an iteration reads what the same iteration makes later: see `loop`
            self.edges.append(Edge(source=source, target=reader, name=name))

    def loop(self, loop: Loop) -> None:
        box = f"loop {len(self.loops)}"
        for initial, inside in loop.carried:
            self.maker[inside] = self.maker[initial]
        first = len(self.nodes)
        stages = [self.stage(stage, box, loop.count) for stage in loop.body]
        self.loops.append(LoopBox(id=box, count=loop.count, stages=tuple(stages)))
        for (_, inside), update, result in zip(
            loop.carried, loop.updates, loop.results, strict=True
        ):
            self.maker[result] = self.maker[update]
            readers = [x.id for x in self.nodes[first:] if inside in (v.name for v in x.inputs)]
            self.edges += [
                Edge(source=self.maker[update], target=reader, name=update, carried=True)
                for reader in readers
            ]

    def stage(self, stage: Stage, loop: str | None, times: int) -> str:
        box = f"stage {len(self.stages)}"
        first = len(self.nodes)
        for node in stage.rows:
            self._op(node, "row", box, loop, times)
        for node in stage.tiles:
            self._op(node, "scan" if node.state else "tile", box, loop, times)
        made = self.nodes[first:]
        title = ", ".join(dict.fromkeys(node.op for node in made))
        costs = together(node.cost for node in made)
        self.stages.append(StageBox(id=box, title=title, loop=loop, times=times, cost=costs))
        return box

    def _op(self, node: Node, kind: Kind, stage: str, loop: str | None, times: int) -> None:
        program, name = self.program, node.outputs[0]
        names = [name for name in node.inputs if name]
        for read in names:
            self.edge(read, name)
        if node.state:
            self.edges.append(Edge(source=f"state {node.state}", target=name, name=node.state))
        self.maker |= dict.fromkeys(node.outputs, name)
        self.nodes.append(
            GraphNode(
                id=name,
                op=node.op,
                kind=kind,
                meaning=meaning(OPS[node.op]),
                stage=stage,
                loop=loop,
                times=times,
                inputs=tuple(_operand(program, x) for x in names if x in program.values),
                outputs=tuple(_operand(program, x) for x in node.outputs),
                attributes={key: str(value) for key, value in node.attrs.items()},
                constants=tuple(
                    _use(program.constants[x]) for x in names if x in program.constants
                ),
                state=node.state,
                source=node.source,
                notes=tuple(self.notes.get(name.partition(".")[0], ())),
                cost=cost(program, node, times),
            )
        )


def _operand(program: Program, name: str) -> Operand:
    value = program.values[name]
    return Operand(name=name, dtype=value.dtype, width=value.width)


def _use(constant: Constant) -> ConstantUse:
    return ConstantUse(
        name=constant.name,
        role=constant.role,
        dtype=constant.dtype,
        shape=constant.shape,
        parts=len(constant.parts),
        layout=constant.layout.name,
        nbytes=sum(part.nbytes for part in constant.parts),
    )
