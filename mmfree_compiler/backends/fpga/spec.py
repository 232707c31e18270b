"""The options of an fpga target: a board, and "density=BITS"."""

from __future__ import annotations

from dataclasses import dataclass

from mmfree_compiler.backends.fpga.board import Board, read_board
from mmfree_compiler.backends.fpga.layouts import DENSITIES, Trits
from mmfree_compiler.backends.fpga.resources import check_fits
from mmfree_compiler.errors import TargetError

DEFAULT_BOARD, DEFAULT_DENSITY = "d5005", "1.6"


@dataclass(frozen=True)
class Spec:
    """The board to compile for, by name or file, and the bits per ternary weight."""

    named: str
    board: Board
    density: str = DEFAULT_DENSITY

    def __str__(self) -> str:
        named = () if self.named == DEFAULT_BOARD else (self.named,)
        density = () if self.density == DEFAULT_DENSITY else (f"density={self.density}",)
        return ",".join((*named, *density))

    @property
    def layout(self) -> Trits:
        return Trits(self.density, self.board.engines)


def parse(options: str) -> Spec:
    """Parse "kv260,density=2"; without a board, for the default one.

    Raises a TargetError that lists the known words on an unknown one.
    """
    named, density = DEFAULT_BOARD, DEFAULT_DENSITY
    words = options.split(",") if options else []
    for position, word in enumerate(words):
        name, assigned, value = word.partition("=")
        if position == 0 and not assigned:
            named = word
        elif name == "density" and value in DENSITIES:
            density = value
        else:
            known = ", ".join(f"density={bits}" for bits in DENSITIES)
            hint = f"Write fpga:BOARD, and after it perhaps {known}"
            raise TargetError(f"target 'fpga:{options}'", f"has the unknown option {word!r}", hint)
    board = read_board(named)
    check_fits(board, density)
    return Spec(named, board, density)
