"""Checkpoint folders: round trips, sharding, and everything that can be wrong with them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from mmfree_compiler.errors import CheckpointError
from mmfree_compiler.models import (
    MatMulFreeLM,
    ModelConfig,
    initial,
    load_checkpoint,
    random_checkpoint,
    save_checkpoint,
)

CONFIG = ModelConfig.of(8, 1, 16, intermediate_size=8)
WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random_checkpoint(tmp_path / "checkpoint", CONFIG, torch.float32)
    return tmp_path / "checkpoint"


def rewrite(folder: Path, **tensors: torch.Tensor | None) -> None:
    """Replace tensors of the weight file; None drops one. Names use '__' for dots."""
    stored = load_file(folder / WEIGHTS)
    changes = {name.replace("__", "."): value for name, value in tensors.items()}
    merged = {name: value for name, value in (stored | changes).items() if value is not None}
    save_file(merged, folder / WEIGHTS)


def test_a_folder_of_the_longest_name(tmp_path: Path) -> None:
    random_checkpoint(tmp_path / ("a" * 255), ModelConfig.of(8, 1, 16))
    assert len([*tmp_path.iterdir()]) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("tied", [False, True])
def test_round_trip_keeps_bits_and_dtype(tmp_path: Path, dtype: torch.dtype, tied: bool) -> None:
    config = ModelConfig.of(8, 2, 16, tie_word_embeddings=tied, use_short_conv=True)
    random_checkpoint(tmp_path / "a", config, dtype, seed=3)
    (tmp_path / "a" / "tokenizer.json").write_text("{}")
    model = load_checkpoint(tmp_path / "a")
    save_checkpoint(model, tmp_path / "b")
    again = load_checkpoint(tmp_path / "b")
    assert again.config == config
    assert again.tokenizer_path == tmp_path / "b" / "tokenizer.json"
    assert again.tokenizer_path.read_text() == "{}"
    for (name, old), new in zip(model.named_parameters(), again.parameters(), strict=True):
        assert new.dtype == dtype
        assert torch.equal(old, new), name
    assert ("lm_head.weight" in load_file(tmp_path / "b" / WEIGHTS)) is not tied


def test_saving_converts_and_leaves_nothing_else(tmp_path: Path, folder: Path) -> None:
    save_checkpoint(load_checkpoint(folder), tmp_path / "half", torch.bfloat16)
    assert {p.name for p in (tmp_path / "half").iterdir()} == {"config.json", WEIGHTS}
    assert {p.name for p in tmp_path.iterdir()} == {"checkpoint", "half"}
    assert load_checkpoint(tmp_path / "half").lm_head.weight.dtype == torch.bfloat16


def test_saving_over_the_folder_that_is_loaded(folder: Path) -> None:
    model = load_checkpoint(folder)
    before = {name: p.clone() for name, p in model.named_parameters()}
    save_checkpoint(model, folder)
    for name, parameter in load_checkpoint(folder).named_parameters():
        assert torch.equal(parameter, before[name])


def test_a_folder_that_cannot_be_written(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="file"):
        save_checkpoint(load_checkpoint(folder), tmp_path / "file" / "below")
    assert {p.name for p in tmp_path.iterdir()} == {"checkpoint", "file"}


def test_failing_halfway_leaves_the_old_checkpoint(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    before = (folder / WEIGHTS).read_bytes()
    monkeypatch.setattr("mmfree_compiler.models.checkpoint.write_config", no_space)
    with pytest.raises(CheckpointError, match="No space left"):
        save_checkpoint(load_checkpoint(folder), folder, torch.bfloat16)
    assert (folder / WEIGHTS).read_bytes() == before
    assert [p.name for p in folder.parent.iterdir()] == ["checkpoint"]


def test_shards_hold_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random_checkpoint(tmp_path / "one", CONFIG, seed=5)
    monkeypatch.setattr(initial, "LARGEST_SHARD", 300)
    random_checkpoint(tmp_path / "many", CONFIG, seed=5)
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 3
    one, many = load_checkpoint(tmp_path / "one"), load_checkpoint(tmp_path / "many")
    for a, b in zip(one.parameters(), many.parameters(), strict=True):
        assert torch.equal(a, b)


def test_random_weights_follow_the_seed(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        random_checkpoint(tmp_path / name, CONFIG, seed=seed)
    a, b, c = ((tmp_path / name / WEIGHTS).read_bytes() for name in "abc")
    assert a == b != c


def test_unknown_shape(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"370M, 1\.3B, 2\.7B"):
        random_checkpoint(tmp_path, "9B")


def test_all_wrong_tensors_are_listed_at_once(folder: Path) -> None:
    rewrite(
        folder,
        lm_head__weight=None,
        model__norm__weight=torch.ones(9),
        model__lower_bounds=torch.zeros(1, 8, dtype=torch.int32),
        extra=torch.ones(1),
    )
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(folder)
    for problem in (
        "missing lm_head.weight",
        "model.norm.weight is (9,), not (8,)",
        "model.lower_bounds is torch.int32",
        "unexpected extra",
    ):
        assert problem in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("position", [0, 77, 127])
def test_weights_that_are_not_finite(
    folder: Path, value: float, dtype: torch.dtype, position: int
) -> None:
    weight = load_file(folder / WEIGHTS)["lm_head.weight"].to(dtype)
    weight.view(-1)[position] = value
    rewrite(folder, lm_head__weight=weight)
    with pytest.raises(CheckpointError, match=r"NaN or infinite values in lm_head\.weight"):
        load_checkpoint(folder)


def test_weights_whose_mean_overflows(folder: Path) -> None:
    """torch's sum of |w| is infinite, and with it everything that the layer computes."""
    weight = load_file(folder / WEIGHTS)["lm_head.weight"]
    rewrite(folder, lm_head__weight=torch.empty_like(weight).uniform_(-1e38, 1e38))
    with pytest.raises(CheckpointError, match=r"mean of \|w\| overflows .* in lm_head\.weight"):
        load_checkpoint(folder)
    rewrite(folder, lm_head__weight=torch.empty_like(weight).uniform_(-4e36, 4e36))
    load_checkpoint(folder)


