"""A training run as one safetensors file: weights, optimizer, random state; no pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
from pydantic import BaseModel, Field, FiniteFloat, ValidationError
from safetensors.torch import save_file
from torch import Tensor

from mmfree_compiler.errors import CheckpointError
from mmfree_compiler.models.json_file import JsonError, parse_json
from mmfree_compiler.models.lm import MatMulFreeLM
from mmfree_compiler.models.safetensors_file import stored_file
from mmfree_compiler.wording import few, given

CORPUS = "corpus"  # the setting that is the digest of the text
HINT = "Train into another folder, or delete this file"


@dataclass
class Run:
    """A run in progress; `history` has [step, loss, held-out bits per byte] per measurement."""

    model: MatMulFreeLM
    optimizer: torch.optim.AdamW
    generator: torch.Generator
    step: int = 0
    history: list[list[float]] = field(default_factory=list)

    def save(self, path: Path, settings: Mapping[str, object]) -> None:
        """Write the run to `path`; `settings` are those that it may be resumed with."""
        tensors = {f"model/{name}": p.data for name, p in self.model.named_parameters()}
        for name, p in self.model.named_parameters():
            tensors |= {f"adam/{name}/{key}": t for key, t in self.optimizer.state[p].items()}
        tensors["generator"] = self.generator.get_state()
        progress = json.dumps({"step": self.step, "history": self.history})
        kept = json.dumps(settings, sort_keys=True)
        save_file(tensors, path, metadata={"progress": progress, "settings": kept})

    def load(self, path: Path, settings: Mapping[str, object]) -> None:
        """Continue the run at `path`. Raises CheckpointError if it is damaged or another run."""
        metadata, tensors = _read(path)
        _check_settings(path, metadata.get("settings", ""), settings)
        try:
            progress = _Progress.model_validate_json(metadata.get("progress", ""), strict=True)
        except ValidationError:
            raise _damaged(path, "it does not say how far the run was") from None
        self._check(path, tensors, progress.step)
        self._restore(tensors)
        self.step, self.history = progress.step, [list(entry) for entry in progress.history]

    def _check(self, path: Path, tensors: dict[str, Tensor], step: int) -> None:
        expected = self._expected(step)
        if odd := sorted(expected.keys() ^ tensors.keys()):
            raise _damaged(path, f"missing or unexpected {few(odd)}")
        for name, like in expected.items():
            tensor = tensors[name]
            if (tensor.shape, tensor.dtype) != (like.shape, like.dtype):
                raise _damaged(path, f"{name} is {tensor.dtype} of shape {tuple(tensor.shape)}")
            if not tensor.isfinite().all():
                raise _damaged(path, f"NaN or infinite values in {name}")

    def _expected(self, step: int) -> dict[str, Tensor]:
        """For each tensor of this run's file after `step` steps, one of its shape and dtype."""
        found = {"generator": self.generator.get_state()}
        for name, p in self.model.named_parameters():
            found[f"model/{name}"] = p
            if step:
                moments = {"exp_avg": p, "exp_avg_sq": p, "step": torch.zeros(())}
                found |= {f"adam/{name}/{key}": like for key, like in moments.items()}
        return found

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


class _Progress(BaseModel):
    """How far a run is, as JSON."""

    step: Annotated[int, Field(ge=0)]
    history: list[tuple[int, FiniteFloat, FiniteFloat]]


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The texts and the tensors of the file of a run."""
    try:
        found = stored_file(path)
        return found.texts, {name: stored.read() for name, stored in found.tensors.items()}
    except CheckpointError as error:
        raise _damaged(path, error.cause) from None


def _check_settings(path: Path, text: str, settings: Mapping[str, object]) -> None:
    """Raise CheckpointError unless `text`, of the run at `path`, has the same settings."""
    try:
        kept = parse_json(text.encode())
    except JsonError as error:
        raise _damaged(path, f"its settings are {error}") from None
    names = sorted(kept.keys() | settings.keys())
    changed = [name for name in names if kept.get(name) != settings.get(name)]
    if changed:
        described = [_change(name, kept.get(name), settings.get(name)) for name in changed]
        hint = "Pass the same settings and text, or train into another folder"
        raise CheckpointError(str(path), f"is a run of other settings: {few(described)}", hint)


def _change(name: str, before: object, now: object) -> str:
    if name == CORPUS:
        return "the text was another"
    return f"`{name}` was {given(before)} and is {given(now)} now"


def _damaged(path: Path, how: str) -> CheckpointError:
    return CheckpointError(str(path), f"is damaged: {how}", HINT)
