"""Whether a machine fits into a chip: an estimate of LUTs, DSP slices and memory.

docs/targets/fpga.md says where the costs come from. They leave out the sequencer, DMA and the
memory controller, for which SPARE of the chip stays free.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mmfree_compiler.backends.fpga.board import Board
from mmfree_compiler.backends.fpga.isa.steps import FORGET
from mmfree_compiler.backends.fpga.layouts import DENSITIES
from mmfree_compiler.errors import TargetError

SPARE = 0.2
# The fp32 steps of a lane: of VEC, whose longest function has all others in it, and of ROW.
_VEC = (*FORGET, "sqrt")
_ROW = ("mul",) * 4 + ("square",) * 2 + ("compare",) * 3 + ("convert",) * 3


@dataclass(frozen=True)
class Cost:
    """What parts of the machine cost on a family of chips.

    `tile` are the LUTs of 64 ternary lanes with their adders, `decoder` those of a byte of five
    digits; `steps` has (LUTs, DSP slices) of each fp32 step.
    """

    tile: int
    decoder: int
    steps: dict[str, tuple[int, int]]


_FABRIC = {"compare": (40, 0), "convert": (150, 0), "div": (800, 0), "sqrt": (500, 0)}
COSTS = {
    "ultrascale+": Cost(1329, 40, _FABRIC | {"mul": (90, 3), "add": (220, 2), "square": (60, 2)}),
    "stratix10": Cost(1329, 40, _FABRIC | {"mul": (0, 1), "add": (0, 1), "square": (60, 2)}),
    "ecp5": Cost(1519, 60, _FABRIC | {"mul": (300, 4), "add": (550, 0), "square": (100, 4)}),
}


@dataclass(frozen=True)
class Use:
    """What a machine needs of one resource, and what the chip has."""

    name: str
    needed: int
    has: int

    @property
    def share(self) -> float:
        return self.needed / self.has if self.has else float(self.needed > 0)


def uses(board: Board, density: str) -> Iterator[Use]:
    """The LUTs, the DSP slices and the KiB of memory of a machine for weights of this density."""
    cost, packing = COSTS[board.resources.family], DENSITIES[density]
    decoders = 64 * cost.decoder if packing.base == 3 else 0
    lane = [cost.steps[step] for step in (*_VEC, *_ROW)]
    luts = board.engines * (packing.rows * cost.tile + decoders)
    luts += board.vector_lanes * sum(step[0] for step in lane)
    dsps = board.vector_lanes * sum(step[1] for step in lane)
    memory = board.scratch_kib + board.codes_kib + board.fifo_kib
    yield Use("LUTs", luts, board.resources.luts)
    yield Use("DSP slices", dsps, board.resources.dsps)
    yield Use("KiB of memory", memory, board.resources.memory_kib)


def check_fits(board: Board, density: str) -> None:
    """Raise TargetError when the machine needs more of a resource than the chip can spare."""
    for use in uses(board, density):
        if use.share > 1 - SPARE:
            cause = f"needs {use.needed:,} {use.name} of {use.has:,}; {SPARE:.0%} must stay free"
            hint = "Give it fewer engines or lanes, or smaller memories"
            raise TargetError(f"board {board.name!r}", cause, hint)
