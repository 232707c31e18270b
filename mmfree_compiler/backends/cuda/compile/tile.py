"""The values of a kernel while it is written: variables of rows, columns, constants, states.

A kernel of `tiles` makes some columns of some tokens at once; one of a `scan` makes them for a
sequence, token by token. Both have the same lines: `row`, `token` and `slot` are one column of
numbers in the former, one number in the latter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from mmfree_compiler.artifact import TensorEntry
from mmfree_compiler.backends.cuda.compile.kernel import Writer
from mmfree_compiler.backends.cuda.compile.planned import PlannedProgram
from mmfree_compiler.backends.cuda.compile.schedule import Part
from mmfree_compiler.backends.cuda.facts import Space
from mmfree_compiler.backends.cuda.strides import state_offsets, state_stride
from mmfree_compiler.program import Node

POINTERS = {"float32": "*fp32", "float16": "*fp16", "bfloat16": "*bf16", "uint8": "*u8"}


@dataclass
class Tile:
    """The values of a tile while its kernel is written: the variable of each.

    `sums` are variables of integer sums, by the output of their product. `inner` names values whose
    rows are those of wanted tokens.
    """

    program: PlannedProgram
    tensors: Mapping[str, TensorEntry]
    part: Part
    writer: Writer
    inner: frozenset[str]
    loaded: dict[str, str] = field(default_factory=dict)
    sums: dict[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str | None) -> str:
        """The variable of an operand: made before, or now loaded."""
        assert name is not None
        if name not in self.loaded:
            self.loaded[name] = self._load(name)
        return self.loaded[name]

    def row(self, name: str) -> str:
        """The variable of the index of a token's row of a value."""
        return "row" if name in self.inner or not self.part.wanted else "token"

    def _load(self, name: str) -> str:
        if name in self.program.constants:
            return self._constant(name)
        column, _, mask = self.columns(self.program.values[name].width)
        pointer, stride = self.rows_of(name)
        at = f"{pointer} + {self.row(name)} * {stride} + {column}"
        return self.writer.bind(name, f"tl.load({at}, mask={mask}, other=0.0)")

    def _constant(self, name: str) -> str:
        pointer, shape = self.constant(name), self.program.constants[name].shape
        if shape in ((), (1,)):
            return self.writer.bind(name, f"tl.load({pointer})")
        column, valid, _ = self.columns(shape[-1])
        return self.writer.bind(name, f"tl.load({pointer} + {column}, mask={valid}, other=0.0)")

    def taps(self, name: str) -> list[str]:
        """The variables of a constant's numbers of each column, one after another."""
        count = self.program.constants[name].shape[-1]
        keys = [f"{name}, {tap}" for tap in range(count)]
        for tap, key in enumerate(keys):
            if key not in self.loaded:
                at = f"{self.constant(name)} + column * {count} + {tap}"
                self.loaded[key] = self.writer.bind(
                    f"{name}.{tap}", f"tl.load({at}, mask=valid, other=0.0)"
                )
        return [self.loaded[key] for key in keys]

    def columns(self, width: int) -> tuple[str, str, str]:  # noqa: ARG002 - of rows.RowTile
        """The variables of the columns of a row, whether it has them, and of the tokens' too."""
        return "column", "valid", "inside"

    def rows_of(self, name: str) -> tuple[str, int]:
        """The parameter that points at a value's rows, and the elements from row to row."""
        if name in self.program.inputs:
            port = self.program.inputs.index(name)
            value = self.program.values[name]
            kind = "*i64" if value.dtype == "int64" else "*fp32"
            return self.writer.parameter(name, kind, "input", port), value.width
        place = self.program.places[name]
        is_codes = self.program.values[name].dtype == "int8"
        kind, size = ("*i8", 1) if is_codes else ("*fp32", 4)
        pointer = self.writer.parameter(name, kind, "scratch", place.offset)
        return pointer, place.stride // size

    def constant(self, name: str) -> str:
        """The parameter that points at a constant, of the iteration that runs."""
        entry = self.tensors[name]
        stride = entry.nbytes // entry.count
        return self.writer.parameter(name, POINTERS[entry.dtype], "weights", entry.offset, stride)

    def state(self, name: str) -> tuple[str, str]:
        """The variables of where a state's first column is read and written, for each token."""
        slot = self.program.state(name)
        offsets, width = state_offsets(self.program.states)
        pointer = self.writer.parameter(
            name, "*fp32", "states", 4 * offsets[name], 4 * state_stride(slot)
        )
        spaces: tuple[Space, ...] = ("slots", "targets")
        found = []
        for space in spaces:
            key = f"{name} of {space}"
            if key not in self.loaded:
                at = f"{pointer} + {self._slot(space)} * {width} + column"
                self.loaded[key] = self.writer.bind(f"{name}.{space}", at)
            found.append(self.loaded[key])
        return found[0], found[1]

    def kept(self, name: str, offset: int = 0) -> str:
        """The variable of a state before this token, from element `offset` of each sequence on."""
        key = f"{name} before, {offset}"
        if key not in self.loaded:
            at = f"{self.state(name)[0]} + {offset}"
            self.loaded[key] = self.writer.bind(name, f"tl.load({at}, mask=inside, other=0.0)")
        return self.loaded[key]

    def state_rows(self, node: Node) -> Iterator[tuple[str, int]]:
        """A node's state: its name, and where each of its rows begins, as `kept` takes them."""
        if node.state is not None:
            *taps, width = self.program.state(node.state).shape
            yield from ((node.state, tap * width) for tap in range(taps[0] if taps else 1))

    def leave(self, name: str, variable: str, offset: int = 0) -> None:
        """Make a variable the state after this token."""
        at = f"{self.state(name)[1]} + {offset}"
        self.writer.add(f"tl.store({at}, {variable}, mask=inside)")

    def scaled_sum(self, node: Node) -> tuple[str, str]:
        """The exact integer sum of a product, and the scale of its codes: expressions."""
        factor, codes = self.scale(node)
        return f"({self.sums[node.outputs[0]]} - {codes})", factor

    def scale(self, node: Node) -> tuple[str, str]:
        """The variables of the scale of a product's codes, and of their sum."""
        scale = node.inputs[1]
        assert scale is not None
        if scale not in self.loaded:
            pointer, stride = self.rows_of(scale)
            at = f"{pointer} + {self.row(scale)} * {stride}"
            self.loaded[scale] = self.writer.bind(scale, f"tl.load({at}, mask=alive, other=0.0)")
            total = f"tl.load({at} + 1, mask=alive, other=0.0).to(tl.int32, bitcast=True)"
            self.loaded[f"{scale} sum"] = self.writer.bind(f"{scale}.sum", total)
        return self.loaded[scale], self.loaded[f"{scale} sum"]

    def _slot(self, space: Space) -> str:
        """The state row of each token."""
        if space not in self.loaded:
            pointer = self.writer.parameter(space, "*i32", space)
            found = self.writer.bind("slot", f"tl.load({pointer} + token, mask=alive, other=0)")
            self.loaded[space] = f"{found}.to(tl.int64)"
        return self.loaded[space]

    def keep(self, name: str) -> None:
        """Store a value if another kernel or the caller reads it."""
        width, variable = self.program.values[name].width, self.loaded[name]
        if name in self.part.gates:
            variable = self.writer.bind(f"{name}.gate", f"functions.silu({variable})")
        column, _, mask = self.columns(width)
        if name in self.part.kept and name in self.program.places:
            pointer, stride = self.rows_of(name)
            at = f"{pointer} + {self.row(name)} * {stride} + {column}"
            self.writer.add(f"tl.store({at}, {variable}, mask={mask})")
        if name in self.program.outputs:
            port = self.program.outputs.index(name)
            pointer = self.writer.parameter(f"{name}.output", "*fp32", "output", port)
            at = f"{pointer} + row * {width} + {column}"
            self.writer.add(f"tl.store({at}, {variable}, mask={mask})")

    def depth(self, codes: str) -> int:
        """The columns of the weights that meet these codes."""
        return self.program.values[codes].width

    @property
    def width(self) -> int:
        """The columns of everything that tiles make."""
        return self.program.values[self.part.nodes[0].outputs[0]].width
