"""Which weights a checkpoint folder has when its files disagree, are damaged, or are renamed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mmfree_compiler.errors import CheckpointError
from mmfree_compiler.models import (
    MatMulFreeLM,
    ModelConfig,
    initial,
    load_checkpoint,
    random_checkpoint,
    save_checkpoint,
)
from mmfree_compiler.models.safetensors_file import StoredTensor

CONFIG = ModelConfig.of(8, 1, 16, intermediate_size=8)
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
FIRST, SECOND = "model-1.safetensors", "model-2.safetensors"
NORM = "model.norm.weight"
Tensors = dict[str, Tensor]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random_checkpoint(tmp_path / "checkpoint", CONFIG, torch.float32)
    return tmp_path / "checkpoint"


def shard(folder: Path, change: Callable[[Tensors, Tensors, dict[str, str]], None]) -> None:
    """Store the weights in two shards and an index of them, `change`d before they are written."""
    stored = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    names = sorted(stored)
    parts: tuple[Tensors, Tensors] = (
        {name: stored[name] for name in names[::2]},
        {name: stored[name] for name in names[1::2]},
    )
    where = dict.fromkeys(parts[0], FIRST) | dict.fromkeys(parts[1], SECOND)
    change(*parts, where)
    for name, tensors in zip((FIRST, SECOND), parts, strict=True):
        save_file(tensors, folder / name)
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 3}, "weight_map": where}))


def rename(folder: Path, new: Callable[[str], str], **more: Tensor) -> None:
    stored = {new(name): tensor for name, tensor in load_file(folder / WEIGHTS).items()}
    save_file(stored | more, folder / WEIGHTS)


def set_config(folder: Path, **keys: Any) -> None:
    found = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(found | keys))


def same_weights(a: MatMulFreeLM, b: MatMulFreeLM) -> bool:
    pairs = zip(a.parameters(), b.parameters(), strict=True)
    return all(torch.equal(one, other) for one, other in pairs)


def test_a_tensor_in_two_shards_comes_from_the_one_that_the_index_names(folder: Path) -> None:
    wanted = load_checkpoint(folder)

    def stale(first: Tensors, second: Tensors, where: dict[str, str]) -> None:
        holding, other = (first, second) if where[NORM] == FIRST else (second, first)
        other[NORM] = holding[NORM] + 1

    shard(folder, stale)
    found = load_checkpoint(folder)
    assert same_weights(found, wanted)
    assert [note.text for note in found.notes] == [f"left out, as the index says: {NORM}"]


def test_tensors_that_the_index_does_not_list_are_left_out(folder: Path) -> None:
    def more(first: Tensors, _: Tensors, __: dict[str, str]) -> None:
        first |= {f"old.{n}": torch.ones(1) for n in range(9)}

    shard(folder, more)
    (note,) = load_checkpoint(folder).notes
    assert note.text == "left out, as the index says: old.0, old.1, old.2 and 6 more"


@pytest.mark.parametrize("absent", ["its file", "the tensor", "its place in the index"])
def test_shards_that_lack_something(folder: Path, absent: str) -> None:
    def drop(first: Tensors, second: Tensors, where: dict[str, str]) -> None:
        if absent == "the tensor":
            del (first if where[NORM] == FIRST else second)[NORM]
        if absent == "its place in the index":
            del where[NORM]

    shard(folder, drop)
    if absent == "its file":
        (folder / SECOND).unlink()
    with pytest.raises(CheckpointError, match=SECOND if absent == "its file" else NORM):
        load_checkpoint(folder)


def test_a_weight_file_beside_the_index_of_others(folder: Path) -> None:
    """Either may be out of date."""
    content = (folder / WEIGHTS).read_bytes()
    shard(folder, lambda *_: None)
    (folder / WEIGHTS).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"has both model\.safetensors and .*Delete"):
        load_checkpoint(folder)


def test_an_index_of_the_one_file(folder: Path) -> None:
    where = dict.fromkeys(load_file(folder / WEIGHTS), WEIGHTS)
    (folder / INDEX).write_text(json.dumps({"weight_map": where}))
    assert load_checkpoint(folder).notes == ()


def test_shards_may_be_links_as_in_a_download_cache(folder: Path) -> None:
    wanted = load_checkpoint(folder)
    shard(folder, lambda *_: None)
    (folder / SECOND).rename(folder.parent / "blob")
    (folder / SECOND).symlink_to(folder.parent / "blob")
    assert same_weights(load_checkpoint(folder), wanted)


def test_saving_replaces_weights_in_the_other_form(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_checkpoint(folder)
    monkeypatch.setattr(initial, "LARGEST_SHARD", 300)
    random_checkpoint(folder, CONFIG, seed=1)
    assert not same_weights(load_checkpoint(folder), model)
    save_checkpoint(model, folder)
    assert same_weights(load_checkpoint(folder), model)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "student."])
def test_a_common_prefix_is_left_out(folder: Path, prefix: str) -> None:
    wanted = load_checkpoint(folder)
    rename(folder, lambda name: prefix + name)
    found = load_checkpoint(folder)
    assert same_weights(found, wanted)
    assert [note.text for note in found.notes] == [
        f"all names begin with {prefix}, which is left out"
    ]


def test_names_of_which_only_some_have_a_prefix(folder: Path) -> None:
    rename(folder, lambda name: "module." * name.startswith("model.layers") + name)
    with pytest.raises(CheckpointError, match=r"missing .* and \d+ more; unexpected") as caught:
        load_checkpoint(folder)
    assert len(str(caught.value)) < 600


def test_a_foreign_model_is_refused_in_a_few_words(folder: Path) -> None:
    random_checkpoint(folder, ModelConfig.of(8, 40, 16, intermediate_size=8), torch.float32)
    set_config(folder, num_hidden_layers=1, hidden_size=16)
    with pytest.raises(CheckpointError, match=r"unexpected .* and \d+ more") as caught:
        load_checkpoint(folder)
    assert len(str(caught.value)) < 1200


def test_a_tied_head_that_is_stored_too(folder: Path) -> None:
    set_config(folder, tie_word_embeddings=True)
    with pytest.raises(CheckpointError, match=r"lm_head\.weight differs .*tie_word_embeddings"):
        load_checkpoint(folder)
    embedding = load_file(folder / WEIGHTS)["model.embeddings.weight"]
    rename(folder, str, **{"lm_head.weight": embedding.clone()})
    model = load_checkpoint(folder)
    assert model.lm_head.weight is model.model.embeddings.weight
    assert "equals model.embeddings.weight" in model.notes[0].text


@pytest.mark.parametrize("head", [torch.zeros(3), torch.zeros(16, 8, dtype=torch.int32)])
def test_a_tied_head_that_cannot_be_the_embedding(folder: Path, head: Tensor) -> None:
    set_config(folder, tie_word_embeddings=True)
    rename(folder, str, **{"lm_head.weight": head})
    with pytest.raises(CheckpointError, match=r"lm_head\.weight differs"):
        load_checkpoint(folder)


def test_a_head_that_is_neither_stored_nor_tied(folder: Path) -> None:
    stored = load_file(folder / WEIGHTS)
    del stored["lm_head.weight"]
    save_file(stored, folder / WEIGHTS)
    with pytest.raises(CheckpointError, match=r"missing lm_head\.weight.* tie_word_embeddings"):
        load_checkpoint(folder)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (8, 1), (9,)])
def test_shapes_that_are_almost_right(folder: Path, shape: tuple[int, ...]) -> None:
    rename(folder, str, **{NORM: torch.ones(shape)})
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight is \(.*\), not \(8,\)"):
        load_checkpoint(folder)


def test_every_tensor_has_its_own_dtype(folder: Path) -> None:
    dtypes = (torch.float32, torch.float16, torch.bfloat16)
    stored = load_file(folder / WEIGHTS)
    mixed = {name: x.to(dtypes[n % 3]) for n, (name, x) in enumerate(stored.items())}
    save_file(mixed, folder / WEIGHTS)
    for name, parameter in load_checkpoint(folder).named_parameters():
        assert parameter.dtype == mixed[name].dtype
        assert torch.equal(parameter, mixed[name])


def test_only_a_pickle(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin.*mmfree import-bin"):
        load_checkpoint(folder)


def header(text: str, data: int = 0) -> bytes:
    return len(text).to_bytes(8, "little") + text.encode() + bytes(data)


TWICE = '{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "a": {"dtype": "F32"}}'
GAP = '{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}'
SHORT = '{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}'
HUGE = '{"a": {"dtype": "F32", "shape": [4611686018427387904, 4], "data_offsets": [0, 0]}}'
NEGATIVE = '{"a": {"dtype": "F32", "shape": [-1, -1], "data_offsets": [0, 4]}}'
REVERSED = '{"a": {"dtype": "U8", "shape": [0], "data_offsets": [4, 0]}}'
FLOATING = '{"a": {"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]}}'
TRUE = '{"a": {"dtype": "F32", "shape": [true], "data_offsets": [0, 4]}}'


@pytest.mark.parametrize(
    "content",
    [
        header(TWICE, 4),
        header(GAP, 8),
        header(SHORT, 5),
        header(SHORT, 3),
        header(HUGE),
        header(NEGATIVE, 4),
        header(REVERSED, 4),
        header(FLOATING, 4),
        header(TRUE, 4),
        header("[" * 100_000),
        header('{"a": 1}'),
        header('{"a": {}}'),
        b"\1",
        (99_999_999).to_bytes(8, "little"),
    ],
)
def test_malformed_safetensors(folder: Path, content: bytes) -> None:
    (folder / WEIGHTS).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: is not a safetensors file"):
        load_checkpoint(folder)


def test_keys_that_stand_twice(folder: Path) -> None:
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace("{", '{"hidden_size": 16,', 1))
    with pytest.raises(CheckpointError, match=r"config\.json: names 'hidden_size' twice"):
        load_checkpoint(folder)


def test_a_file_that_is_cut_short_while_it_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = StoredTensor.read

    def cut(self: StoredTensor) -> Tensor:
        os.truncate(folder / WEIGHTS, 1000)
        return read(self)

    monkeypatch.setattr(StoredTensor, "read", cut)
    with pytest.raises(CheckpointError, match="cut short while it was read"):
        load_checkpoint(folder)


def test_a_file_that_is_cut_short_after_it_was_read(folder: Path) -> None:
    """Mapped pages would end the process here."""
    model = load_checkpoint(folder)
    os.truncate(folder / WEIGHTS, 0)
    assert all(parameter.isfinite().all() for parameter in model.parameters())
