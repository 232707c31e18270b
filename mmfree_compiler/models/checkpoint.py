"""Checkpoint folders: config.json, model.safetensors or shards and their index, tokenizer.json."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mmfree_compiler.errors import CheckpointError
from mmfree_compiler.models.config import ModelConfig, read_json
from mmfree_compiler.models.files import staged
from mmfree_compiler.models.lm import MatMulFreeLM
from mmfree_compiler.parallel import each

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
CONFIG = "config.json"
TOKENIZER = "tokenizer.json"
DTYPES: dict[torch.dtype, str] = {
    torch.float32: "float32",
    torch.float16: "float16",
    torch.bfloat16: "bfloat16",
}


def load_checkpoint(path: str | Path) -> MatMulFreeLM:
    """Read a checkpoint folder: the model in evaluation mode, its weights mapped, not copied.

    Tensors keep their stored dtype and share the file's pages. Raises CheckpointError on a missing
    folder, wrong config keys, tensors that are missing, extra or misshapen (all listed),
    damaged files, and NaN or infinite weights, for which every page is read once.
    """
    folder = Path(path)
    _check_path(folder)
    config = ModelConfig.read(folder / CONFIG)
    with torch.device("meta"):
        model = MatMulFreeLM(config)
    tensors = dict(_stored(folder))
    _check_names_and_shapes(folder, _shapes(model), tensors)
    if config.tie_word_embeddings:
        tensors["lm_head.weight"] = tensors["model.embeddings.weight"]
    model.load_state_dict(tensors, assign=True)
    model.tie()
    _check_finite(folder, model)
    model.tokenizer_path = folder / TOKENIZER if (folder / TOKENIZER).is_file() else None
    return model.eval()


def _check_path(folder: Path) -> None:
    try:
        str(folder).encode()
    except UnicodeEncodeError:
        cause = "its path is not UTF-8, which safetensors requires"
        raise CheckpointError(str(folder), cause, "Rename it") from None


def expected_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Published name -> shape of every stored tensor; a tied head stores no weight."""
    with torch.device("meta"):
        return _shapes(MatMulFreeLM(config))


def _shapes(model: MatMulFreeLM) -> dict[str, tuple[int, ...]]:
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def _stored(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of the folder's weight files, memory-mapped."""
    for file in _weight_files(folder):
        try:
            if file.exists() and not file.is_file():  # opening a pipe would wait forever
                cause = "is not a regular file"
                raise CheckpointError(str(file), cause, "Fetch the checkpoint again")
            _read_ahead(file)
            with safe_open(file, framework="pt") as opened:
                for name in opened.keys():  # noqa: SIM118 - not a mapping
                    yield name, opened.get_tensor(name)
        except (SafetensorError, OSError, ValueError) as error:
            cause = f"cannot be read: {getattr(error, 'strerror', None) or error}"
            raise CheckpointError(str(file), cause, "Fetch the checkpoint again") from None


def _read_ahead(file: Path) -> None:
    """Ask the system to read the whole file now, in large pieces; mapped pages are read one by one.

    Reading 1.3 billion bfloat16 from a disk then takes two thirds of the time and half the CPU.
    """
    if hasattr(os, "posix_fadvise"):
        with file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)


def _weight_files(folder: Path) -> list[Path]:
    """The one weight file, or the shards that the index names, which must be in the folder."""
    index = folder / INDEX
    if (folder / WEIGHTS).exists() or not index.exists():
        return [folder / WEIGHTS]
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise CheckpointError(str(index), "has no weight_map", "Fetch the checkpoint again")
    names = sorted({str(name) for name in shards.values()})
    outside = [name for name in names if Path(name).name != name]
    if outside:
        cause = f"names files outside its folder: {', '.join(outside)}"
        raise CheckpointError(str(index), cause, "Do not trust this checkpoint")
    return [folder / name for name in names]


def _check_names_and_shapes(
    folder: Path, expected: Mapping[str, tuple[int, ...]], stored: Mapping[str, Tensor]
) -> None:
    problems = [f"missing {name}" for name in expected if name not in stored]
    problems += [f"unexpected {name}" for name in stored if name not in expected]
    for name in expected.keys() & stored.keys():
        shape, tensor = expected[name], stored[name]
        if tuple(tensor.shape) != shape:
            problems.append(f"{name} is {tuple(tensor.shape)}, not {shape}")
        if tensor.dtype not in DTYPES:
            problems.append(f"{name} is {tensor.dtype}, not one of {', '.join(DTYPES.values())}")
    if problems:
        hint = f"Check that {CONFIG} belongs to these weights"
        raise CheckpointError(str(folder), "; ".join(sorted(problems)), hint)


def _check_finite(folder: Path, model: MatMulFreeLM) -> None:
    names, parameters = zip(*model.named_parameters(), strict=True)
    finite = each(_is_finite, [parameter.detach() for parameter in parameters])
    wrong = [name for name, is_finite in zip(names, finite, strict=True) if not is_finite]
    if wrong:
        cause = f"NaN or infinite values in {', '.join(wrong)}"
        raise CheckpointError(str(folder), cause, "Fetch the checkpoint again")


def _is_finite(tensor: Tensor) -> bool:
    """By the minimum and maximum, which show any NaN or infinity and need no temporary."""
    low, high = tensor.aminmax()
    return bool(low.isfinite() and high.isfinite())


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
    write_config(folder, model.config, DTYPES[tensors["lm_head.norm.weight"].dtype])


def write_config(folder: Path, config: ModelConfig, stored: str) -> None:
    """Write config.json under the published keys."""
    keys = config.model_dump() | {
        "architectures": ["HGRNBitForCausalLM"],
        "torch_dtype": stored,
    }
    (folder / CONFIG).write_text(json.dumps(keys, indent=2, sort_keys=True) + "\n")
