"""Unpacking weights into digits: how each layout's bytes become operands of products.

A block's bytes hold, for 16 rows, groups of four columns; byte 4i+j of a vector belongs to row i
and column j of every group. A group's digits, `w + 1`, come out as a *field*: two bits of each byte
of a vector, at bit `shift`. `FIELDS` uses the instruction set's lookup in tables of 64 bytes,
`DIGITS` plain arithmetic on 16-bit lanes, for instruction sets without such a lookup.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import tvm
from tvm.script import tirx as T
from tvm.tirx.script.builder import ir as I

from mmfree_compiler.backends.cpu.compile.vector import Expr
from mmfree_compiler.backends.cpu.layouts import TILE16_2BIT, TILE16_TRITS, TRIT_DIGITS
from mmfree_compiler.backends.ternary import Bytes

# (64 entries, indices, bytes of the vector) -> entries; only the low six bits of an index count
Lookup = Callable[[Bytes, Expr, int], Expr]

_TWO_BITS = 3
_ABOVE = 192  # from this byte on, a table gives all five digits (see layouts._trit_codes)


@dataclass(frozen=True)
class Field:
    """The digits of four columns: bits `shift` and `shift + 1` of each byte of `packed`."""

    packed: Expr
    shift: int
    width: int

    def digits(self, left: int = 0) -> Expr:
        """The digits, 0 to 2, times 2**left, unsigned; `left` is at most `shift`."""
        right = T.broadcast(T.uint8(self.shift - left), self.width)
        moved = T.shift_right(self.packed, right) if self.shift > left else self.packed
        return I.bind(T.bitwise_and(moved, T.broadcast(T.uint8(_TWO_BITS << left), self.width)))


# The position of each field's two bits in its bytes.
SHIFTS = {TILE16_2BIT.name: (0, 2, 4, 6), TILE16_TRITS.name: (0, 2, 4, 6, 6)}


# One signature for all layouts; this one needs no table.
def _two_bit_fields(packed: Expr, width: int, lookup: Lookup) -> Sequence[Field]:  # noqa: ARG001
    return [Field(packed, shift, width) for shift in SHIFTS[TILE16_2BIT.name]]


def _trit_fields(block: Expr, width: int, lookup: Lookup) -> Sequence[Field]:
    above = block >= T.broadcast(T.uint8(_ABOVE), width)
    quads = I.bind(
        T.Select(above, lookup(QUADS_ABOVE, block, width), lookup(QUADS_BELOW, block, width))
    )
    fifth = I.bind(T.Select(above, lookup(FIFTH_ABOVE, block, width), block))
    sources = (quads, quads, quads, quads, fifth)
    shifts = SHIFTS[TILE16_TRITS.name]
    return [Field(packed, shift, width) for packed, shift in zip(sources, shifts, strict=True)]


def table(entries: Bytes) -> Expr:
    """A constant vector of bytes; their number is a multiple of four."""
    words = [T.uint32(int(word)) for word in np.ascontiguousarray(entries).view("<u4")]
    order = [T.int32(i) for i in range(len(words))]
    return T.reinterpret(f"uint8x{entries.size}", tvm.tirx.Shuffle(words, order))


def _quads(first: int) -> Bytes:
    """Digits 0 to 3 of the 64 bytes from `first` on, as 2-bit fields of a byte."""
    d = TRIT_DIGITS[first : first + 64]
    return (d[:, 0] | d[:, 1] << 2 | d[:, 2] << 4 | d[:, 3] << 6).astype(np.uint8)


QUADS_BELOW, QUADS_ABOVE = _quads(0), _quads(_ABOVE)
FIFTH_ABOVE: Bytes = TRIT_DIGITS[_ABOVE:, 4] << np.uint8(6)

FIELDS: dict[str, Callable[[Expr, int, Lookup], Sequence[Field]]] = {
    TILE16_2BIT.name: _two_bit_fields,
    TILE16_TRITS.name: _trit_fields,
}


# --- by arithmetic: a byte as an int16 in 0..255 -> digits as int16 ------------------------------


def _int16(value: int, lanes: int = 32) -> Expr:
    return T.broadcast(T.int16(value), lanes)


def _two_bit_digits(byte: Expr) -> list[Expr]:
    return [
        I.bind(T.bitwise_and(T.shift_right(byte, _int16(2 * s)), _int16(_TWO_BITS)))
        for s in range(4)
    ]


def _trit_digits(byte: Expr) -> list[Expr]:
    """The inverse of layouts._trit_codes, with divisions as products, each exact in its range."""
    above = byte >= _int16(_ABOVE)
    rest = byte - _int16(_ABOVE)
    high = I.bind(T.shift_right(rest * _int16(241), _int16(12)))  # rest // 17, exact up to 63
    fifth = I.bind(T.Select(above, high, T.shift_right(byte, _int16(6))))
    low = T.bitwise_and(byte, _int16(63))
    quad = I.bind(T.Select(above, rest - high * _int16(17) + _int16(64), low))
    digits = []
    for _ in range(3):
        third = I.bind(T.shift_right(quad * _int16(171), _int16(9)))  # quad // 3, exact up to 127
        digits.append(I.bind(quad - third * _int16(3)))
        quad = third
    return [*digits, quad, fifth]


DIGITS: dict[str, Callable[[Expr], list[Expr]]] = {
    TILE16_2BIT.name: _two_bit_digits,
    TILE16_TRITS.name: _trit_digits,
}
