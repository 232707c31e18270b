"""Where a checkpoint's files say that a text ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import mmfree_compiler as mmf
from mmfree_compiler.errors import CheckpointError
from mmfree_compiler.models import (
    ModelConfig,
    load_checkpoint,
    random_checkpoint,
    save_checkpoint,
)
from mmfree_compiler.models.config import EndOfText

GENERATION = "generation_config.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    config = ModelConfig.of(32, 1, 16, intermediate_size=32, eos_token_id=2)
    random_checkpoint(tmp_path / "checkpoint", config, torch.float32)
    return tmp_path / "checkpoint"


def write(folder: Path, name: str, content: Any) -> None:
    (folder / name).write_text(json.dumps(content))


def without_eos(folder: Path) -> None:
    found = json.loads((folder / "config.json").read_text())
    write(folder, "config.json", found | {"eos_token_id": None})


@pytest.mark.parametrize(
    ("content", "ids"),
    [
        ({"eos_token_id": 5}, 5),
        ({"eos_token_id": [5, 7]}, [5, 7]),
        ({"eos_token_id": 0}, 0),
        ({"eos_token_id": None}, 2),
        ({"eos_token_id": []}, 2),
        ({}, 2),
    ],
)
def test_the_generation_s_config_counts_first(
    folder: Path, content: dict[str, Any], ids: EndOfText
) -> None:
    write(folder, GENERATION, content)
    model = load_checkpoint(folder)
    assert model.config.eos_token_id == ids
    assert [note.node for note in model.notes] == ([] if ids == 2 else [GENERATION])


@pytest.mark.parametrize(
    "content", [5, "</s>", {"a": 1}, True, [True], [1.0], -1, [-1], 16, [1, 99]]
)
def test_wrong_ids(folder: Path, content: Any) -> None:
    """The last two are beyond the vocabulary; 5 alone is right as a value, not as a file."""
    write(folder, GENERATION, content if content == 5 else {"eos_token_id": content})
    with pytest.raises(CheckpointError, match=r"generation_config\.json"):
        load_checkpoint(folder)


@pytest.mark.parametrize("name", ["tokenizer_config.json", "special_tokens_map.json"])
@pytest.mark.parametrize("token", ["</s>", {"content": "</s>", "lstrip": False}])
def test_the_tokenizer_s_end_of_text(folder: Path, name: str, token: Any) -> None:
    added = [{"id": 1, "content": "<s>"}, {"id": 9, "content": "</s>", "special": True}]
    write(folder, "tokenizer.json", {"added_tokens": added})
    write(folder, name, {"eos_token": token})
    assert load_checkpoint(folder).config.eos_token_id == 2  # config.json names one
    without_eos(folder)
    assert load_checkpoint(folder).config.eos_token_id == 9


@pytest.mark.parametrize("token", [None, 3, "<other>", {"content": 3}, []])
@pytest.mark.parametrize("added", [None, 3, [3], [{"id": "9", "content": "<other>"}]])
def test_a_tokenizer_without_a_usable_one(folder: Path, token: Any, added: Any) -> None:
    without_eos(folder)
    write(folder, "tokenizer.json", {"added_tokens": added})
    write(folder, "tokenizer_config.json", {"eos_token": token})
    assert load_checkpoint(folder).config.eos_token_id is None


def test_an_end_in_the_config_that_is_beyond_the_vocabulary(folder: Path) -> None:
    found = json.loads((folder / "config.json").read_text())
    write(folder, "config.json", found | {"eos_token_id": 50256})
    with pytest.raises(CheckpointError, match=r"config\.json: eos_token_id 50256 is outside"):
        load_checkpoint(folder)


def test_generation_stops_there_also_after_saving(folder: Path, tmp_path: Path) -> None:
    every = list(range(16))
    write(folder, GENERATION, {"eos_token_id": every})
    save_checkpoint(load_checkpoint(folder), tmp_path / "saved")
    for path in (folder, tmp_path / "saved"):
        model = mmf.compile(path, "reference", check=False)
        assert model.artifact.manifest.model["eos_token_id"] == every
        generation = model.generate([1])
        assert (len(list(generation)), generation.finish_reason) == (1, "stop_token")
