"""Models under compute-sanitizer: here a script takes its place, which only runs them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks import gpu_sanitize
from mmfree_compiler.errors import InputError

SANITIZER = """#!/bin/sh
echo "$2" >> {log}
shift 4
exec "$@"
"""


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the tools are named that ran."""
    script, log = tmp_path / "compute-sanitizer", tmp_path / "log"
    script.write_text(SANITIZER.format(log=log))
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return log


def test_each_tool_runs_each_model(tiny_artifact: Path, log: Path) -> None:
    gpu_sanitize.main([tiny_artifact], "memcheck,racecheck")
    assert log.read_text().split() == ["memcheck", "racecheck"]


def test_a_run_that_fails(log: Path, tmp_path: Path) -> None:
    """What fails is named, and ends the process with 1."""
    with pytest.raises(SystemExit, match="failed: memcheck missing"):
        gpu_sanitize.main([tmp_path / "missing.mmfree"], "memcheck")
    assert log.read_text().split() == ["memcheck"]


def test_no_sanitizer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    monkeypatch.setattr(gpu_sanitize, "INSTALLED", str(tmp_path))
    with pytest.raises(InputError, match="compute-sanitizer: is not installed"):
        gpu_sanitize.main([tmp_path / "a.mmfree"], "memcheck")
