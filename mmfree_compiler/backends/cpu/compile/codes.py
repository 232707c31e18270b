"""Writing a row's int8 codes and their scale: see ops/quantize.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tvm.script import tirx as T
from tvm.tirx.script.builder import ir as I

from mmfree_compiler import elementary as e
from mmfree_compiler.backends.cpu.compile import vector as v
from mmfree_compiler.backends.cpu.compile.memory import SUM, Memory, Place
from mmfree_compiler.backends.cpu.compile.reductions import (
    Peak,
    Row,
    add,
    columns,
    if_finite,
    valid,
)
from mmfree_compiler.backends.cpu.compile.vector import LANES, Buffer, Expr
from mmfree_compiler.backends.cpu.strides import round_up


@dataclass(frozen=True)
class Codes:
    """The codes of a row `v` (`row`) with a factor r: those of v * r, and the scale of both.

    Most rows need r for the scale alone, so `writer` comes before r is known, and `finish` after.
    """

    memory: Memory
    place: Place
    codes: str
    scale: str
    row: Row
    peak: Peak
    quant_eps: float
    total: Buffer = field(default_factory=lambda: v.zeros("int32"))

    def writer(self) -> Callable[[Expr, int], None]:
        """Writes the codes of 16 columns, unless the row turns out to be tiny."""
        return self._writer(I.bind(T.float32(e.CODE_MAX) / self.peak.floored))

    def finish(self, r: Expr) -> None:
        """Write the codes of a tiny row again, then the scale, their sum, and the padding."""
        memory, smallest = self.memory, T.float32(self.quant_eps)
        absmax = I.bind(self.peak.floored * r)
        tiny = I.bind(absmax < smallest)
        with I.If(tiny), I.Then():
            v.clear(self.total)
            factor = I.bind(r * T.float32(e.codes_per_unit(self.quant_eps)))
            columns(memory.width(self.codes), self._writer(factor))
        for column in range(
            round_up(memory.width(self.codes), LANES), memory.stride(self.codes), LANES
        ):
            self._store(T.int32(column), v.splat_int(0))  # see strides.CODES_SLACK
        floats, start = memory.row(self.scale, self.place)
        # NaN is not less than anything; the scale carries it to the outputs.
        found = T.Select(tiny, smallest, if_finite(absmax, absmax))
        I.buffer_store(floats, found / T.float32(e.CODE_MAX), [start])
        summed = T.reinterpret("float32", v.fold(self.total, add))
        I.buffer_store(floats, summed, [start + SUM])

    def _writer(self, factor: Expr) -> Callable[[Expr, int], None]:
        def write(column: Expr, lanes: int) -> None:
            # |v * factor| <= 127 (1 + 2^-22): rounding cannot leave int8, so there is no clamp.
            code = I.bind(v.to_int(valid(self.row(column), lanes) * v.splat(factor)))
            self._store(column, code)
            v.store(self.total, 0, v.load(self.total, 0, v.INTS) + code)

        return write

    def _store(self, column: Expr, code: Expr) -> None:
        target = self.memory.codes(self.codes, self.place, column)
        v.store(*target, T.Cast(f"int8x{LANES}", code))
