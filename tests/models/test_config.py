"""ModelConfig: the published shapes, and configs that are wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from golden_cases import SHARED

from mmfree_compiler.errors import CheckpointError
from mmfree_compiler.models import ModelConfig
from mmfree_compiler.models.checkpoint import expected_shapes
from mmfree_compiler.models.config import SHAPES

GOOD = {"model_type": "hgrn_bit", "vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2}


@pytest.mark.parametrize(
    ("hidden", "intermediate"), [(1024, 2816), (2048, 5632), (2560, 6912), (64, 256), (256, 768)]
)
def test_null_intermediate_size(hidden: int, intermediate: int) -> None:
    assert ModelConfig.of(hidden, 1, 16).intermediate == intermediate


def test_stated_intermediate_size() -> None:
    assert ModelConfig.of(96, 1, 16, intermediate_size=200).intermediate == 200


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the published shapes")
@pytest.mark.parametrize("shape", SHAPES)
def test_published_names_and_shapes(shape: str) -> None:
    published = json.loads((SHARED / f"shapes_{shape}.json").read_text())
    wanted = {name: tuple(sizes) for name, sizes in published["params"].items()}
    assert expected_shapes(ModelConfig.parse(published["config"], shape)) == wanted
    special = {"bos_token_id": 1, "eos_token_id": 2}  # a random model has no tokenizer
    wanted_config = SHAPES[shape].model_copy(update=special)
    assert ModelConfig.parse(published["config"], shape) == wanted_config


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model_type": "llama"}, "the architecture 'llama' is not supported. .*hgrn_bit"),
        ({"model_type": None}, "names no model_type"),
        ({"model_type": None, "architectures": ["MistralForCausalLM"]}, "MistralForCausalLM"),
        ({"model_type": ["hgrn_bit"]}, "not supported"),
        ({"hidden_size": 0}, "hidden_size"),
        ({"hidden_size": "32"}, "hidden_size"),
        ({"hidden_size": 1 << 40}, "hidden_size"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"num_heads": 3}, "num_heads 3 does not divide 32"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps"),
        ({"use_short_conv": 1}, "use_short_conv"),
        ({"eos_token_id": [1, -2]}, "eos_token_id"),
        ({"eos_token_id": 10**400}, "eos_token_id"),
    ],
)
def test_wrong_keys_are_named(change: dict[str, Any], named: str) -> None:
    with pytest.raises(CheckpointError, match=named):
        ModelConfig.parse(GOOD | change, "config.json")


def test_a_shape_that_no_machine_can_hold() -> None:
    with pytest.raises(CheckpointError, match="hidden_size"):
        ModelConfig.of(1 << 30, 2, 16)


def test_every_missing_key_is_named() -> None:
    with pytest.raises(CheckpointError, match=r"vocab_size.*hidden_size.*num_hidden_layers"):
        ModelConfig.parse({"model_type": "hgrn_bit"}, "config.json")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, "\udcff", '{"a": 1' * 9])
def test_a_config_that_is_not_a_json_object(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(CheckpointError, match=r"config\.json"):
        ModelConfig.read(tmp_path / "config.json")
