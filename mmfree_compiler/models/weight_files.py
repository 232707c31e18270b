"""Which tensors a checkpoint folder stores: model.safetensors, or shards and their index."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmfree_compiler.errors import CheckpointError
from mmfree_compiler.models.json_file import read_json
from mmfree_compiler.models.safetensors_file import HINT, StoredTensor, stored_tensors
from mmfree_compiler.notes import Note
from mmfree_compiler.wording import few

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
OTHER_FORM = {WEIGHTS: INDEX, INDEX: WEIGHTS}  # of the two, a folder has one
LONGEST_NAME = 255  # characters: no file system takes longer ones
PICKLED, PICKLED_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"

Found = dict[str, StoredTensor]


def find_tensors(folder: Path) -> tuple[Found, tuple[Note, ...]]:
    """Every tensor of the folder by name, and what was left out. Raises CheckpointError."""
    if (folder / INDEX).exists():
        return _indexed(folder)
    if not (folder / WEIGHTS).exists():
        _check_not_pickled(folder)
    return stored_tensors(folder / WEIGHTS), ()


def _check_not_pickled(folder: Path) -> None:
    pickled = [name for name in (PICKLED, PICKLED_INDEX) if (folder / name).exists()]
    if pickled:
        cause = f"has {pickled[0]}, which is a pickle, and no {WEIGHTS}"
        hint = f"`mmfree import-bin {folder}` converts it without running code from it"
        raise CheckpointError(str(folder), cause, hint)


def _indexed(folder: Path) -> tuple[Found, tuple[Note, ...]]:
    """The tensors from the shards that the index names for them."""
    index = folder / INDEX
    where = weight_map(index)
    if WEIGHTS not in where.values() and (folder / WEIGHTS).exists():
        cause = f"has both {WEIGHTS} and {INDEX}, which names other files"
        raise CheckpointError(str(folder), cause, "Delete the one that is out of date")
    shards = {name: stored_tensors(folder / name) for name in sorted(set(where.values()))}
    absent = [name for name, shard in where.items() if name not in shards[shard]]
    if absent:
        cause = f"names shards that do not hold {few(absent)}"
        raise CheckpointError(str(index), cause, HINT)
    found = {name: shards[shard][name] for name, shard in where.items()}
    return found, tuple(_left_out(where, shards))


def weight_map(index: Path) -> dict[str, str]:
    """Tensor -> the shard that holds it, a file of the folder. Raises CheckpointError."""
    where = read_json(index).get("weight_map")
    if not isinstance(where, dict) or not where:
        raise CheckpointError(str(index), "has no weight_map", HINT)
    outside = [str(shard) for shard in where.values() if not _is_file_name(shard)]
    if outside:
        cause = f"names files outside its folder: {few(outside)}"
        raise CheckpointError(str(index), cause, "Do not trust this checkpoint")
    return where


def _is_file_name(shard: Any) -> bool:
    if not isinstance(shard, str) or not shard.isprintable() or len(shard) > LONGEST_NAME:
        return False
    return shard not in ("", "..") and Path(shard).name == shard


def _left_out(where: dict[str, str], shards: dict[str, Found]) -> Iterator[Note]:
    for shard, tensors in shards.items():
        names = [name for name in tensors if where.get(name) != shard]
        if names:
            yield Note("load", shard, f"left out, as the index says: {few(names)}")
