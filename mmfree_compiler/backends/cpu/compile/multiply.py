"""Ternary products on vectors: a tile of 16 columns of the weight times the tokens' codes.

Decode has one token, and its products are inline. Products of chunks call a function, the same for
all products of the library, so that code size and compile time do not grow with their number. The
function takes tokens in blocks, as many as registers hold accumulators for, and reads the tile once
per block: packed, or unpacked (kept.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import tvm
from tvm.script import tirx as T
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as I

from mmfree_compiler.backends.cpu.compile import vector as v
from mmfree_compiler.backends.cpu.compile.isa import Isa
from mmfree_compiler.backends.cpu.compile.kept import Kept
from mmfree_compiler.backends.cpu.compile.memory import Memory, Place
from mmfree_compiler.backends.cpu.compile.panel import Panel
from mmfree_compiler.backends.cpu.compile.products import BLOCK, Block, Blocks, Fields, total
from mmfree_compiler.backends.cpu.compile.unpack import FIELDS, SHIFTS, Field, Lookup
from mmfree_compiler.backends.cpu.compile.vector import LANES, Buffer, Expr
from mmfree_compiler.backends.cpu.layouts import LAYOUTS, Layout
from mmfree_compiler.program import Node

Row = tuple[Buffer, Expr]  # codes of a token, from an element on
Sums = Callable[[Expr], Expr]  # token -> its 16 integer sums
Source = Callable[[Fields, Expr], Fields]  # (the fields of packed block k, k) -> those to take


@dataclass(frozen=True)
class Tile:
    """The packed weights of a tile: `blocks` blocks of `layout` from byte `start` of `buffer`."""

    layout: Layout
    buffer: Buffer
    start: Expr
    blocks: Expr

    @classmethod
    def of(cls, memory: Memory, place: Place, node: Node) -> Tile:
        """The tile at `place.column` of a product's weight."""
        weight = node.inputs[2]
        assert weight is not None
        constant = memory.program.constants[weight]
        layout = LAYOUTS[constant.layout.name]
        blocks = layout.packed_shape(constant.matrix_shape)[1]
        first = T.Cast("int64", place.column // LANES) * T.int64(blocks * BLOCK)
        start = memory.constant(weight, place.layer) + first
        return cls(layout, memory.buffers["weights"], I.bind(start), T.int32(blocks))


def _packed(fields: Fields, _k: Expr) -> Fields:
    return fields


def multiply(isa: Isa, tile: Tile, rows: Sequence[Row], source: Source = _packed) -> Sums:
    """Emit the products of a tile with the codes of some tokens; returns their sums."""
    product, layout, tokens = isa.product, tile.layout, len(rows)
    sums = [v.register("int32", LANES * tokens) for _ in product.shifts(layout.name, tokens)]
    for cells in sums:
        for lane in range(0, LANES * tokens, LANES):
            v.store(cells, lane, v.splat_int(0))

    def block(k: Expr) -> Block:
        at = I.bind(tile.start + T.Cast("int64", k) * T.int64(BLOCK))

        def part(first: int, size: int) -> Expr:
            if first == 0:
                prefetch(tile.buffer, at, isa.tuning.prefetch)
            return I.bind(v.load(tile.buffer, at + T.int64(first), f"uint8x{size}"))

        def fields(first: int, width: int, lookup: Lookup) -> Sequence[Field]:
            return FIELDS[layout.name](part(first, width), width, lookup)

        def four_codes(token: int, field: int) -> Expr:
            row, first = rows[token]
            return T.reinterpret(
                "int32", v.load(row, first + k * layout.block + 4 * field, "int8x4")
            )

        return Block(part, source(fields, k), four_codes)

    product.add(layout.name, Blocks(tile.blocks, block), sums, tokens)
    return lambda token: total(product, layout.name, sums, token, tokens)


def prefetch(buffer: Buffer, at: Expr, blocks: int) -> None:
    """Prefetch the line `blocks` blocks after `at`: as data, for reading, into all caches."""
    if not blocks:
        return
    address = T.address_of(buffer[at + T.int64(blocks * BLOCK)])
    I.evaluate(
        T.call_llvm_intrin("void", "llvm.prefetch", address, T.int32(0), T.int32(3), T.int32(1))
    )


# --- chunks of tokens ----------------------------------------------------------------------------

FUNCTIONS = {name: tvm.ir.GlobalVar(f"multiply_{name}") for name in LAYOUTS}


@dataclass(frozen=True)
class Vectors:
    """The engine (panel.Engine) that calls the functions of `functions`.

    `reserved`: bytes of scratch for the digits that they keep.
    """

    reserved: int = 0
    columns = 1
    together = 1

    def ready(
        self, _memory: Memory, _thread: Expr, _start: Expr, _count: Expr
    ) -> AbstractContextManager[None]:
        return nullcontext()

    def multiply(self, panel: Panel, index: int, node: Node) -> None:
        memory, codes = panel.memory, node.inputs[0]
        assert codes is not None
        tile = Tile.of(memory, panel.place, node)
        rows, first = memory.row(codes, replace(panel.place, token=panel.start))
        sums, at = panel.sums(index, 0, panel.start)
        digits, digits_at = panel.scratch(0)
        arguments = [
            T.address_of(tile.buffer[tile.start]),
            tile.blocks,
            T.address_of(rows[first]),
            T.int32(memory.stride(codes)),
            panel.count - panel.start,
            T.address_of(digits[digits_at]),
            T.address_of(sums[at]),
        ]
        function = FUNCTIONS[tile.layout.name]
        I.evaluate(tvm.ir.Call(function, arguments, ret_ty=tvm.ir.PrimType("void")))


def functions(isa: Isa, layouts: set[str]) -> dict[tvm.ir.GlobalVar, tvm.tirx.PrimFunc]:
    """The functions that `Vectors` calls: (tile, blocks, codes, stride, tokens, digits, sums)."""
    return {FUNCTIONS[name]: _function(isa, LAYOUTS[name]) for name in sorted(layouts)}


def _function(isa: Isa, layout: Layout) -> tvm.tirx.PrimFunc:
    with IRBuilder() as builder, I.prim_func(s_tir=True, is_private=True):
        I.func_name(FUNCTIONS[layout.name].name_hint)
        I.func_attr({"tirx.noalias": True})
        weights, blocks = _pointer("weights", "uint8"), I.arg("blocks", I.int32())
        codes, stride = _pointer("codes", "int8"), I.arg("stride", I.int32())
        tokens = I.arg("tokens", I.int32())
        digits, sums = _pointer("digits", "uint8"), _pointer("sums", "int32")
        tile = Tile(layout, weights(), T.int64(0), blocks)
        rows, kept, out = codes(), Kept(digits(), len(SHIFTS[layout.name])), sums()
        start: Expr = T.int32(0)
        for size, source, once in _turns(isa, kept):
            whole = (tokens - start) // size
            count = I.bind(T.min(whole, T.int32(1)) if once else whole)
            with I.serial(0, count) as block:
                first = I.bind(start + block * size)
                codes_of = [(rows, I.bind((first + t) * stride)) for t in range(size)]
                found = multiply(isa, tile, codes_of, source)
                for t in range(size):
                    v.store(out, (first + t) * LANES, found(T.int32(t)))
            start = I.bind(start + count * size)
    return builder.get()


def _turns(isa: Isa, kept: Kept) -> Iterator[tuple[int, Source, bool]]:
    """(tokens of a block, where its digits are from, whether it is taken once at most), in order.

    Blocks smaller than the largest come last and are few, so they unpack: one version of each.
    """
    largest, *smaller = isa.token_blocks
    if isa.keeps_digits:
        yield largest, kept.saved, True
        yield largest, kept.loaded, False
    else:
        yield largest, _packed, False
    for size in smaller:
        yield size, _packed, False


def _pointer(name: str, dtype: str) -> Callable[[], Buffer]:
    """Declare a parameter; the result declares its buffer, after all parameters are declared."""
    data = I.arg(name, I.handle(dtype))
    return lambda: I.decl_buffer((1 << 30,), dtype, data=data, align=64)
