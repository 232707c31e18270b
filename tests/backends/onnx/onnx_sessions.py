"""Sessions of ONNX models, as several tests open them."""

from __future__ import annotations

import pytest
from torch import Tensor, nn

import mmfree_compiler as mmf
from mmfree_compiler.backends.onnx.run.engine import OPTIMIZATIONS
from mmfree_compiler.compiled_model import CompiledModel
from mmfree_compiler.runtime import Session

TARGETS = ("onnx", "onnx:ms")
targets = pytest.mark.parametrize("target", TARGETS)
levels = pytest.mark.parametrize("level", OPTIMIZATIONS)


def compiled(target: str, module: nn.Module, *inputs: Tensor) -> CompiledModel:
    return mmf.compile(module, target, example_inputs=inputs)


def opened(model: CompiledModel, level: str = "all", threads: int = 1) -> Session:
    return Session(model.artifact, threads, optimizations=level)
