"""Dot products of four bytes into int32: one instruction per field, which cannot saturate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tvm.script import tirx as T
from tvm.tirx.script.builder import ir as I

from mmfree_compiler.backends.cpu.compile.products import (
    BLOCK,
    Block,
    Blocks,
    fields_in_order,
)
from mmfree_compiler.backends.cpu.compile.unpack import SHIFTS, Lookup
from mmfree_compiler.backends.cpu.compile.vector import LANES, Buffer, Expr, load, store


@dataclass(frozen=True)
class Dot:
    """`intrinsic(sums, digits, codes)` on vectors of `width` bytes.

    `unsigned`: it takes digits as unsigned bytes, so that one token's fields are multiplied in
    place, without shifts, each into a separate accumulator. `registers` is the number of registers
    for accumulators of several tokens: the instruction has a latency of 5 and starts twice per
    cycle, so with fewer than ten accumulators it would wait for sums.
    """

    intrinsic: str
    width: int
    unsigned: bool
    lookup: Lookup
    registers: int = 16

    def shifts(self, layout: str, tokens: int, /) -> tuple[int, ...]:
        if self._in_place(tokens):
            return SHIFTS[layout]
        most = self.registers * self.width // (BLOCK * tokens)
        return (0,) * max(1, min(most, len(SHIFTS[layout])))

    def add(self, _layout: str, blocks: Blocks, sums: Sequence[Buffer], tokens: int) -> None:
        with I.serial(0, blocks.count) as k:
            self._block(blocks.at(k), sums, tokens)

    def _block(self, block: Block, sums: Sequence[Buffer], tokens: int) -> None:
        for s, fields in fields_in_order(block.fields, self.width, self.lookup, tokens):
            digits = [
                (first // 4, field.digits(field.shift if self._in_place(tokens) else 0))
                for first, field in fields
            ]
            for token in range(tokens):
                for lane, weights in digits:
                    at = token * LANES + lane
                    self._multiply(sums[s % len(sums)], at, weights, block.codes(token, s))

    def _in_place(self, tokens: int) -> bool:
        return self.unsigned and tokens == 1

    def _multiply(self, sums: Buffer, at: int, digits: Expr, codes: Expr) -> None:
        kind, count = f"int8x{self.width}", self.width // 4
        weights = digits if self.unsigned else T.reinterpret(kind, digits)
        four = T.reinterpret(kind, T.broadcast(codes, count))
        before = load(sums, at, f"int32x{count}")
        after = T.call_llvm_pure_intrin(f"int32x{count}", self.intrinsic, before, weights, four)
        store(sums, at, after, count)
