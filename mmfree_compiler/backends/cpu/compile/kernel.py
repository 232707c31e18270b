"""One function of a library: a Program's stages in order, for one token or for a chunk of tokens.

with launch:                       one parallel launch per call
  for stage in program:            layers are a real loop
    rows    norms and quantizers; decode: every thread runs all, prefill: each runs some tokens
    tiles   16 columns at a time; a tile's ternary products, pointwise ops and scans run together
    barrier
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import tvm
from tvm.script import tirx as T
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as I

from mmfree_compiler.artifact import TensorEntry
from mmfree_compiler.backends.cpu.compile import rows
from mmfree_compiler.backends.cpu.compile.amx import Amx
from mmfree_compiler.backends.cpu.compile.isa import Isa
from mmfree_compiler.backends.cpu.compile.kept import digit_bytes
from mmfree_compiler.backends.cpu.compile.memory import Memory, Place, arguments
from mmfree_compiler.backends.cpu.compile.multiply import Tile, Vectors, multiply
from mmfree_compiler.backends.cpu.compile.panel import Engine, Panel, products, scratch_bytes
from mmfree_compiler.backends.cpu.compile.planned import PlannedProgram
from mmfree_compiler.backends.cpu.compile.tiles import epilogue
from mmfree_compiler.backends.cpu.compile.vector import LANES, Expr
from mmfree_compiler.program import Node, Program, Stage, Step, stages_of


@dataclass(frozen=True)
class Kernel:
    """A function to emit: `tokens` is 1 for decode, else the largest chunk of a prefill call."""

    name: str
    program: PlannedProgram
    isa: Isa
    tokens: int

    @property
    def decode(self) -> bool:
        return self.tokens == 1

    @property
    def engine(self) -> Engine:
        """The engine that multiplies chunks of tokens."""
        if self.isa.matrices:
            return Amx(self.program, self.isa.tuning)
        return Vectors(digit_bytes(self.program) if self.isa.keeps_digits else 0)

    @property
    def scratch_bytes(self) -> int:
        """Bytes of scratch per thread."""
        return 0 if self.decode else scratch_bytes(self.engine, self.program, self.tokens)


def emit(
    kernel: Kernel, tensors: Mapping[str, TensorEntry], emitting: type[Emitter] | None = None
) -> tvm.tirx.PrimFunc:
    """The kernel as a TIR function; `tensors` are the constants' places in weights.bin."""
    with IRBuilder() as builder, I.prim_func(s_tir=True):
        I.func_name(kernel.name)
        I.func_attr({"global_symbol": kernel.name, "tirx.noalias": True})
        buffers, (count, first, threads) = arguments(kernel.program)
        together = 1 if kernel.decode else kernel.engine.together
        memory = Memory(
            kernel.program, buffers, tensors, kernel.tokens, together, kernel.scratch_bytes
        )
        I.evaluate(T.call_extern("int32", "mmfree_set_threads", threads))
        emitter = (emitting or Emitter)(kernel, memory, count, first, threads)
        with I.attr(0, "pragma_parallel_launch_point", 1):
            for step, tail in _with_tails(kernel.program):
                emitter.step(step, tail)
            emitter.end()
    return builder.get()


def _with_tails(program: Program) -> Iterator[tuple[Step, bool]]:
    """Each step, and whether it follows the last scan: then only tokens from `first` on matter."""

    def scans(step: Step) -> bool:
        stages = stages_of(step)
        return any(node.state for stage in stages for node in stage.nodes)

    last = max((i for i, step in enumerate(program.body) if scans(step)), default=-1)
    for i, step in enumerate(program.body):
        yield step, program.kind == "lm" and i > last and isinstance(step, Stage)


