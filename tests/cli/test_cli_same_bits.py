"""`mmfree verify` of two compiled models."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from invoking import invoke, invoke_json
from op_modules import runnable_variants
from typer.testing import CliRunner

import mmfree_compiler as mmf
from mmfree_compiler import same_bits
from mmfree_compiler.cli.app import app
from mmfree_compiler.runtime import load
from mmfree_compiler.same_bits import CASES, Difference, Report

ONE = ("--threads", "1")


def test_two_variants(tiny_checkpoint: Path, tiny_artifact: Path, tmp_path: Path) -> None:
    """The portable one, and the best one of this machine."""
    best = tmp_path / "best.mmfree"
    mmf.compile(tiny_checkpoint, f"cpu:{runnable_variants()[0]}", threads=1).save(best)
    found = invoke_json("verify", best, "--against", tiny_artifact, "--tokens", "350", *ONE)
    assert found["passed"] is True
    assert (found["differing_bits"], found["first"]) == (0, None)
    assert (found["prompts"], found["tokens"]) == (sum(batch for batch, _, _ in CASES), 350)
    vocabulary = load(best).language_model.vocab_size
    assert found["numbers"] > 350 * vocabulary  # and the states
    said = invoke("verify", best, "--against", tiny_artifact, "--tokens", "1", "--seed", "3", *ONE)
    assert re.search(r"differing bits +0 *\n", said)
    assert re.search(r"verdict +the same bits *\n", said)


def test_the_command_names_the_first_difference(
    tiny_artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = Report(16, 350, 99_999, 3, Difference(3, 5, "logits"))
    monkeypatch.setattr(same_bits, "same_bits", lambda *_: report)
    arguments = ("verify", tiny_artifact, "--against", tiny_artifact)
    found = invoke_json(*arguments, code=1)
    assert (found["passed"], found["differing_bits"]) == (False, 3)
    assert found["first"] == {"prompt": 3, "token": 5, "output": "logits"}
    said = invoke(*arguments, code=1)
    assert "first difference  prompt 3, token 5, logits" in said
    assert "NOT the same bits" in said


def test_an_engine_of_others(tiny_checkpoint: Path, tiny_artifact: Path) -> None:
    """The checkpoint, compiled for it: its bits are the artifact's."""
    arguments = ("verify", tiny_artifact, "--against", tiny_checkpoint, "--tokens", "60", *ONE)
    found = invoke_json(*arguments, "--engine", "onnxruntime")
    assert (found["passed"], found["differing_bits"]) == (True, 0)
    assert "Known: onnxruntime" in refused(*arguments[1:], "--engine", "none")
    against = (tiny_artifact, "--against", tiny_artifact, "--engine", "onnxruntime")
    assert "is for a checkpoint" in refused(*against)


def refused(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, ["verify", *map(str, arguments)])
    assert result.exit_code == 1
    return result.stderr


def test_options_of_the_other_comparison(tiny_artifact: Path, tiny_checkpoint: Path) -> None:
    said = refused(tiny_artifact, "--against", tiny_artifact, "--text", tiny_artifact)
    assert "--text is for a checkpoint" in said.replace(": ", " ")
    said = refused(tiny_artifact, "--against", tiny_checkpoint, "--seed", "1")
    assert "--seed is for another compiled model" in said.replace(": ", " ")
