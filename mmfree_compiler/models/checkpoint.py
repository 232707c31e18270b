"""Checkpoint folders: config.json, model.safetensors or shards and their index, tokenizer.json."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from mmfree_compiler.errors import CheckpointError
from mmfree_compiler.models.config import ModelConfig
from mmfree_compiler.models.end_of_text import end_of_text
from mmfree_compiler.models.files import staged
from mmfree_compiler.models.lm import MatMulFreeLM
from mmfree_compiler.models.matching import (
    EMBEDDING,
    FLOATS,
    HEAD,
    check_finite,
    check_tensors,
    check_tied_head,
    without_prefix,
)
from mmfree_compiler.models.modules import BitLinear
from mmfree_compiler.models.safetensors_file import StoredTensor
from mmfree_compiler.models.weight_files import WEIGHTS, find_tensors
from mmfree_compiler.notes import Note
from mmfree_compiler.parallel import each
from mmfree_compiler.wording import few

CONFIG = "config.json"
TOKENIZER = "tokenizer.json"


def load_checkpoint(path: str | Path) -> MatMulFreeLM:
    """Read a checkpoint folder: the model in evaluation mode, its weights in their stored dtypes.

    `notes` of the model say what was not followed as it is stored. Raises CheckpointError on a
    missing folder, wrong config keys, tensors that are missing, extra or misshapen, damaged files,
    files that disagree about a tensor, NaN or infinite weights, and a mean |w| that overflows.
    """
    folder = Path(path)
    if folder.is_file():  # such as a compiled model
        hint = "Name the folder that holds config.json and model.safetensors"
        raise CheckpointError(str(folder), "is a file, not a checkpoint folder", hint)
    config, said = _config(folder)
    tensors, read = _tensors(folder, config)
    with torch.device("meta"):
        model = MatMulFreeLM(config)
    model.load_state_dict(tensors, assign=True)
    model.tie()
    check_finite(folder, dict(model.named_parameters()))
    _check_means(folder, model)
    model.notes = (*said, *read, *_taken_as_is(model))
    model.tokenizer_path = folder / TOKENIZER if (folder / TOKENIZER).is_file() else None
    return model.eval()


def _config(folder: Path) -> tuple[ModelConfig, list[Note]]:
    """config.json, with the end of text that the folder's files agree on."""
    config = ModelConfig.read(folder / CONFIG)
    file, ids = end_of_text(folder, config)
    same = ids == config.eos_token_id
    notes = [] if same else [Note("load", file, f"says that a text ends at {ids}")]
    return config.model_copy(update={"eos_token_id": ids}), notes


def _tensors(folder: Path, config: ModelConfig) -> tuple[dict[str, Tensor], list[Note]]:
    """The values of the model's parameters by name, a tied head included."""
    stored, left_out = find_tensors(folder)
    stored, renamed = without_prefix(stored)
    notes = [*left_out, *renamed]
    head = stored.pop(HEAD, None) if config.tie_word_embeddings else None
    check_tensors(folder, expected_shapes(config), stored)
    values = each(StoredTensor.read, stored.values())
    tensors = dict(zip(stored, values, strict=True))
    if config.tie_word_embeddings:
        tensors[HEAD] = tensors[EMBEDDING]
    if head is not None:
        notes.append(check_tied_head(folder, head.read(), tensors[EMBEDDING]))
    return tensors, notes


def _taken_as_is(model: MatMulFreeLM) -> Iterator[Note]:
    layers = [name for name, part in model.named_modules() if getattr(part, "taken_as_is", False)]
    if layers:
        yield Note("load", "tensors", f"ternary already, and taken as they are: {few(layers)}")


def expected_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Published name -> shape of every stored tensor; a tied head stores no weight."""
    with torch.device("meta"):
        model = MatMulFreeLM(config)
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def _check_means(folder: Path, model: MatMulFreeLM) -> None:
    """Raise CheckpointError on finite weights whose mean |w| is infinite in torch."""
    layers = [x for x in model.named_modules() if isinstance(x[1], BitLinear)]
    weights = {name: part.weight.detach() for name, part in layers if not part.taken_as_is}
    overflow = each(_overflows, weights.values())
    wrong = [f"{name}.weight" for name, does in zip(weights, overflow, strict=True) if does]
    if wrong:
        cause = f"the mean of |w| overflows float32 in {few(wrong)}"
        raise CheckpointError(str(folder), cause, "Fetch the checkpoint again")


def _overflows(weight: Tensor) -> bool:
    """Most weights are so small that nothing needs to be summed."""
    largest = max(abs(x.item()) for x in weight.aminmax())
    most = torch.finfo(torch.float32).max
    return largest * weight.numel() > most and bool(weight.float().abs().mean().isinf())


def save_checkpoint(
    model: MatMulFreeLM, path: str | Path, dtype: torch.dtype | None = None
) -> None:
    """Write `model` as a checkpoint folder, in `dtype` or each tensor's own, with its tokenizer.

    The files appear whole or not at all. Raises CheckpointError when they cannot be written.
    """
    with staged(Path(path)) as folder:
        write_checkpoint(model, folder, dtype)
        if model.tokenizer_path is not None:
            (folder / TOKENIZER).write_bytes(model.tokenizer_path.read_bytes())


def write_checkpoint(model: MatMulFreeLM, folder: Path, dtype: torch.dtype | None) -> None:
    """Write config.json and model.safetensors into an existing folder."""
    tensors = {
        name: parameter.detach().to(dtype or parameter.dtype).contiguous()
        for name, parameter in model.named_parameters()
    }
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    write_config(folder, model.config, FLOATS[tensors["lm_head.norm.weight"].dtype])


def write_config(folder: Path, config: ModelConfig, stored: str) -> None:
    """Write config.json under the published keys."""
    keys = config.model_dump() | {
        "architectures": ["HGRNBitForCausalLM"],
        "torch_dtype": stored,
    }
    (folder / CONFIG).write_text(json.dumps(keys, indent=2, sort_keys=True) + "\n")
