"""This project's model in torch, fp32, eager or compiled.

Its weights are ternary values in fp32, quantized beforehand: the model as published quantizes them
again at every call, which takes many times as long as the product.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.peers import Step
from benchmarks.shapes import Shape
from mmfree_compiler.models import BitLinear, MatMulFreeLM
from mmfree_compiler.models.config import SHAPES
from mmfree_compiler.models.modules import quantize_activations


def prepare(shape: Shape, folder: Path, option: str) -> dict[str, Any]:
    """Nothing: the weights are drawn in memory."""
    return {"parameters": shape.parameters}


def open_model(shape: Shape, folder: Path, option: str, threads: int) -> TorchModel:
    """A model of random weights; `option` "compile" compiles its layers when they first run."""
    torch.set_num_threads(threads)
    model = random_model(shape.name)
    if option == "compile":
        for layer in model.model.layers:  # equal layers share the code of the first
            layer.compile(dynamic=False)
    return TorchModel(model)


class Ternary(nn.Module):
    """A BitLinear whose weight is already ternary."""

    def __init__(self, linear: BitLinear) -> None:
        super().__init__()
        self.norm, self.weight = linear.norm, linear.weight

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(quantize_activations(self.norm(x)), self.weight)


def random_model(name: str) -> MatMulFreeLM:
    """The published shape `name` with random ternary weights in fp32."""
    with torch.device("meta"):
        model = MatMulFreeLM(SHAPES[name])
    for path, module in list(model.named_modules()):
        if isinstance(module, BitLinear):
            model.set_submodule(path, Ternary(module))
    model = model.to_empty(device="cpu").eval().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter.fill_(1)
        else:
            parameter.copy_(torch.randint(-1, 2, parameter.shape, dtype=torch.int8)).mul_(0.02)
    return model


class TorchModel:
    """Steps of the model under inference mode; the head runs for the last token only."""

    def __init__(self, model: MatMulFreeLM) -> None:
        self.model = model

    @cached_property
    def weight_bytes(self) -> int:
        """Bytes of all parameters but the embedding, of which a step reads one row."""
        sizes = {name: p.numel() * p.itemsize for name, p in self.model.named_parameters()}
        return sum(size for name, size in sizes.items() if "embeddings" not in name)

    @property
    def steps(self) -> dict[str, Callable[[int], Step]]:
        return {"decode": self._decode, "prefill": self._prefill}

    @torch.inference_mode()
    def _run(self, tokens: Tensor, state: Any) -> Any:
        x, after = self.model.model(tokens, state, None)
        self.model.lm_head(x[:, -1:])
        return after

    def _decode(self, batch: int) -> Step:
        tokens = torch.arange(1, 1 + batch)[:, None]
        state = self._run(tokens, None)

        def step() -> None:
            nonlocal state
            state = self._run(tokens, state)

        return step

    def _prefill(self, length: int) -> Step:
        tokens = torch.arange(length)[None]
        return lambda: self._run(tokens, None)
