"""Drafts while they are written: buffers of values and constants, the stream beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from mmfree_compiler.backends.fpga.compile.draft import Buffer, Draft, Part, place
from mmfree_compiler.backends.fpga.compile.stream import (
    NUMBERS,
    ROWS,
    Item,
    floats,
    plain_floats,
    weight,
)
from mmfree_compiler.backends.fpga.strides import FLOATS, code_lines, row_lines
from mmfree_compiler.elementary import codes_per_unit
from mmfree_compiler.errors import UnsupportedError
from mmfree_compiler.program import Node, Program

MOST_COLUMNS = (1 << 16) - 1  # of a product: its number has 16 bits, and sums of codes 24


@dataclass
class Builder:
    """Writes the instructions of one program.

    `parts` are its loops and what is between them; `roots` names the value whose buffer each value
    of a loop shares. `late` are values that only wanted tokens have. `node` is the first output of
    the node whose instructions are written.
    """

    program: Program
    roots: Mapping[str, str]
    late: frozenset[str]
    parts: list[Part] = field(default_factory=list)
    buffers: dict[str, Buffer] = field(default_factory=dict)
    taken: dict[tuple[int, str], Buffer] = field(default_factory=dict)  # (part, constant)
    scales: dict[str, str] = field(default_factory=dict)  # codes -> the value of their scale
    selected: dict[str, Buffer] = field(default_factory=dict)  # rows of wanted tokens
    node: str = ""

    def __post_init__(self) -> None:
        self.parts.append(Part(1))

    @contextmanager
    def loop(self, count: int) -> Iterator[None]:
        """What is added inside runs `count` times."""
        self.parts.append(Part(count))
        yield
        self.parts.append(Part(1))

    @property
    def part(self) -> Part:
        return self.parts[-1]

    def add(self, name: str, node: Node | None = None, **operands: Any) -> None:
        """Add an instruction, on the rows of the node's outputs."""
        rows = self.rows(node.outputs[0]) if node else "one"
        self._append(self.part, Draft.of(name, **({"rows": rows} | operands)))

    def _append(self, part: Part, draft: Draft) -> None:
        part.drafts.append(replace(draft, node=self.node))

    # --- values ----------------------------------------------------------------------------------

    def rows(self, name: str) -> str:
        """Which tokens have a value."""
        return "wanted" if name in self.late else "tokens"

    def value(self, name: str) -> Buffer:
        """The buffer of a value."""
        root = self.roots[name]
        if root not in self.buffers:
            value = self.program.values[root]
            is_codes = value.dtype == "int8"
            lines = code_lines(value.width) if is_codes else row_lines(value.width)
            memory = "codes" if is_codes else "scratch"
            self.buffers[root] = Buffer(root, memory, lines, self.rows(root))
        return self.buffers[root]

    def row_value(self, node: Node, name: str | None) -> Buffer:
        """The buffer of an operand that has a row for each token."""
        if name is None or name in self.program.constants:
            cause = f"reads the constant {name}, where the machine needs a row of each token"
            raise UnsupportedError(node.source or node.op, cause, "Compute it from the inputs")
        return self.wanted(name) if node.outputs[0] in self.late else self.value(name)

    def wanted(self, name: str) -> Buffer:
        """The buffer of a value's rows of wanted tokens."""
        if name in self.late:
            return self.value(name)
        if name not in self.selected:
            width = self.program.values[name].width
            out = Buffer(f"{name}.wanted", "scratch", row_lines(width), "wanted")
            self._append(self.part, Draft.of("select", dst=out, a=self.value(name), n=width))
            self.selected[name] = out
        return self.selected[name]

    def codes(self, node: Node, codes: str | None, scale: str | None) -> Buffer:
        """The buffer of codes, which has their scale too."""
        if codes is None or self.scales.get(codes) != scale:
            cause = "multiplies codes by a scale that is not their quantizer's"
            raise UnsupportedError(node.source or node.op, cause, "Use both results of a quantizer")
        return self.value(codes)

    @contextmanager
    def state(self, node: Node, lines: int) -> Iterator[Buffer]:
        """The buffer of a scan's states, which are loaded before it and stored after it."""
        slot = self.program.state(str(node.state))
        buffer = Buffer(f"state {slot.name}", "scratch", lines, "sequences")
        address, n = place("state", slot.name), lines * FLOATS
        # Outside of the layers' loop, iterations are steps of decoding: the same state in each.
        step = lines if slot.count > 1 else 0
        stride = lines * slot.count
        add = partial(self.add, rows="sequences", address=address, n=n, step=step, stride=stride)
        add("load", dst=buffer)
        yield buffer
        add("store", a=buffer)

    def second(self, node: Node, name: str | None) -> tuple[Buffer, str]:
        """The second operand of VEC, and its form."""
        if name is None or name not in self.program.constants:
            return self.row_value(node, name), "rows"
        width = self.program.values[node.outputs[0]].width
        single = self.program.constants[name].shape in ((), (1,)) and width > 1
        return self.constant(node, name, 1 if single else width), "number" if single else "row"

    # --- constants -------------------------------------------------------------------------------

    def constant(self, node: Node, name: str | None, width: int) -> Buffer:
        """A row of a constant; one number fills the row."""
        if name is None or name not in self.program.constants:
            cause = f"reads {name}, where the machine needs a constant row"
            raise UnsupportedError(node.source or node.op, cause, "Make it a buffer of the module")
        rows = plain_floats(self.program.constants[name])
        rows = rows.reshape(len(rows), -1)
        label = name if rows.shape[1] == width else f"{name} x{width}"
        return self._taken(floats(label, np.broadcast_to(rows, (len(rows), width))), width)

    def taps(self, name: str | None) -> Buffer:
        """The taps of a short convolution, a row for each."""
        assert name is not None
        constant = self.program.constants[name]
        packed = [ROWS.pack(part) for part in plain_floats(constant)]
        return self._taken(floats(name, packed, ROWS, constant.shape), packed[0].size)

    def numbers(self, *values: float) -> Buffer:
        """A line of numbers."""
        name = NUMBERS + " ".join(map(repr, values))
        return self._taken(floats(name, [np.array(values, np.float32)]), len(values))

    def quant_constants(self, outer: float, inner: float, quant: float) -> Buffer:
        """isa.row.CONSTANTS."""
        return self.numbers(outer, inner, quant, codes_per_unit(quant))

    def weight(self, node: Node, weight_scale: str | None, name: str | None) -> tuple[Item, Item]:
        """The line of a weight's scale, and the weight, in the stream."""
        assert name is not None
        constant = self.program.constants[name]
        if weight_scale is None or weight_scale not in self.program.constants:
            cause = "has a weight scale that the model computes"
            raise UnsupportedError(node.source or node.op, cause, "Make it a buffer of the module")
        if constant.shape[1] > MOST_COLUMNS:
            cause = f"has {constant.shape[1]:,} columns; the machine multiplies {MOST_COLUMNS:,}"
            raise UnsupportedError(node.source or node.op, cause, "Split the weight")
        scales = plain_floats(self.program.constants[weight_scale])
        header = Item(weight_scale, tuple(scales), "float32", scales.shape[1:])
        return header, weight(constant)

    def _taken(self, item: Item, width: int) -> Buffer:
        """The buffer of a row, which is taken from the stream before it is first read.

        What is the same in all iterations of a loop is taken in front of it.
        """
        number = len(self.parts) - 1
        if len(item.parts) == 1 and self.part.count > 1:
            number -= 1
        straight = (n for n, part in enumerate(self.parts) if part.count == 1)
        for n in (number, *straight):
            if (n, item.name) in self.taken:
                return self.taken[n, item.name]
        buffer = Buffer(f"constant {item.name}", "scratch", -(-width // FLOATS))
        self.taken[number, item.name] = buffer
        draft = Draft.of("params", mode=item.dtype, dst=buffer, n=width, items=(item,))
        self._append(self.parts[number], draft)
        return buffer
