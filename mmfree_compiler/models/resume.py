"""A training run as one safetensors file: weights, optimizer, random state; no pickle."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mmfree_compiler.errors import CheckpointError
from mmfree_compiler.models.lm import MatMulFreeLM

HINT = "Train into another folder, or delete this file"


@dataclass
class Run:
    """A run in progress; `history` has [step, loss, held-out bits per byte] per measurement."""

    model: MatMulFreeLM
    optimizer: torch.optim.AdamW
    generator: torch.Generator
    step: int = 0
    history: list[list[float]] = field(default_factory=list)

    def save(self, path: Path, settings: str) -> None:
        """Write the run to `path`; `settings` says what it may be resumed with."""
        tensors = {f"model/{name}": p.data for name, p in self.model.named_parameters()}
        for name, p in self.model.named_parameters():
            tensors |= {f"adam/{name}/{key}": t for key, t in self.optimizer.state[p].items()}
        tensors["generator"] = self.generator.get_state()
        progress = json.dumps({"step": self.step, "history": self.history})
        save_file(tensors, path, metadata={"progress": progress, "settings": settings})

    def load(self, path: Path, settings: str) -> None:
        """Continue the run at `path`. Raises CheckpointError if it is damaged or another run."""
        try:
            with safe_open(path, framework="pt") as opened:
                metadata = opened.metadata() or {}
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            if metadata.get("settings") != settings:
                cause = "holds a run of other settings (steps, batch, ...) or another corpus"
                raise CheckpointError(str(path), cause, HINT)
            self._restore(tensors)
            progress = json.loads(metadata["progress"])
            self.step, self.history = progress["step"], progress["history"]
        except (SafetensorError, OSError, KeyError, ValueError, RuntimeError) as error:
            raise CheckpointError(str(path), f"cannot be read: {error}", HINT) from None

    @torch.no_grad()
    def _restore(self, tensors: dict[str, Tensor]) -> None:
        for name, p in self.model.named_parameters():
            p.copy_(tensors[f"model/{name}"])
            prefix = f"adam/{name}/"
            self.optimizer.state[p] = {
                key.removeprefix(prefix): tensor.clone()
                for key, tensor in tensors.items()
                if key.startswith(prefix)
            }
        self.generator.set_state(tensors["generator"].clone())
