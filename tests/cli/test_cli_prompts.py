"""Text that commands read: special tokens, long texts, empty files."""

from __future__ import annotations

from pathlib import Path

import pytest
from invoking import invoke_json
from typer.testing import CliRunner

from mmfree_compiler.cli.app import app

END = "<|endoftext|>"
RUN = ("--max-new-tokens", "1", "--seed", "1")


@pytest.mark.parametrize(("options", "tokens"), [((), 13), (("--allow-special-tokens",), 1)])
def test_special_tokens_in_a_prompt(
    tiny_artifact: Path, options: tuple[str, ...], tokens: int
) -> None:
    found = invoke_json("run", tiny_artifact, "--prompt", END, *RUN, *options)
    assert found["stats"]["prompt_tokens"] == tokens


def test_a_long_prompt(tiny_artifact: Path) -> None:
    arguments = ["run", str(tiny_artifact), "--prompt", "a" * 9, *RUN, "--max-prompt-bytes", "8"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert "prompt: has 9 characters" in result.stderr


def test_verify_on_an_empty_text(
    tiny_artifact: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """There is no prompt that could be empty."""
    text = tmp_path / "text"
    text.touch()
    against = ["--against", str(tiny_checkpoint), "--text", str(text)]
    result = CliRunner().invoke(app, ["verify", str(tiny_artifact), *against])
    assert result.exit_code == 1
    assert f"{text}: is empty" in " ".join(result.stderr.split())
