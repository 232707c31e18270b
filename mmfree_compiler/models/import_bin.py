"""Converting pytorch_model.bin to model.safetensors.

The file is a pickle, which may run code when it is read. torch reads this one with `weights_only`:
tensors and plain values, nothing that runs.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import Parameter

from mmfree_compiler.errors import CheckpointError
from mmfree_compiler.models.checkpoint import CONFIG, expected_shapes
from mmfree_compiler.models.config import ModelConfig
from mmfree_compiler.models.files import staged
from mmfree_compiler.models.matching import (
    EMBEDDING,
    HEAD,
    check_finite,
    check_tensors,
    check_tied_head,
    without_prefix,
)
from mmfree_compiler.models.weight_files import (
    INDEX,
    PICKLED,
    PICKLED_INDEX,
    WEIGHTS,
    weight_map,
)
from mmfree_compiler.wording import few

# Where training scripts put the weights beside an optimizer and the like.
NESTED = ("state_dict", "model_state_dict", "model", "module")
FOREIGN = "Take the file from somebody you trust, or weights in safetensors"


def import_bin(path: str | Path) -> dict[str, Tensor]:
    """Write model.safetensors beside the pytorch_model.bin (or its shards) of a checkpoint folder.

    Returns the tensors that were written. Raises CheckpointError when there is none, when it holds
    more than tensors, when the tensors are not those of the folder's config.json or have NaN or
    infinite values, or when the folder has weights in safetensors already.
    """
    folder = Path(path)
    config = ModelConfig.read(folder / CONFIG)
    present = [name for name in (WEIGHTS, INDEX) if (folder / name).exists()]
    if present:
        raise CheckpointError(str(folder), f"has {present[0]} already", "Delete it to import again")
    tensors, _ = without_prefix(dict(_tensors(folder)))
    own = dict(tensors)
    head = own.pop(HEAD, None) if config.tie_word_embeddings else None
    check_tensors(folder, expected_shapes(config), own)
    check_finite(folder, own)
    if head is not None:
        check_tied_head(folder, head, own[EMBEDDING])
    with staged(folder) as temporary:
        # Clones, since tensors of one storage (a tied head) cannot be stored in safetensors.
        clones = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
        save_file(clones, temporary / WEIGHTS, metadata={"format": "pt"})
    return tensors


def _tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of the one file, or of the shards that the index names for them."""
    if (folder / PICKLED).exists() or not (folder / PICKLED_INDEX).exists():
        yield from _read(folder / PICKLED).items()
        return
    where = weight_map(folder / PICKLED_INDEX)
    for shard in sorted(set(where.values())):
        tensors = _read(folder / shard)
        yield from ((name, x) for name, x in tensors.items() if where.get(name) == shard)


def _read(file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        raise CheckpointError(str(file), "is not there", "Name a folder that holds it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch warns of is read or refused
            found = torch.load(file, torch.get_default_device(), weights_only=True)
    except Exception as error:  # a hostile or damaged pickle may raise anything
        cause = f"holds more than tensors, or is damaged: {few([_reason(error)])}"
        raise CheckpointError(str(file), cause, FOREIGN) from None
    return _checked(file, next(_nested(found), found))


def _reason(error: Exception) -> str:
    """What torch refused. Its message goes on for many lines with how to allow it."""
    refused = re.search(r"GLOBAL (\S+)", str(error))
    return f"it uses {refused[1]}" if refused else f"{type(error).__name__}: {error}".split(". ")[0]


def _nested(found: Any) -> Iterator[Any]:
    fields = found if isinstance(found, dict) else {}
    return (fields[name] for name in NESTED if isinstance(fields.get(name), dict))


def _checked(file: Path, found: Any) -> dict[str, Tensor]:
    """`found`, if it is a dict of ordinary tensors by name."""
    if not isinstance(found, dict) or not found:
        raise CheckpointError(str(file), "holds no dict of tensors", FOREIGN)
    others = [
        ascii(name)
        for name, value in found.items()
        if not isinstance(name, str) or not _is_ordinary(value)
    ]
    if others:
        raise CheckpointError(str(file), f"{few(others)}: not an ordinary tensor", FOREIGN)
    return found


def _is_ordinary(value: Any) -> bool:
    """Whether its values are in memory, one after another."""
    if type(value) not in (Tensor, Parameter) or value.layout != torch.strided:
        return False
    return not (value.is_quantized or value.is_nested or value.is_meta)
