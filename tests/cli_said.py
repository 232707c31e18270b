"""What a command says, and that an error is one line."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from mmfree_compiler.cli.app import app


def invoke(*arguments: str | Path) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout, result.stderr


def assert_one_line(said: tuple[int, str, str], *words: str) -> None:
    code, stdout, stderr = said
    assert (code, stdout) == (1, "")
    assert stderr.startswith("mmfree: ")
    assert stderr.count("\n") == 1
    for word in words:
        assert word in stderr
