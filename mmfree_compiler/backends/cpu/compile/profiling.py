"""A library that measures: a decode step that notes when each stage begins, and what bounds it.

All functions take the arguments of run/launcher.py. The first thread notes times, in ticks of the
CPU's counter, in "scratch": int64 numbers, of which the first two are the time of the last note and
the stage that began then; the others are the ticks of each stage so far, its barrier included, and
of what comes between calls. Behind these notes each thread has a line for what it computed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import tvm
from tvm.script import tirx as T
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as I

from mmfree_compiler.artifact import TensorEntry
from mmfree_compiler.backends.cpu.compile import vector as v
from mmfree_compiler.backends.cpu.compile.codegen import executable, linked
from mmfree_compiler.backends.cpu.compile.isa import Isa
from mmfree_compiler.backends.cpu.compile.kernel import Emitter, Kernel, emit
from mmfree_compiler.backends.cpu.compile.memory import Memory, arguments
from mmfree_compiler.backends.cpu.compile.multiply import Tile, multiply
from mmfree_compiler.backends.cpu.compile.planned import PlannedProgram
from mmfree_compiler.backends.cpu.compile.products import BLOCK
from mmfree_compiler.backends.cpu.compile.vector import LANES, Buffer, Expr
from mmfree_compiler.backends.cpu.layouts import LAYOUTS
from mmfree_compiler.backends.cpu.strides import LINE, round_up
from mmfree_compiler.program import Constant, Stage

TIMED, READ, MULTIPLY, COMPUTE = "timed", "read", "multiply", "compute"
HEADER = 2  # cells in front of the stages'
LINES = 8  # cache lines that a thread reads at once
STEP = LINE * LINES
READ_BYTES = 8 << 20  # that a call of `read` reads at least, roughly
REPEATS = 1 << 14  # of the work in registers
MULTIPLIED = 1 << 12  # tiles that one call multiplies, roughly
CHAINS = 8  # independent sums: more than a unit's latency takes
WINDOW = 16 << 10  # bytes of weights that stay in the first cache
_COUNTER = {"x86_64": "llvm.readcyclecounter", "aarch64": "llvm.readsteadycounter"}


def notes_bytes(program: PlannedProgram) -> int:
    """The bytes of the notes of all stages, in whole lines."""
    return round_up(8 * (HEADER + 1 + sum(1 for _ in program.stages())), LINE)


def library(program: PlannedProgram, isa: Isa, tensors: Mapping[str, TensorEntry]) -> bytes:
    """The ELF library of a Program that reads weights in one layout. Raises ToolchainError."""
    decode = Kernel("decode", program, isa, 1)
    made = {TIMED: emit(replace(decode, name=TIMED), tensors, _Timed)}
    bodies: dict[str, Body] = {COMPUTE: _compute}
    if _ternary(program):
        bodies |= {READ: _read, MULTIPLY: _multiply}
    made |= {name: _function(name, decode, tensors, body) for name, body in bodies.items()}
    return linked(executable(made, isa), isa)


class _Timed(Emitter):
    """Notes the time where the first thread begins a stage, and behind the last one."""

    def begin(self, stage: Stage, thread: Expr) -> None:
        stages = [id(each) for each in self.kernel.program.stages()]
        self._note(stages.index(id(stage)), thread)

    def end(self) -> None:
        with self.parallel() as thread:
            self._note(sum(1 for _ in self.kernel.program.stages()), thread)

    def _note(self, stage: int, thread: Expr) -> None:
        counter = _COUNTER[self.kernel.isa.triple.partition("-")[0]]
        with I.If(thread == 0), I.Then():
            cells = I.decl_buffer((1 << 30,), "int64", data=self.memory.buffers["scratch"].data)
            now = I.bind(T.call_llvm_intrin("int64", counter))
            before = I.bind(cells[1] + T.int64(HEADER))
            I.buffer_store(cells, cells[before] + now - cells[0], [before])
            I.buffer_store(cells, now, [0])
            I.buffer_store(cells, T.int64(stage), [1])


# --- what bounds every program -------------------------------------------------------------------

# What each thread does -> 16 int32 to keep.
Body = Callable[[Kernel, Memory, Expr, Expr], Expr]


def _function(
    name: str, kernel: Kernel, tensors: Mapping[str, TensorEntry], body: Body
) -> tvm.tirx.PrimFunc:
    """A function whose threads do `body`; what it returns is stored, so that no work is dropped."""
    with IRBuilder() as builder, I.prim_func(s_tir=True):
        I.func_name(name)
        I.func_attr({"global_symbol": name, "tirx.noalias": True})
        buffers, (count, first, threads) = arguments(kernel.program)
        memory = Memory(kernel.program, buffers, tensors, 1, 1, 0)
        I.evaluate(T.call_extern("int32", "mmfree_set_threads", threads))
        emitter = Emitter(kernel, memory, count, first, threads)
        with I.attr(0, "pragma_parallel_launch_point", 1), emitter.parallel() as thread:
            kept = T.reinterpret("uint8x64", body(kernel, memory, thread, threads))
            v.store(buffers["scratch"], notes_bytes(kernel.program) + thread * LINE, kept, LINE)
    return builder.get()


def read_span(program: PlannedProgram, tensors: Mapping[str, TensorEntry]) -> tuple[int, int]:
    """The first byte that `read` reads, and how many: all ternary weights of the Program.

    It reads them `readings` times, since a call takes microseconds.
    """
    entries = [tensors[constant.name] for constant in _ternary(program)]
    start = min(entry.offset for entry in entries)
    span = max(entry.offset + entry.nbytes for entry in entries) - start
    return start, span // STEP * STEP


def _read(kernel: Kernel, memory: Memory, thread: Expr, threads: Expr) -> Expr:
    """Each thread reads a part of the weights, some lines at once."""
    weights, sums = memory.buffers["weights"], [v.zeros("int32") for _ in range(LINES)]
    start, nbytes = read_span(kernel.program, memory.tensors)
    steps = nbytes // STEP
    begin, end = (I.bind(each * steps // threads) for each in (thread, thread + 1))
    with I.serial(0, readings(nbytes)), I.serial(begin, end) as k:
        at = I.bind(T.int64(start) + T.Cast("int64", k) * T.int64(STEP))
        for line, cell in enumerate(sums):
            found = T.reinterpret(v.INTS, v.load(weights, at + T.int64(LINE * line), "uint8x64"))
            v.store(cell, 0, T.bitwise_xor(v.load(cell, 0, v.INTS), found))
    return _together(sums)


def readings(nbytes: int) -> int:
    """How often `read` reads that many bytes."""
    return max(1, READ_BYTES // max(1, nbytes))


def multiplied(program: PlannedProgram) -> int:
    """How many weights each thread of `multiply` multiplies."""
    weight = _largest(program)
    return MULTIPLIED // _window(weight) * _window(weight) * LANES * weight.matrix_shape[1]


def _window(weight: Constant) -> int:
    """How many tiles of a weight stay in the first cache."""
    tiles, blocks, *_ = LAYOUTS[weight.layout.name].packed_shape(weight.matrix_shape)
    return max(1, min(tiles, WINDOW // (blocks * BLOCK)))


def _multiply(kernel: Kernel, memory: Memory, thread: Expr, threads: Expr) -> Expr:  # noqa: ARG001
    """Tiles of the largest weight that stay in the first cache, times codes, again and again."""
    weight, total = _largest(kernel.program), v.zeros("int32")
    layout, window = LAYOUTS[weight.layout.name], _window(weight)
    blocks = layout.packed_shape(weight.matrix_shape)[1]
    start = memory.constant(weight.name, None)
    with I.serial(0, MULTIPLIED // window), I.serial(0, window) as k:
        first = I.bind(start + T.Cast("int64", k) * T.int64(blocks * BLOCK))
        tile = Tile(layout, memory.buffers["weights"], first, T.int32(blocks))
        sums = multiply(kernel.isa, tile, [(memory.buffers["codes"], T.int32(0))])
        v.store(total, 0, v.load(total, 0, v.INTS) + sums(T.int32(0)))
    return v.load(total, 0, v.INTS)


def _compute(kernel: Kernel, memory: Memory, thread: Expr, threads: Expr) -> Expr:  # noqa: ARG001
    """Products and sums in registers."""
    x = I.bind(v.splat(T.Cast("float32", thread) * T.float32(1e-3)))
    sums = [v.zeros("float32") for _ in range(CHAINS)]
    with I.serial(0, REPEATS):
        for cell in sums:
            v.store(cell, 0, v.add(v.multiply(v.load(cell, 0), x), x))
    return _together([_as_ints(cell) for cell in sums])


def computed() -> int:
    """How many operations each thread of `compute` does."""
    return REPEATS * CHAINS * LANES * 2


def _as_ints(cell: Buffer) -> Buffer:
    ints = v.register("int32")
    v.store(ints, 0, T.reinterpret(v.INTS, v.load(cell, 0)))
    return ints


def _together(cells: list[Buffer]) -> Expr:
    found = v.load(cells[0], 0, v.INTS)
    for cell in cells[1:]:
        found = T.bitwise_xor(found, v.load(cell, 0, v.INTS))
    return found


def _ternary(program: PlannedProgram) -> list[Constant]:
    return [constant for constant in program.constants.values() if constant.role == "ternary"]


def _largest(program: PlannedProgram) -> Constant:
    """The ternary weight with the longest rows, and of these the one with the most."""
    return max(_ternary(program), key=lambda constant: constant.matrix_shape[::-1])
