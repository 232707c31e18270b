"""Modules that do not run where the compiled form is compared with them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch._C import _len_torch_dispatch_stack

import mmfree_compiler as mmf
from mmfree_compiler.errors import InputError, TraceError
from mmfree_compiler.models import BitLinear


def test_ids_beyond_the_vocabulary() -> None:
    """Tracing sees no values: it is the comparison that finds out."""
    module = nn.Sequential(nn.Embedding(9, 16), BitLinear(16, 8))
    with pytest.raises(InputError, match=r"IndexError: index out of range .* at 0 \(Embedding\)$"):
        mmf.compile(module, "reference", example_inputs=(torch.tensor([[3, 9]]),))


class RunsAlone(nn.Module):
    """Fails where it is watched, and neither in export nor by itself."""

    def forward(self, x: Tensor) -> Tensor:
        if type(x) is Tensor and _len_torch_dispatch_stack():
            raise RuntimeError("watched")
        return x.relu()


def test_a_module_that_cannot_be_watched() -> None:
    with pytest.raises(TraceError, match=r"^RunsAlone: fails where .*: watched\. Pass check=F"):
        mmf.compile(RunsAlone(), "reference", example_inputs=(torch.ones(2, 4),))
