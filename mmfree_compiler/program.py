"""The IR that backends receive: a Program of stages over rows, in frozen dataclasses without torch.

Every value has one row per token: `M` tokens make a matrix `(M, width)`, without batch and time
dimensions. A token belongs to a slot (a sequence) and has a position in it; a state belongs to a
slot. Each backend decides how rows, states and constants are laid out in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from mmfree_compiler.notes import Note
from mmfree_compiler.structure import Structure

Array = NDArray[np.generic]
Attr = int | float | str | None

ValueType = Literal["float32", "int8", "int64"]
# How an op uses a constant:
#   ternary  the (N, K) codes of a weight
#   table    rows, selected by token ids
#   taps     the (D, k) weights of a short convolution
#   row      anything else: one row, or one number
Role = Literal["ternary", "table", "taps", "row"]


@dataclass(frozen=True)
class Value:
    """One row per token: `width` elements of `dtype` ("float32", "int8" codes, "int64" ids)."""

    name: str
    width: int
    dtype: ValueType = "float32"


class Layout(Protocol):
    """How a backend lays out the parts of a constant."""

    @property
    def name(self) -> str: ...

    def unpack(self, part: Any, shape: Any, /) -> Any:
        """The array of the logical `shape` that `part` holds."""


@dataclass(frozen=True)
class Dense:
    """The initial layout of every constant: C-contiguous arrays of its shape."""

    name: str = "dense"

    def unpack(self, part: Array, shape: tuple[int, ...]) -> Array:
        return part.reshape(shape)


DENSE = Dense()


@dataclass(frozen=True)
class Constant:
    """Data known at compile time.

    `parts` has one array outside loops and `Loop.count` arrays inside one, all of `shape`.
    `dtype` is "bfloat16" for uint16 arrays that hold bfloat16 bits, else NumPy's name. A backend's
    passes may change the layout of the parts: `shape` stays the logical shape, (N, K) for a weight,
    and `layout` can unpack the parts.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    parts: tuple[Array, ...] = field(repr=False)
    role: Role = "row"
    layout: Layout = DENSE

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """The (N, K) of a weight."""
        rows, columns = self.shape
        return rows, columns

    def array(self, part: int) -> Array:
        """The logical array of one part, unpacked."""
        unpacked: Array = self.layout.unpack(self.parts[part], self.shape)
        return unpacked


@dataclass(frozen=True)
class StateSlot:
    """The state of a scan, per sequence: `count` float arrays of `shape`, one per loop iteration.

    The shape is (I,) for a recurrence, (k, D) for a short convolution. A state that `grows` has
    such an array for each position of the sequence.
    """

    name: str
    shape: tuple[int, ...]
    count: int = 1
    grows: bool = False


@dataclass(frozen=True)
class Node:
    """A call of an op: `inputs` name values or constants, None is an omitted optional operand.

    The operands of a list argument are consecutive in `inputs`. `attrs` has scalars by parameter
    name, and for `norm_quant` also "groups", the length of its list.
    """

    op: str
    inputs: tuple[str | None, ...]
    outputs: tuple[str, ...]
    attrs: Mapping[str, Attr] = field(default_factory=dict)
    state: str | None = None  # the StateSlot of a scan
    # The line of user code that it came from, or the module. Not in repr(), which is part of the
    # cache key.
    source: str = field(default="", repr=False)


@dataclass(frozen=True)
class Stage:
    """Work between two barriers: ops of `rows` need whole rows, then `tiles` make columns.

    Columns of `tiles` are independent: an op reads only its own column of the values that `tiles`
    of the same stage make. Ops of `rows` read none of these values.
    """

    rows: tuple[Node, ...]
    tiles: tuple[Node, ...]

    @property
    def nodes(self) -> tuple[Node, ...]:
        return self.rows + self.tiles


@dataclass(frozen=True)
class Loop:
    """`body` run `count` times; iteration l reads part l of its constants and of its states.

    `carried` are (initial, inside) pairs: the value `inside` starts as `initial`, and each
    iteration ends by assigning it the value at the same index of `updates`. After the loop,
    `results` name the final values. `initial` is not read after the loop, and `inside` is not read
    after its update is made, so that all of them may share memory.
    """

    count: int
    body: tuple[Stage, ...]
    carried: tuple[tuple[str, str], ...]
    updates: tuple[str, ...]
    results: tuple[str, ...]


Step = Stage | Loop


def stages_of(step: Step) -> tuple[Stage, ...]:
    """The stages of a step: the body of a loop, or the step itself."""
    return step.body if isinstance(step, Loop) else (step,)


@dataclass(frozen=True)
class Program:
    """A compiled graph: `inputs` and `outputs` name values; `body` runs in order.

    `result` says how a call returns the outputs; None: the one output, or a tuple of all.
    """

    kind: str  # "lm": token ids in, logits out; "module": everything else
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    values: Mapping[str, Value]
    constants: Mapping[str, Constant]
    states: tuple[StateSlot, ...]
    body: tuple[Step, ...]
    notes: tuple[Note, ...] = field(default=(), repr=False, compare=False)
    # Kernels do not depend on it: not in repr(), which is part of the cache key.
    result: Structure | None = field(default=None, repr=False)

    def details(self) -> Iterator[str]:
        """Lines of text about the fields that a backend's subclass adds."""
        yield from ()

    def noted(self, pass_name: str, node: str, what: str) -> Self:
        """The same Program with one more note."""
        return replace(self, notes=(*self.notes, Note(pass_name, node, what)))

    def fresh(self, name: str) -> str:
        """`name`, or one like it that no value and no constant has."""
        while name in self.values or name in self.constants:
            name += "_"
        return name

    def stages(self) -> Iterator[Stage]:
        """Every stage once, including those in loops."""
        for step in self.body:
            yield from stages_of(step)

    def vocabulary(self, ids: str) -> int:
        """The number of rows of the smallest table that input `ids` indexes."""
        tables = (node.inputs[1] for node in self.nodes() if node.inputs[0] == ids)
        return min(self.constants[table].shape[0] for table in tables if table)

    def nodes(self) -> Iterator[Node]:
        """Every node once, including those in loops."""
        for stage in self.stages():
            yield from stage.nodes

    def state(self, name: str) -> StateSlot:
        return next(slot for slot in self.states if slot.name == name)
