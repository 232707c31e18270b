"""Converting pytorch_model.bin: whole, in shards, damaged, hostile."""

from __future__ import annotations

import json
import math
import os
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from mmfree_compiler.errors import CheckpointError
from mmfree_compiler.models import ModelConfig, load_checkpoint, random_checkpoint
from mmfree_compiler.models.import_bin import import_bin

CONFIG = ModelConfig.of(8, 1, 16, intermediate_size=8)
BIN, WEIGHTS = "pytorch_model.bin", "model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint without weights."""
    random_checkpoint(tmp_path / "checkpoint", CONFIG, torch.bfloat16)
    (tmp_path / "checkpoint" / WEIGHTS).rename(tmp_path / WEIGHTS)
    return tmp_path / "checkpoint"


def weights(folder: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = load_file(folder.parent / WEIGHTS)
    return found


def assert_imported(folder: Path) -> None:
    found = dict(load_checkpoint(folder).named_parameters())
    for name, tensor in weights(folder).items():
        assert torch.equal(found[name], tensor)
        assert found[name].dtype == tensor.dtype


@pytest.mark.parametrize("nested", [None, "state_dict", "model", "module"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_one_file(folder: Path, nested: str | None, prefix: str) -> None:
    tensors = {prefix + name: tensor for name, tensor in weights(folder).items()}
    torch.save({nested: tensors, "step": 3} if nested else tensors, folder / BIN)
    assert import_bin(folder).keys() == weights(folder).keys()
    assert_imported(folder)


def test_shards(folder: Path) -> None:
    stored = weights(folder)
    where = {name: f"pytorch_model-{n % 2}.bin" for n, name in enumerate(stored)}
    for shard in set(where.values()):
        # What the index takes from elsewhere is out of date here.
        torch.save(
            {n: x if where[n] == shard else x + 1 for n, x in stored.items()}, folder / shard
        )
    (folder / f"{BIN}.index.json").write_text(json.dumps({"weight_map": where}))
    import_bin(folder)
    assert_imported(folder)


def test_a_tied_head_shares_its_memory(folder: Path) -> None:
    keys = json.loads((folder / "config.json").read_text()) | {"tie_word_embeddings": True}
    (folder / "config.json").write_text(json.dumps(keys))
    stored = weights(folder)
    stored["lm_head.weight"] = stored["model.embeddings.weight"]
    torch.save(stored, folder / BIN)
    import_bin(folder)
    model = load_checkpoint(folder)
    assert model.lm_head.weight is model.model.embeddings.weight


def test_a_tied_head_of_other_values(folder: Path) -> None:
    keys = json.loads((folder / "config.json").read_text()) | {"tie_word_embeddings": True}
    (folder / "config.json").write_text(json.dumps(keys))
    torch.save(weights(folder), folder / BIN)
    assert_refused(folder, "lm_head.weight differs from model.embeddings.weight")


def assert_refused(folder: Path, words: str) -> None:
    """Nothing is written."""
    with pytest.raises(CheckpointError, match=re.escape(words)):
        import_bin(folder)
    assert {path.name for path in folder.iterdir()} == {"config.json", BIN}
    assert {path.name for path in folder.parent.iterdir()} == {folder.name, WEIGHTS}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_numbers(folder: Path, value: float) -> None:
    """A checkpoint of them could not be loaded."""
    stored = weights(folder)
    stored["model.norm.weight"][3] = value
    torch.save(stored, folder / BIN)
    assert_refused(folder, "NaN or infinite values in model.norm.weight")


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("kind", ["meta", "nested", "sparse"])
def test_tensors_without_values_in_memory(folder: Path, kind: str) -> None:
    made = {
        "meta": lambda: torch.ones(8, device="meta"),
        "nested": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(6)]),
        "sparse": lambda: torch.ones(8).to_sparse(),
    }
    torch.save(weights(folder) | {"model.norm.weight": made[kind]()}, folder / BIN)
    assert_refused(folder, "'model.norm.weight': not an ordinary tensor")


class Hostile:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_a_hostile_pickle_runs_nothing(folder: Path) -> None:
    made = folder / "made"
    torch.save(weights(folder) | {"x": Hostile(made)}, folder / BIN)
    assert_refused(folder, "holds more than tensors, or is damaged: it uses posix.mkdir. Take")
    (folder / BIN).write_bytes(pickle.dumps(Hostile(made)))
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin"):
        import_bin(folder)
    assert not made.exists()
    assert not (folder / WEIGHTS).exists()


@pytest.mark.parametrize("content", [b"", b"PK\3\4", b"\x80\2}.", b"\xff" * 99, b"not a pickle"])
def test_damaged(folder: Path, content: bytes) -> None:
    (folder / BIN).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin"):
        import_bin(folder)


@pytest.mark.parametrize(
    "found",
    [
        {},
        [torch.ones(1)],
        torch.ones(1),
        {"a": 3},
        {3: torch.ones(1)},
        {"a": torch.ones(2, 2).to_sparse()},
        {"state_dict": {"a": "b"}},
    ],
    ids=str,
)
def test_other_content(folder: Path, found: Any) -> None:
    torch.save(found, folder / BIN)
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin"):
        import_bin(folder)


def test_tensors_of_another_model(folder: Path) -> None:
    """A tensor may claim any size; only those of the model's are written."""
    huge = torch.ones(1, dtype=torch.bfloat16).expand(1 << 40)
    torch.save(weights(folder) | {"model.norm.weight": huge}, folder / BIN)
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight is \(1099511627776,\), not"):
        import_bin(folder)
    assert {path.name for path in folder.iterdir()} == {"config.json", BIN}


@pytest.mark.parametrize("name", [WEIGHTS, f"{WEIGHTS}.index.json"])
def test_weights_that_are_there_already(folder: Path, name: str) -> None:
    torch.save(weights(folder), folder / BIN)
    (folder / name).touch()
    with pytest.raises(CheckpointError, match="already"):
        import_bin(folder)


def test_nothing_to_import(folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin: is not there"):
        import_bin(folder)
