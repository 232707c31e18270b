"""The compiler's pipeline: one pass a file, the order in a tuple."""

from __future__ import annotations

from torch.fx import GraphModule

from mmfree_compiler.passes.canonicalize import Canonicalize
from mmfree_compiler.passes.check_supported import LeftOver, check_supported, left_over
from mmfree_compiler.passes.detect_bitlinear import DetectBitLinear
from mmfree_compiler.passes.detect_gated_norm import DetectGatedNorm
from mmfree_compiler.passes.detect_glu import DetectGLU
from mmfree_compiler.passes.detect_mlgru import DetectMLGRU
from mmfree_compiler.passes.detect_norm import DetectNorm
from mmfree_compiler.passes.fold_constants import FoldConstants
from mmfree_compiler.passes.fuse_norm_quant import FuseNormQuant
from mmfree_compiler.passes.group_stages import GroupStages
from mmfree_compiler.passes.lower import lower
from mmfree_compiler.passes.lower_pointwise import LowerPointwise
from mmfree_compiler.passes.pack_weights import PackWeights
from mmfree_compiler.passes.pipeline import NumericCheck, Observer, Pass, run
from mmfree_compiler.passes.plan_memory import PlanMemory
from mmfree_compiler.passes.roll_layers import RollLayers
from mmfree_compiler.passes.split_linear import SplitLinear
from mmfree_compiler.passes.ternarize import Ternarize
from mmfree_compiler.program import Program

# torch.fx graph of ATen ops -> graph of mmfree ops; it runs in torch after every pass.
GRAPH: tuple[Pass[GraphModule], ...] = (
    Canonicalize(),
    DetectNorm(),
    DetectMLGRU(),
    DetectGatedNorm(),
    DetectGLU(),
    DetectBitLinear(),
    Ternarize(),
    FoldConstants(),
    SplitLinear(),
    FuseNormQuant(),
    LowerPointwise(),
)

# The Program that `lower` makes of that graph -> stages, loops, packed constants, planned scratch.
PROGRAM: tuple[Pass[Program], ...] = (GroupStages(), RollLayers())


def program_passes(layout: str | None) -> tuple[Pass[Program], ...]:
    """PROGRAM, and the packing for a target that wants ternary weights in `layout`."""
    return PROGRAM if layout is None else (*PROGRAM, PackWeights(layout), PlanMemory())


__all__ = [
    "GRAPH",
    "PROGRAM",
    "LeftOver",
    "NumericCheck",
    "Observer",
    "Pass",
    "check_supported",
    "left_over",
    "lower",
    "program_passes",
    "run",
]
