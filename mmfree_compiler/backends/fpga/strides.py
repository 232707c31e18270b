"""The memory layout of rows, which the compiler, the machine and the runtime share.

All memories are addressed in lines of 64 bytes.
"""

from __future__ import annotations

LINE = 64  # bytes
FLOATS = LINE // 4


def round_up(n: int, multiple: int) -> int:
    """The smallest multiple of `multiple` that is at least n."""
    return -(-n // multiple) * multiple


def row_lines(width: int) -> int:
    """Lines of a row of `width` fp32 values."""
    return -(-width // FLOATS)


def code_lines(width: int) -> int:
    """Lines of a row of `width` activation codes, and of the line behind them with their scale."""
    return -(-width // LINE) + 1


def packed_lines(width: int, size: int) -> int:
    """Lines of a row of `width` values of `size` bytes."""
    return -(-width * size // LINE)
