"""An artifact is the same file whatever the CPU and the number of threads that compile it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import DEMO
from golden_cases import BUNDLED
from torch import Tensor, nn

import mmfree_compiler as mmf
from mmfree_compiler.models import BitLinear, ModelConfig
from mmfree_compiler.models.initial import random_checkpoint

# torch's kernels for any x86-64, and those for AVX2; without the variable, the best it finds here.
MACHINES = [(1, "default"), (2, "avx2"), (2, None)]


class Constants(nn.Module):
    """A layer, and constants of every kind that has steps."""

    def __init__(self) -> None:
        super().__init__()
        numbers = np.random.default_rng(0)
        self.layer = BitLinear(257, 300)
        for parameter in self.layer.parameters():
            parameter.data = torch.from_numpy(numbers.normal(size=parameter.shape)).float()
        self.gain = nn.Parameter(torch.from_numpy(numbers.normal(size=(400, 300))).float())

    def forward(self, x: Tensor) -> Tensor:
        bounds = self.gain.softmax(0).cumsum(0)
        functions = self.gain.exp() + self.gain.tanh() * self.gain.sigmoid()
        sizes = self.gain.abs().sum(0).rsqrt() + self.gain.mean() + functions.mean(0)
        y: Tensor = self.layer(x)
        return y * sizes + bounds[7] + self.gain.log1p().nan_to_num()[3]


def digests(folder: Path) -> list[str]:
    """SHA-256 of each model's file."""
    found = []
    models: list[Path | nn.Module] = [folder / "random", BUNDLED / "conv_shared", Constants()]
    for model in models:
        inputs = (torch.ones(2, 257),) if isinstance(model, nn.Module) else None
        compiled = mmf.compile(model, "reference", example_inputs=inputs, check=False)
        compiled.artifact.save(folder / "made.mmfree")
        found.append(hashlib.sha256((folder / "made.mmfree").read_bytes()).hexdigest())
    return found


def on(threads: int, capability: str | None, folder: Path) -> list[str]:
    """`digests` in a process whose torch has this many threads and these kernels."""
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import torch, pathlib, test_same_bytes\n"
        f"torch.set_num_threads({threads})\n"
        f"print(*test_same_bytes.digests(pathlib.Path({str(folder)!r})))"
    )
    changed = {} if capability is None else {"ATEN_CPU_CAPABILITY": capability}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | changed,
    )
    return done.stdout.split()


@pytest.mark.slow
def test_files_are_the_same_bytes(tmp_path: Path) -> None:
    demo = ModelConfig.read(DEMO / "config.json")
    small = demo.model_copy(update={"num_hidden_layers": 3})
    random_checkpoint(tmp_path / "random", small, torch.float32)
    first, *others = [on(threads, which, tmp_path) for threads, which in MACHINES]
    assert len(set(first)) == 3
    assert others == [first] * len(others)
