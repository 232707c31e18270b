"""A panel of prefill: some columns of a stage for a chunk of tokens.

First each ternary product of the stage runs for all tokens and writes its integer sums to the
thread's scratch. Then all other ops run, token by token. An engine makes the sums: vectors
(multiply.py) or matrix units (amx.py).
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Protocol

from tvm.script import tirx as T
from tvm.tirx.script.builder import ir as I

from mmfree_compiler.backends.cpu.compile import vector as v
from mmfree_compiler.backends.cpu.compile.memory import Memory, Place
from mmfree_compiler.backends.cpu.compile.tiles import epilogue
from mmfree_compiler.backends.cpu.compile.vector import LANES, Buffer, Expr
from mmfree_compiler.backends.cpu.strides import round_up
from mmfree_compiler.program import Node, Program

ROW = 4 * LANES  # bytes of a token's 16 sums


class Engine(Protocol):
    """Multiplies panels.

    A panel is up to `columns` tiles of 16 columns wide. The codes of `together` tokens are
    interleaved (memory.py), and their sums may be written at once. The first `reserved` bytes of a
    thread's scratch belong to the engine.
    """

    @property
    def columns(self) -> int: ...
    @property
    def reserved(self) -> int: ...
    @property
    def together(self) -> int: ...

    def ready(
        self, memory: Memory, thread: Expr, start: Expr, count: Expr
    ) -> AbstractContextManager[None]:
        """Set up the thread's engine around the body, for tokens `start` to `count`."""

    def multiply(self, panel: Panel, index: int, node: Node) -> None:
        """Write the integer sums of `node`, the panel's product `index`, to `panel.sums`."""


@dataclass(frozen=True)
class Panel:
    """`columns` tiles from `place.column` on, for tokens `start` to `count`."""

    engine: Engine
    memory: Memory
    place: Place
    columns: int
    start: Expr
    count: Expr

    def emit(self, nodes: tuple[Node, ...]) -> None:
        """Emit all of `nodes`."""
        found = products(nodes)
        for i, node in enumerate(found):
            self.engine.multiply(self, i, node)
        # Columns in the inner loop: tokens' rows are pages apart, and each visit is a TLB miss.
        with I.serial(self.start, self.count) as token:
            for column in range(self.columns):
                totals = {n.outputs[0]: self._total(i, column, token) for i, n in enumerate(found)}
                at = self.place.column + column * LANES
                place = replace(self.place, token=token, column=at)
                epilogue(self.memory, place, nodes, totals)

    def scratch(self, offset: Expr) -> tuple[Buffer, Expr]:
        """A byte of the thread's scratch."""
        buffer, at = self.memory.scratch(self.place.thread)
        return buffer, at + offset

    def sums(self, product: int, column: int, token: Expr) -> tuple[Buffer, Expr]:
        """The place of a token's 16 sums in a tile of columns."""
        row = (product * self.engine.columns + column) * _height(self.engine, self.memory.tokens)
        return self.scratch(self.engine.reserved + (row + token) * ROW)

    def _total(self, product: int, column: int, token: Expr) -> Expr:
        buffer, at = self.sums(product, column, token)
        return T.reinterpret(v.INTS, v.load(buffer, at, f"uint8x{ROW}"))


def scratch_bytes(engine: Engine, program: Program, tokens: int) -> int:
    """Bytes of scratch that a thread needs for chunks of `tokens`."""
    most = max((len(products(stage.tiles)) for stage in program.stages()), default=0)
    return engine.reserved + most * engine.columns * _height(engine, tokens) * ROW


def _height(engine: Engine, tokens: int) -> int:
    """Rows of sums per tile of columns."""
    return round_up(tokens, engine.together)


def products(nodes: tuple[Node, ...]) -> list[Node]:
    """The ternary products among `nodes`."""
    return [node for node in nodes if node.op == "ternary_linear"]
