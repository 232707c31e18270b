"""The compiler's pipeline: one pass per file, the order in two tuples."""

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
from mmfree_compiler.passes.pipeline import Observer, Pass, run, tell
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

# The Program that `lower` makes of that graph -> stages and loops; the passes of a backend follow.
PROGRAM: tuple[Pass[Program], ...] = (GroupStages(), RollLayers())


__all__ = [
    "GRAPH",
    "PROGRAM",
    "LeftOver",
    "Observer",
    "Pass",
    "check_supported",
    "left_over",
    "lower",
    "run",
    "tell",
]
