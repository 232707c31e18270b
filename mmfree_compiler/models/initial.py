"""Initial weights, and checkpoints of random weights, written tensor by tensor."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from mmfree_compiler.errors import CheckpointError
from mmfree_compiler.models.checkpoint import expected_shapes, write_config
from mmfree_compiler.models.config import SHAPES, ModelConfig
from mmfree_compiler.models.files import staged
from mmfree_compiler.models.lm import MatMulFreeLM
from mmfree_compiler.models.matching import FLOATS
from mmfree_compiler.models.safetensors_file import DTYPES
from mmfree_compiler.models.weight_files import INDEX, WEIGHTS

Shapes = dict[str, tuple[int, ...]]
LARGEST_SHARD = 2 << 30  # bytes
SAFETENSORS_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def initial_value(
    name: str, shape: Sequence[int], config: ModelConfig, generator: torch.Generator
) -> Tensor:
    """The initial fp32 tensor of the parameter `name`, as the reference draws it.

    Matrices are normal(0, initializer_range); those that end a residual branch are divided by
    sqrt(2 * layers); norms are 1, lower bounds 0, short convolutions uniform in +-1/sqrt(taps).
    """
    if name == "model.lower_bounds":
        return torch.zeros(*shape)
    if len(shape) == 1:
        return torch.ones(*shape)
    if len(shape) == 3:
        return (2 * torch.rand(*shape, generator=generator) - 1) / math.sqrt(shape[-1])
    ends_branch = name.endswith(("o_proj.weight", "down_proj.weight"))
    scale = (2 * config.num_hidden_layers) ** -0.5 if ends_branch else 1.0
    return torch.randn(*shape, generator=generator) * (config.initializer_range * scale)


@torch.no_grad()
def initialize(model: MatMulFreeLM, seed: int = 0) -> None:
    """Set every weight of `model` to an initial one drawn with `seed`."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        parameter.copy_(initial_value(name, parameter.shape, model.config, generator))


def random_checkpoint(
    path: str | Path,
    shape: str | ModelConfig,
    dtype: torch.dtype = torch.bfloat16,
    seed: int = 0,
) -> None:
    """Write a checkpoint of initial weights, holding one tensor at a time in memory.

    `shape` is a config or one of "370M", "1.3B", "2.7B". More than 2 GiB are written as shards.
    Raises CheckpointError on an unknown shape, or when the files cannot be written.
    """
    config = shape if isinstance(shape, ModelConfig) else SHAPES.get(shape)
    if config is None:
        raise CheckpointError(f"shape {shape!r}", "unknown", f"Known: {', '.join(SHAPES)}")
    shards = list(_shards(expected_shapes(config), dtype.itemsize))
    names = [_shard_name(n, len(shards)) for n in range(len(shards))]
    generator = torch.Generator().manual_seed(seed)
    with staged(Path(path)) as folder:
        for name, shapes in zip(names, shards, strict=True):
            _write_shard(folder / name, shapes, config, dtype, generator)
        if len(shards) > 1:
            where = {key: name for name, keys in zip(names, shards, strict=True) for key in keys}
            (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": where}))
        write_config(folder, config, FLOATS[dtype])


def _shards(shapes: Shapes, itemsize: int) -> Iterator[Shapes]:
    """Consecutive groups of tensors, each of at most LARGEST_SHARD bytes where that is possible."""
    shard: Shapes = {}
    size = 0
    for name, shape in shapes.items():
        nbytes = math.prod(shape) * itemsize
        if shard and size + nbytes > LARGEST_SHARD:
            yield shard
            shard, size = {}, 0
        shard[name] = shape
        size += nbytes
    yield shard


def _shard_name(n: int, count: int) -> str:
    return WEIGHTS if count == 1 else f"model-{n + 1:05}-of-{count:05}.safetensors"


def _write_shard(
    path: Path, shapes: Shapes, config: ModelConfig, dtype: torch.dtype, generator: torch.Generator
) -> None:
    """One safetensors file: 8 bytes of header length, the JSON header, the tensors in its order."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + math.prod(shape) * dtype.itemsize
        kind = SAFETENSORS_NAMES[dtype]
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": (start, end)}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # tensors start aligned
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape in shapes.items():
            tensor = initial_value(name, shape, config, generator).to(dtype)
            file.write(tensor.view(torch.uint8).numpy().data)