@pytest.mark.parametrize("missing", ["config.json", WEIGHTS, "."])
def test_missing_files(folder: Path, missing: str) -> None:
    path = folder / "nowhere" if missing == "." else folder
    if missing != ".":
        (folder / missing).unlink()
    with pytest.raises(CheckpointError):
        load_checkpoint(path)


@pytest.mark.parametrize(
    "index",
    [
        {"weight_map": {"lm_head.weight": "../outside.safetensors"}},
        {"weight_map": {"lm_head.weight": "/etc/passwd"}},
        {"weight_map": {"lm_head.weight": ".."}},
        {"weight_map": {"lm_head.weight": "a\0b"}},
        {"weight_map": {"lm_head.weight": 7}},
        {"weight_map": {"lm_head.weight": "x" * 300}},
        {"weight_map": {"lm_head.weight": "é" * 200}},
        {"weight_map": {"lm_head.weight": "\x1b[1m.safetensors"}},
        {"weight_map": {}},
        {"weight_map": []},
        {},
        [],
    ],
)
def test_hostile_index(folder: Path, index: object) -> None:
    (folder / WEIGHTS).rename(folder.parent / "outside.safetensors")
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError):
        load_checkpoint(folder)


HEADER = json.dumps({"lm_head.weight": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}})


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 8,
        (1 << 62).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        len(HEADER).to_bytes(8, "little") + HEADER.encode(),
        len(HEADER).to_bytes(8, "little") + HEADER.replace("16", "99").encode() + bytes(16),
        len(HEADER).to_bytes(8, "little") + HEADER.replace("F32", "Q99").encode() + bytes(16),
    ],
)
def test_hostile_weight_file(folder: Path, content: bytes) -> None:
    (folder / WEIGHTS).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        load_checkpoint(folder)


def test_a_full_disk_under_the_weights(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(*_: object, **__: object) -> None:
        raise SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr("mmfree_compiler.models.checkpoint.save_file", no_space)
    with pytest.raises(CheckpointError, match="No space left"):
        save_checkpoint(load_checkpoint(folder), tmp_path / "new")
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint"]


@pytest.mark.parametrize("name", ["config.json", WEIGHTS])
def test_pipes_are_not_waited_for(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(CheckpointError, match="is not a regular file"):
        load_checkpoint(folder)


def test_missing_weights_are_said_in_a_few_words(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(folder)
    expected = "cannot be read: No such file or directory. Fetch the checkpoint again"
    assert str(caught.value) == f"{folder / WEIGHTS}: {expected}"


def test_a_path_with_a_zero_byte() -> None:
    with pytest.raises(CheckpointError, match="null byte"):
        load_checkpoint("a\0b")


def test_a_path_that_is_not_utf8(folder: Path) -> None:
    renamed = folder.rename(folder.with_name(os.fsdecode(b"caf\xe9")))
    assert isinstance(load_checkpoint(renamed), MatMulFreeLM)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 4000), position=st.integers(0, 1500), byte=st.integers(0, 255))
def test_damaged_weight_files_never_crash(
    folder: Path, tmp_path: Path, cut: int, position: int, byte: int
) -> None:
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[position % len(content)] = byte
    random_checkpoint(tmp_path / "damaged", CONFIG, torch.float32)
    (tmp_path / "damaged" / WEIGHTS).write_bytes(content[: len(content) - cut])
    try:
        model = load_checkpoint(tmp_path / "damaged")
    except CheckpointError:
        return
    assert isinstance(model, MatMulFreeLM)
    assert cut == 0
