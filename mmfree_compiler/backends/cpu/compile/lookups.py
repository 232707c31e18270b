"""Looking up each byte of a vector in a table of 64 bytes: a function per shuffle instruction."""

from __future__ import annotations

import numpy as np
from tvm.script import tirx as T
from tvm.tirx.script.builder import ir as I

from mmfree_compiler.backends.cpu.compile.unpack import Lookup, table
from mmfree_compiler.backends.cpu.compile.vector import Expr
from mmfree_compiler.backends.ternary import Bytes


def vbmi_lookup(entries: Bytes, index: Expr, width: int) -> Expr:
    """vpermb uses only the low six bits of an index."""
    intrinsic = "llvm.x86.avx512.permvar.qi.512"
    return T.call_llvm_pure_intrin(f"uint8x{width}", intrinsic, table(entries), index)


def neon_lookup(entries: Bytes, index: Expr, width: int) -> Expr:
    """tbl of four registers. It gives zero for an index above 63, so indices are masked."""
    quarters = [table(entries[first : first + width]) for first in range(0, 64, width)]
    low = T.bitwise_and(index, T.broadcast(T.uint8(63), width))
    return T.call_llvm_pure_intrin(f"uint8x{width}", "llvm.aarch64.neon.tbl4", *quarters, low)


def _by_quarters(intrinsic: str) -> Lookup:
    """A shuffle within 16 bytes per quarter of the table; bits 4 and 5 choose the quarter."""

    def lookup(entries: Bytes, index: Expr, width: int) -> Expr:
        def bit(mask: int) -> Expr:
            picked = T.bitwise_and(index, T.broadcast(T.uint8(mask), width))
            return picked != T.broadcast(T.uint8(0), width)

        low = I.bind(T.bitwise_and(index, T.broadcast(T.uint8(15), width)))
        found = [
            T.call_llvm_pure_intrin(f"uint8x{width}", intrinsic, table(quarter), low)
            for quarter in np.tile(entries.reshape(4, 16), width // 16)
        ]
        lower, upper = (T.Select(bit(16), found[q + 1], found[q]) for q in (0, 2))
        return T.Select(bit(32), upper, lower)

    return lookup


avx2_lookup = _by_quarters("llvm.x86.avx2.pshuf.b")
avx512_lookup = _by_quarters("llvm.x86.avx512.pshuf.b.512")
