"""MatMul-free language models: layers, checkpoints, training."""

from mmfree_compiler.models.checkpoint import load_checkpoint, save_checkpoint
from mmfree_compiler.models.config import ModelConfig
from mmfree_compiler.models.initial import random_checkpoint
from mmfree_compiler.models.lm import MatMulFreeLM
from mmfree_compiler.models.modules import GLU, MLGRU, BitLinear, RMSNorm

__all__ = [
    "GLU",
    "MLGRU",
    "BitLinear",
    "MatMulFreeLM",
    "ModelConfig",
    "RMSNorm",
    "load_checkpoint",
    "random_checkpoint",
    "save_checkpoint",
]
