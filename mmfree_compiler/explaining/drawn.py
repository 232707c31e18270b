"""The final Program of a target as records: nodes and edges, stages and loops, and what they cost.

Bytes and operations are those of a decode step of one token, all iterations of a loop together;
times are in microseconds.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Kind = Literal["row", "tile", "scan", "input", "output", "constant", "state"]


class Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")


class NoteLine(Record):
    """What a pass did: `node` names the resulting node, "program" all of it."""

    node: str
    text: str


class Cost(Record):
    """What a decode step of one token reads, writes and computes.

    Bytes: `constant_bytes` of weights, tables and vectors, `state_bytes` read and written, and
    `value_bytes` of rows read and written; most rows never leave a cache, or a register.
    Operations: `integer_operations` are additions of int8 codes (a ternary weight adds, subtracts
    or skips a code), `float_operations` are in fp32, an elementary function counts as one.
    `roofline_us` is the least time that the machine's ceilings allow, `measured_us` what it took or
    what a model of the hardware says (TargetPart.how). None: not known, for the `reason`.
    """

    constant_bytes: int = 0
    state_bytes: int = 0
    value_bytes: int = 0
    integer_operations: int = 0
    float_operations: int = 0
    roofline_us: float | None = None
    measured_us: float | None = None
    reason: str = ""


class Operand(Record):
    """A value at a node: its name, and one row of it."""

    name: str
    dtype: str
    width: int


class ConstantUse(Record):
    """A constant that a node reads: `parts` arrays of `shape`, one for each iteration of a loop.

    `nbytes` is the size of all parts in `layout`.
    """

    name: str
    role: str
    dtype: str
    shape: tuple[int, ...]
    parts: int
    layout: str
    nbytes: int


class GraphNode(Record):
    """A node of the final Program. `stage` and `loop` are ids of StageBox and LoopBox, or None.

    Nodes of ops are of the kinds "row", "tile" and "scan"; `meaning` is a sentence on the op, and
    `source` the line of the model that it came from. A node of another kind stands for what its
    name names. `times` is how often it runs in a decode step.
    """

    id: str
    op: str
    kind: Kind
    meaning: str = ""
    stage: str | None = None
    loop: str | None = None
    times: int = 1
    inputs: tuple[Operand, ...] = ()
    outputs: tuple[Operand, ...] = ()
    attributes: dict[str, str] = Field(default_factory=dict)
    constants: tuple[ConstantUse, ...] = ()
    state: str | None = None
    source: str = ""
    notes: tuple[NoteLine, ...] = ()
    cost: Cost = Cost()


class Edge(Record):
    """A value, constant or state that node `target` reads, from node `source` that makes it.

    `carried` edges go from the end of an iteration to the beginning of the next.
    """

    source: str
    target: str
    name: str
    carried: bool = False


class TimedPart(Record):
    """Ids of the nodes of a stage that have a time together: an op, or those of one kernel."""

    title: str
    nodes: tuple[str, ...]
    cost: Cost


class StageBox(Record):
    """Work between two barriers, in the order of `id`; `loop` is the id of the loop around it.

    `parts` are those whose times are known, where the target has more than one for the stage;
    the time of `cost` is then their sum.
    """

    id: str
    title: str
    loop: str | None = None
    times: int = 1
    cost: Cost = Cost()
    parts: tuple[TimedPart, ...] = ()


class LoopBox(Record):
    """Stages that run `count` times, once per layer."""

    id: str
    count: int
    stages: tuple[str, ...]


class ProgramGraph(Record):
    """The final Program of a target as nodes and edges."""

    nodes: tuple[GraphNode, ...]
    edges: tuple[Edge, ...]
    stages: tuple[StageBox, ...]
    loops: tuple[LoopBox, ...]
