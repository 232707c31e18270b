"""What tests of whole models on a GPU share: a model, and whether there is a GPU with torch."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

import mmfree_compiler as mmf
from mmfree_compiler.backends.cuda import spec
from mmfree_compiler.compiled_model import CompiledModel
from mmfree_compiler.errors import TargetError

DEMO = Path(__file__).parents[3] / "demo"


def _without_gpu() -> str:
    """Why torch and the CUDA target cannot run here together; empty where they can."""
    try:
        spec.here()
    except TargetError as error:
        return str(error)
    return "" if torch.cuda.is_available() else "this torch is one without CUDA"


needs_gpu = pytest.mark.skipif(bool(_without_gpu()), reason=_without_gpu())


@cache
def compiled() -> CompiledModel:
    return mmf.compile(DEMO, "cuda")


def tokens(batch: int, length: int) -> Tensor:
    """(batch, length) int64, on the host."""
    vocab = compiled().session.language_model.vocab_size
    return torch.randint(vocab, (batch, length), generator=torch.Generator().manual_seed(batch))
