"""What is compiled: the tokenizer of a checkpoint, and what is noted about both."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

import mmfree_compiler as mmf
from mmfree_compiler.errors import CheckpointError
from mmfree_compiler.models import MatMulFreeLM, ModelConfig


@pytest.fixture
def module() -> MatMulFreeLM:
    return MatMulFreeLM(ModelConfig.of(32, 1, 20)).eval()


def test_a_tokenizer_that_is_none(module: MatMulFreeLM, tmp_path: Path) -> None:
    """Better now than when the artifact runs, where compiling again would not help."""
    module.tokenizer_path = tmp_path / "tokenizer.json"
    for cause in ("cannot be read: No such file", "is not a tokenizer.*model's own"):
        with pytest.raises(CheckpointError, match=rf"tokenizer\.json: {cause}"):
            mmf.compile(module, "reference")
        module.tokenizer_path.touch()


def test_what_is_not_followed_of_a_tokenizer_is_noted(module: MatMulFreeLM, tmp_path: Path) -> None:
    module.tokenizer_path = tmp_path / "tokenizer.json"
    made = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.enable_truncation(2)
    made.save(str(module.tokenizer_path))
    model = mmf.compile(module, "reference", check=False)
    assert model.session.encode("b a b a").tolist() == [1, 0, 1, 0]
    first = model.explain().passes[0]
    assert first.name == "load"
    assert [(note.node, note.text) for note in first.notes] == [
        ("tokenizer.json", "truncation is switched off")
    ]


def test_a_tokenizer_of_more_ids_than_the_model(module: MatMulFreeLM, tmp_path: Path) -> None:
    module.tokenizer_path = tmp_path / "tokenizer.json"
    Tokenizer(models.WordLevel({"a": 0, "b": 20}, unk_token="a")).save(str(module.tokenizer_path))
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: has the id 20 \('b'\)"):
        mmf.compile(module, "reference")
