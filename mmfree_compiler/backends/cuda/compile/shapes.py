"""How much of a launch one program makes, and the plans that use which shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from mmfree_compiler.backends.cuda.compile.schedule import Kind
from mmfree_compiler.backends.cuda.strides import CHUNK

_LARGEST_BLOCK = 1024
_FEWEST_COLUMNS = 8


@dataclass(frozen=True)
class Shape:
    """`tokens` x `columns` for a program of `warps` warps.

    `function` of kernels/products.py multiplies, `block_k` columns of a weight at a time.
    """

    tokens: int
    columns: int
    warps: int
    function: str = "gemv"
    block_k: int = 256

    def fitted(self, k: int) -> Shape:
        """The shape for rows of k codes: that in which a gemv loads 16 bytes at a time."""
        if self.function != "gemv":
            return self
        block_k = min(_LARGEST_BLOCK, max(256, 1 << (k - 1).bit_length()))
        return replace(self, block_k=block_k, columns=2048 * self.warps // block_k)

    def spread(self, width: int) -> Shape:
        """The shape in which `columns` programs make `width` columns; a program makes a few."""
        return replace(self, columns=max(_FEWEST_COLUMNS, -(-width // self.columns)))

    @property
    def name(self) -> str:
        """Tells kernels of one part apart."""
        return f"{self.tokens}x{self.columns}"

    def product(self, codes: tuple[str, int], rows: tuple[str, str], weight: str, k: int) -> str:
        """The integer sums of rows of codes, from the first of `rows` to before the second.

        `codes` are a pointer and the bytes from row to row; a row has `k` codes.
        """
        pointer, stride = codes
        first, end = rows
        source = _SOURCES[self.function].format(pointer, stride, first, end)
        column = f"tl.program_id(0) * {self.columns}"
        sizes = f"{k}, {self.tokens}, {self.columns}, {self.block_k}, ASM"
        return f"products.{self.function}({source}, {weight}, {column}, {sizes})"


# What tells a product its rows of codes: pointer, bytes from row to row, first row, end.
_SOURCES = {
    "gemv": "{0} + {2} * {1}, {1}, {3} - {2}",
    "gemm": "{0}, {1}, {2}, {3}",
}


@dataclass(frozen=True)
class PlanShape:
    """A plan for calls of at most `tokens` tokens: see facts.Plan."""

    tokens: int
    together: bool
    shapes: Mapping[Kind, Shape]

    @property
    def fused(self) -> bool:
        """Whether it may have parts of that kind."""
        return "fused" in self.shapes


_ROWS, _SCAN = Shape(1, 1, 4), Shape(1, 64, 2)
_FEW = {tokens: Shape(tokens, 32, 4) for tokens in (1, 8)}
_MANY = Shape(64, 64, 4, "gemm", 256)


_FUSED = Shape(1, 128, 8)


def _plan(tokens: int, together: bool, tiles: Shape, fused: Shape | None = None) -> PlanShape:
    shapes: dict[Kind, Shape] = {"rows": _ROWS, "tiles": tiles, "scan": _SCAN}
    return PlanShape(tokens, together, shapes | ({"fused": fused} if fused else {}))


# In order of preference: the first that takes a call's tokens.
PLANS = (
    _plan(1, False, _FEW[1], _FUSED),
    _plan(8, False, _FEW[8]),
    _plan(CHUNK, False, _MANY),
    _plan(8, True, _FEW[8]),
    _plan(CHUNK, True, _MANY),
)
