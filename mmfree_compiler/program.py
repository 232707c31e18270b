"""What backends receive: a Program of stages over rows. Frozen dataclasses, free of torch.

Every value is a row a token: `M` tokens make a matrix `(M, width)`, whatever the batch and time
dimensions were. A token belongs to a slot (a sequence); a state is a row a slot.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mmfree_compiler.program_text import text

Array = NDArray[np.generic]
Attr = int | float | str | None

ValueType = Literal["float32", "int8", "int64"]

VECTOR = 16  # rows of floats are padded to whole vectors of this many elements
LINE = 64  # bytes of a cache line; rows of codes are padded to whole ones
# Zeros that follow every row of codes, at least: a weight layout's last block of columns may reach
# past the row (layouts.py: a block has at most 20).
CODES_SLACK = 19


TABLE = "table"  # the layout of a constant whose rows token ids name


def round_up(n: int, multiple: int) -> int:
    """The smallest multiple that is not below n."""
    return -(-n // multiple) * multiple


@dataclass(frozen=True)
class Value:
    """A row a token: `width` elements of `dtype` ("float32", "int8" codes, "int64" token ids)."""

    name: str
    width: int
    dtype: ValueType = "float32"

    @property
    def stride(self) -> int:
        """Elements from one token's row to the next."""
        slack, multiple = _ROWS[self.dtype]
        return round_up(self.width + slack, multiple)


# dtype -> elements that must follow a row, and what a row's length is a multiple of
_ROWS: dict[ValueType, tuple[int, int]] = {
    "float32": (0, VECTOR),
    "int8": (CODES_SLACK, LINE),
    "int64": (0, 1),
}


@dataclass(frozen=True)
class Constant:
    """Data known at compile time.

    `parts` has one array outside loops and `Loop.count` arrays inside one, all of `shape`.
    `dtype` is "bfloat16" for uint16 arrays that hold bfloat16 bits, else NumPy's name.
    `layout` is "dense", "padded" (zeros up to whole vectors), TABLE (rows padded so, which are read
    one at a time), or, once weights are packed, the name of a layout in `layouts.LAYOUTS`; `shape`
    stays the logical one, (N, K) for a weight.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    parts: tuple[Array, ...] = field(repr=False)
    layout: str = "dense"

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """The (N, K) of a weight."""
        rows, columns = self.shape
        return rows, columns


@dataclass(frozen=True)
class StateSlot:
    """`width` floats a sequence, of one scan; `count` of them inside a loop, one an iteration.

    `shape` is how a person reads it: (I,) for a recurrence, (k, D) for a short convolution. Rows
    are padded to `row_stride` floats, so that kernels read whole vectors.
    """

    name: str
    shape: tuple[int, ...]
    count: int = 1

    @property
    def row_stride(self) -> int:
        return round_up(self.shape[-1], VECTOR)

    @property
    def stride(self) -> int:
        """Floats of one iteration's state."""
        return int(np.prod(self.shape[:-1])) * self.row_stride


@dataclass(frozen=True)
class Node:
    """One op of the op table: operands name values or constants, `None` an absent optional one.

    Operands of a list argument follow each other; `attrs` holds scalars by parameter name, and for
    `norm_quant` also "groups", the length of its list.
    """

    op: str
    inputs: tuple[str | None, ...]
    outputs: tuple[str, ...]
    attrs: Mapping[str, Attr] = field(default_factory=dict)
    state: str | None = None  # the StateSlot of a scan
    # Where in the user's code it came from: not in the text by which kernels are cached.
    source: str = field(default="", repr=False)


@dataclass(frozen=True)
class Stage:
    """Work between two barriers: `rows` need whole rows, then `tiles` make columns independently.

    No op of `tiles` reads another column of what this stage's `tiles` make, and no op of `rows`
    reads what its `tiles` make.
    """

    rows: tuple[Node, ...]
    tiles: tuple[Node, ...]

    @property
    def nodes(self) -> tuple[Node, ...]:
        return self.rows + self.tiles


@dataclass(frozen=True)
class Loop:
    """`body` run `count` times; iteration l reads part l of its constants and of its states.

    `carried` are (initial, inside) pairs: `inside` is a value that holds `initial` at first; each
    iteration ends by giving it the value of `updates` at the same position. After the loop,
    `results` name the last ones.
    """

    count: int
    body: tuple[Stage, ...]
    carried: tuple[tuple[str, str], ...]
    updates: tuple[str, ...]
    results: tuple[str, ...]


Step = Stage | Loop


@dataclass(frozen=True)
class Storage:
    """Where a value waits between stages: its rows in an arena, in elements.

    `offset` is that of one token's row; of n tokens the rows begin at n times as much.
    """

    arena: str  # "shared": floats made by tiles; "private": floats made by rows; "codes": int8
    offset: int
    stride: int  # from one token's row to the next


@dataclass(frozen=True)
class Program:
    """A compiled graph: `inputs` and `outputs` name values; `body` runs in order."""

    kind: str  # "lm": token ids in, logits out; "module": rows in, rows out
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    values: dict[str, Value]
    constants: dict[str, Constant]
    states: tuple[StateSlot, ...]
    body: tuple[Step, ...]
    # Set by passes/plan_memory: values that outlive a stage's registers; elements a token by arena.
    storage: Mapping[str, Storage] = field(default_factory=dict)
    arenas: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        return text(self)

    def stages(self) -> Iterator[Stage]:
        """Every stage once, loops entered."""
        for step in self.body:
            yield from step.body if isinstance(step, Loop) else (step,)

    def nodes(self) -> Iterator[Node]:
        """Every node once, loops entered."""
        for stage in self.stages():
            yield from stage.nodes

    @property
    def state_width(self) -> int:
        """Floats of state a sequence."""
        return sum(slot.stride * slot.count for slot in self.states)

    def state_offset(self, name: str) -> int:
        """The first float of a state within a sequence's row."""
        offset = 0
        for slot in self.states:
            if slot.name == name:
                return offset
            offset += slot.stride * slot.count
        raise KeyError(name)

    def state(self, name: str) -> StateSlot:
        return next(slot for slot in self.states if slot.name == name)
