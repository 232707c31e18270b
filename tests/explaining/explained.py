"""A small model, explained: two layers, compiled for a target that needs no code generator."""

from __future__ import annotations

from functools import cache

import mmfree_compiler as mmf
from mmfree_compiler.checking import Check
from mmfree_compiler.compiled_model import CompiledModel
from mmfree_compiler.models import MatMulFreeLM, ModelConfig
from mmfree_compiler.models.initial import initialize

WIDTH, LAYERS, VOCABULARY = 32, 2, 20


def tiny_lm() -> MatMulFreeLM:
    model = MatMulFreeLM(ModelConfig.of(WIDTH, LAYERS, VOCABULARY)).eval()
    initialize(model, 0)
    return model


@cache
def compiled(check: Check = False, target: str = "reference") -> CompiledModel:
    return mmf.compile(tiny_lm(), target, check=check)
