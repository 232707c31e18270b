"""Running a command in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from mmfree_compiler.cli.app import app


def invoke(*arguments: str | Path, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.stderr
    return result.stdout


def invoke_json(*arguments: str | Path, code: int = 0) -> Any:
    return json.loads(invoke(*arguments, "--json", code=code))
