"""The kernels that choose the next tokens on the device: kernels/choosing.py on every lane."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmfree_compiler.backends.cuda import lanes
from mmfree_compiler.backends.cuda.compile.kernel import WAIT, Source, Writer
from mmfree_compiler.backends.cuda.facts import Space
from mmfree_compiler.backends.cuda.strides import power_of_two
from mmfree_compiler.program import Program

# Rows of one element or of logits: the type of a pointer to them, and where they are.
_ROWS: Mapping[str, tuple[str, Space]] = {
    "logits": ("*fp32", "output"),
    "ids": ("*i64", "input"),
    "slots": ("*i32", "slots"),
    "targets": ("*i32", "targets"),
}
# Records of lanes: where they are, their fields, and how many a lane has.
_RECORDS: Mapping[str, tuple[Space, Callable[[int], np.dtype[Any]], int]] = {
    "choices": ("choices", lanes.choices, 1),
    "work": ("work", lanes.work, 1),
    "drawn": ("drawn", lambda _: lanes.DRAWN, lanes.RING),
}
_POINTERS = {"i4": "*i32", "i8": "*i64", "f4": "*fp32", "f8": "*fp64"}


@dataclass(frozen=True)
class _Kernel:
    """A function of choosing.py. `fields` are its pointers in order, "memory.field"; `constants`
    follow. `split`: a program is for a block of the vocabulary, not for all of it.
    """

    name: str
    fields: str
    constants: str
    split: bool
    warps: int


_KERNELS = (
    _Kernel(
        "survey",
        "logits choices.penalty choices.seen work.peaks work.totals work.bests work.places"
        " work.bins",
        "V BLOCKS",
        True,
        4,
    ),
    _Kernel(
        "weigh",
        "logits choices.temperature choices.penalty choices.top_k choices.share choices.seen"
        " work.peaks work.bests work.bins work.sums work.keys work.weights",
        "V BLOCKS PARTS",
        True,
        4,
    ),
    _Kernel(
        "choose",
        "logits choices.seed choices.position choices.temperature choices.penalty choices.top_k"
        " choices.share choices.step choices.rows choices.seen work.peaks work.totals work.bests"
        " work.places work.bins work.sums work.keys work.weights ids slots targets drawn.total"
        " drawn.id drawn.logit drawn.peak",
        "V BLOCKS PARTS",
        False,
        16,
    ),
)


def sampling(program: Program) -> list[Source]:
    """The kernels that follow a step of one token of each sequence, in order.

    Only language models have them.
    """
    if program.kind != "lm":
        return []
    vocabulary = program.values[program.outputs[0]].width
    return [_source(kernel, _Lane(Writer(), vocabulary)) for kernel in _KERNELS]


@dataclass(frozen=True)
class _Lane:
    """The fields of the lane `row` while a kernel is written."""

    writer: Writer
    vocabulary: int

    def pointer(self, field: str) -> str:
        """The address of a field."""
        kind, space, offset, stride = self._place(field)
        name = self.writer.parameter(field, kind, space, offset)
        return f"{name} + row * {stride}"

    def _place(self, field: str) -> tuple[str, Space, int, int]:
        """Its pointer's type, where it is in the first lane, and elements from lane to lane."""
        if field in _ROWS:
            kind, space = _ROWS[field]
            return kind, space, 0, self.vocabulary if field == "logits" else 1
        memory, name = field.split(".")
        space, layout, count = _RECORDS[memory]
        record = layout(self.vocabulary)
        assert record.fields is not None
        found, offset = record.fields[name][:2]
        element = found.base
        return (
            _POINTERS[element.str[1:]],
            space,
            offset,
            count * record.itemsize // element.itemsize,
        )

    @property
    def constants(self) -> dict[str, int]:
        """By the names that _Kernel.constants has."""
        blocks = lanes.blocks(self.vocabulary)
        return {"V": self.vocabulary, "BLOCKS": blocks, "PARTS": power_of_two(blocks)}


def _source(kernel: _Kernel, lane: _Lane) -> Source:
    writer = lane.writer
    count = writer.parameter("counts", "*i32", "counts")
    writer.add(
        WAIT, "row = tl.program_id(1).to(tl.int64)", f"if row >= tl.load({count}):", "    return"
    )
    passed = [lane.pointer(field) for field in kernel.fields.split()]
    passed += [str(lane.constants[name]) for name in kernel.constants.split()]
    writer.add(f"choosing.{kernel.name}({', '.join(passed)})")
    columns = lane.constants["BLOCKS"] if kernel.split else 1
    return Source(
        kernel.name,
        writer.text(kernel.name, "triton"),
        writer.parameters,
        writer.arguments,
        over="tokens",
        per=1,
        columns=columns,
        warps=kernel.warps,
        stages=1,
    )
