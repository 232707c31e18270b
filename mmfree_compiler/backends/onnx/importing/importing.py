"""Reading an ONNX model to compile it: the module, and examples of its inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import TensorProto
from torch import Tensor

from mmfree_compiler.artifact import TOKENIZER
from mmfree_compiler.backends.onnx.file import read
from mmfree_compiler.backends.onnx.importing.module import OnnxModule
from mmfree_compiler.backends.own_files import Imported
from mmfree_compiler.errors import ArtifactError, CheckpointError

_FREE = (2, 3, 2, 2, 2)  # the sizes of leading dimensions that are free
_MAX_WIDTH = 1 << 20


def imported(path: Path) -> Imported:
    """The model at `path`. Raises CheckpointError."""
    module = OnnxModule(path).eval()
    if not module.inputs:
        raise CheckpointError(
            str(path), "has 0 inputs", "Export it with rows or token ids as inputs"
        )
    limits = module.limits()
    examples = tuple(_example(path, port, limits) for port in module.inputs)
    return Imported(module, examples, **_exported(path))


def _exported(path: Path) -> dict[str, Any]:
    """What a model that this package exported says about itself."""
    try:
        artifact = read(path, verify=False)
    except ArtifactError:  # it is of others
        return {}
    tokenizer = artifact.members.get(TOKENIZER)
    manifest = artifact.manifest
    return {
        "model": manifest.model,
        "quantization": manifest.quantization,
        "tokenizer": None if tokenizer is None else tokenizer.tobytes(),
    }


def _example(path: Path, port: onnx.ValueInfoProto, limits: dict[str, int]) -> Tensor:
    """Rows of normal values, or the largest ids, in sizes that are as free as the model's."""
    thing, kind = f"{path}: input {port.name!r}", port.type.tensor_type
    sizes = [dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim]
    if kind.elem_type == TensorProto.INT64:
        return torch.full(_sizes(thing, sizes), limits.get(port.name, 1) - 1)
    if kind.elem_type != TensorProto.FLOAT or not sizes:
        cause = "is neither rows of float32 nor token ids of int64"
        raise CheckpointError(thing, cause, "Export the model in float32")
    width = sizes[-1]
    if width is None or not 0 < width <= _MAX_WIDTH:
        cause = "has rows of no fixed width" if width is None else f"has rows of width {width:,}"
        hint = f"Export it with a fixed last dimension, from 1 to {_MAX_WIDTH:,}"
        raise CheckpointError(thing, cause, hint)
    return torch.randn(*_sizes(thing, sizes[:-1]), width)


def _sizes(thing: str, sizes: list[int | None]) -> list[int]:
    if len(sizes) > len(_FREE):
        raise CheckpointError(thing, f"has {len(sizes)} leading dimensions", "Reshape it to fewer")
    found = [free if size is None else size for free, size in zip(_FREE, sizes, strict=False)]
    if any(not 0 < size <= 1024 for size in found):
        hint = "Export it with free leading dimensions"
        raise CheckpointError(thing, f"has leading dimensions {tuple(found)}", hint)
    return found
