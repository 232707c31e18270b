"""What the passes of a compilation did, kept as text and counts while they run."""

from __future__ import annotations

import inspect
import operator
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, Self

from torch.fx import GraphModule

from mmfree_compiler import graph_text, program_text
from mmfree_compiler.explaining.audit import audit_graph
from mmfree_compiler.explaining.folding import folded
from mmfree_compiler.explaining.schema import Audit, Difference, Snapshot
from mmfree_compiler.notes import Note
from mmfree_compiler.passes import Observer
from mmfree_compiler.program import Program

COMMON = ("graph", "program")  # the stages that all targets have in common
NOT_COMPARED = 'compared with check="passes" only'


@dataclass(frozen=True)
class Step:
    """A pass that ran; see schema.PassStep."""

    name: str
    stage: str
    purpose: str
    before: int
    after: int
    seconds: float


@dataclass(frozen=True)
class Taken:
    """A graph or Program as it was between two passes; see schema.Snapshot."""

    form: Literal["graph", "program"]
    ops: dict[str, int]
    text: str

    @classmethod
    def of(cls, subject: GraphModule | Program) -> Self:
        """What a graph or a Program is like now. Compiling waits for it: nothing is folded yet."""
        if isinstance(subject, Program):
            ops = Counter(node.op for node in subject.nodes())
            return cls("program", dict(ops), program_text.listing(subject))
        ops = Counter(map(_op, filter(_computes, subject.graph.nodes)))
        return cls("graph", dict(ops), graph_text.listing(subject))

    def snapshot(self) -> Snapshot:
        """As a record."""
        return Snapshot(
            form=self.form,
            nodes=sum(self.ops.values()),
            ops=dict(sorted(self.ops.items())),
            text=folded(self.text),
            lines=self.text.count("\n") + 1,
        )


@dataclass
class History:
    """The steps of one compilation, with the graph or Program between them.

    `differences` are those from the module by the number of a step. `notes` are of the last graph,
    which `audit` is about: they matter where no Program was made of it.
    """

    steps: list[Step] = field(default_factory=list)
    taken: list[Taken] = field(default_factory=list)
    differences: dict[int, float] = field(default_factory=dict)
    audit: Audit | None = None
    notes: tuple[Note, ...] = ()
    _common: int = 0  # the snapshot that the passes of every target start from
    _last: int = 0  # the snapshot that the next pass starts from
    _told: int | None = None  # the step whose result was told last

    @property
    def snapshots(self) -> tuple[Snapshot, ...]:
        """The graphs and Programs as records."""
        return tuple(taken.snapshot() for taken in self.taken)

    def observer(self, stage: str, passes: Iterable[Any]) -> Observer:
        """What is to look at the `passes` of one stage while they run."""
        purposes = {_name(step): purpose(step) for step in passes}
        return partial(self._observe, stage, purposes)

    def compared(self, largest: float) -> None:
        """Note how far the result of the last pass is from the module's."""
        if self._told is not None:
            self.differences[self._told] = largest

    def difference(self, step: int) -> Difference:
        """What is known of the result of a step."""
        found = self.differences.get(step)
        return Difference(reason=NOT_COMPARED) if found is None else Difference(largest=found)

    def examine(self, graph: GraphModule) -> None:
        """Search a graph that the passes are done with for products of float matrices."""
        self.audit, self.notes = audit_graph(graph), tuple(graph_text.notes(graph))

    def _observe(
        self, stage: str, purposes: dict[str, str], name: str, subject: Any, seconds: float
    ) -> None:
        if name == "input" and self.taken:
            self._last, self._told = self._common, None
            return
        before, self._last = self._last, len(self.taken)
        self.taken.append(Taken.of(subject))
        if name != "input":
            self._told = len(self.steps)
            about = purposes.get(name, "")
            self.steps.append(Step(name, stage, about, before, self._last, seconds))
        if stage in COMMON:
            self._common = self._last


def _name(step: Any) -> str:
    """A pass has a name; `lower` is a function."""
    return str(getattr(step, "name", None) or step.__name__)


def purpose(step: Any) -> str:
    """What a pass says that it does: the first paragraph of its docstring."""
    return " ".join((inspect.getdoc(step) or "").partition("\n\n")[0].split())


def _computes(node: Any) -> bool:
    return node.op.startswith("call_") and node.target is not operator.getitem


def _op(node: Any) -> str:
    return str(node.target).removesuffix(".default")
