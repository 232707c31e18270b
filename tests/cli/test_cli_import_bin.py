"""`mmfree import-bin`, and the error that names it."""

from __future__ import annotations

from pathlib import Path

import torch
from invoking import invoke, invoke_json
from safetensors.torch import load_file
from typer.testing import CliRunner

from mmfree_compiler.cli.app import app
from mmfree_compiler.models import ModelConfig, load_checkpoint, random_checkpoint


def test_a_checkpoint_of_a_pickle(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    random_checkpoint(folder, ModelConfig.of(8, 1, 16, intermediate_size=8))
    weights = folder / "model.safetensors"
    torch.save(load_file(weights), folder / "pytorch_model.bin")
    size = weights.stat().st_size
    weights.unlink()
    refused = CliRunner().invoke(app, ["compile", str(folder), "-o", str(tmp_path / "m.mmfree")])
    assert f"mmfree import-bin {folder}" in refused.stderr
    found = invoke_json("import-bin", folder)
    assert found == {"weights": str(weights), "tensors": 20, "bytes": found["bytes"]}
    assert abs(found["bytes"] - size) < 1000
    assert load_checkpoint(folder).config.vocab_size == 16
    weights.unlink()
    assert "20" in invoke("import-bin", folder)


def test_a_checkpoint_that_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    random_checkpoint(folder, ModelConfig.of(8, 1, 16, intermediate_size=8))
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")  # junk to torch
    refused = CliRunner().invoke(app, ["import-bin", str(folder)])
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "pytorch_model.bin: holds more than tensors, or is damaged" in refused.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]
    assert not (folder / "model.safetensors").exists()