@dataclass(frozen=True)
class Emitter:
    """Emits the steps of a kernel; a profiler is one that notes when stages begin."""

    kernel: Kernel
    memory: Memory
    count: Expr
    first: Expr
    threads: Expr

    def begin(self, stage: Stage, thread: Expr) -> None:
        """What a thread does where it begins a stage of one token."""

    def end(self) -> None:
        """What follows the last stage."""

    def step(self, step: Step, tail: bool) -> None:
        if isinstance(step, Stage):
            return self._stage(step, None, tail)
        with I.serial(0, step.count) as layer:
            for stage in step.body:
                self._stage(stage, layer, tail)
        return None

    def _stage(self, stage: Stage, layer: Expr | None, tail: bool) -> None:
        start = self.first if tail and not self.kernel.decode else T.int32(0)
        if self.kernel.decode:
            with self.parallel() as thread:
                self.begin(stage, thread)
                place = Place(T.int32(0), thread, layer, self.first)
                self._rows(stage, place)
                self._tiles(stage, place, start)
            return
        if stage.rows:
            with self.parallel() as thread, self._share(thread, start, self.count) as token:
                self._rows(stage, Place(token, T.int32(0), layer, self.first))
        if stage.tiles:
            with self.parallel() as thread:
                self._tiles(stage, Place(T.int32(0), thread, layer, self.first), start)

    @contextmanager
    def parallel(self) -> Iterator[Expr]:
        """Run the body on every thread, followed by a barrier."""
        with (
            I.attr(0, "pragma_parallel_barrier_when_finish", 1),
            I.parallel(0, self.threads) as thread,
        ):
            yield thread

    @contextmanager
    def _share(self, thread: Expr, start: Expr, stop: Expr) -> Iterator[Expr]:
        """Loop over the thread's part of the range."""
        total = stop - start
        begin = start + thread * total // self.threads
        with I.serial(begin, start + (thread + 1) * total // self.threads) as i:
            yield i

    def _rows(self, stage: Stage, place: Place) -> None:
        for node in stage.rows:
            rows.ROWS[node.op](self.memory, place, node)

    def _tiles(self, stage: Stage, place: Place, start: Expr) -> None:
        for width, nodes in _by_width(self.kernel.program, stage.tiles).items():
            if self.kernel.decode:
                with self._share(place.thread, T.int32(0), T.int32(width // LANES)) as tile:
                    self._tile(nodes, replace(place, column=I.bind(tile * LANES)))
            else:
                self._panels(width // LANES, nodes, place, start)

    def _tile(self, nodes: tuple[Node, ...], place: Place) -> None:
        """A tile of one token, with its products inline."""
        totals = {}
        for node in products(nodes):
            codes = node.inputs[0]
            assert codes is not None
            tile, rows = Tile.of(self.memory, place, node), self.memory.row(codes, place)
            totals[node.outputs[0]] = multiply(self.kernel.isa, tile, [rows])(T.int32(0))
        epilogue(self.memory, place, nodes, totals)

    def _panels(self, tiles: int, nodes: tuple[Node, ...], place: Place, start: Expr) -> None:
        """Split whole panels among the threads; the last thread also takes the remaining tiles."""
        engine = self.kernel.engine if products(nodes) else Vectors()
        panels, rest = divmod(tiles, engine.columns)

        def emit(first: Expr, columns: int) -> None:
            at = replace(place, column=I.bind(first * LANES))
            Panel(engine, self.memory, at, columns, start, self.count).emit(nodes)

        with engine.ready(self.memory, place.thread, start, self.count):
            if panels:
                with self._share(place.thread, T.int32(0), T.int32(panels)) as panel:
                    emit(panel * engine.columns, engine.columns)
            if rest:
                with I.If(place.thread == self.threads - 1), I.Then():
                    emit(T.int32(panels * engine.columns), rest)


def _by_width(program: Program, nodes: tuple[Node, ...]) -> dict[int, tuple[Node, ...]]:
    """Tile ops by padded width: one loop each. Ops of different widths are independent."""
    groups: dict[int, list[Node]] = {}
    for node in nodes:
        width = program.values[node.outputs[0]].width
        groups.setdefault(-(-width // LANES) * LANES, []).append(node)
    return {width: tuple(group) for width, group in groups.items()}
