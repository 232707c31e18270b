"""A small part of each script, in a process of its own: it forks, which pytest's may not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]


def run(script: str, count: int) -> dict[str, int]:
    """The outcomes of `count` cases; the script's whole output if there was a fault."""
    words = [sys.executable, "-m", f"fuzz.{script}", "--count", str(count), "--workers", "2"]
    environment = os.environ | {"PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        words, env=environment, capture_output=True, text=True, check=False, errors="replace"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    header, totals, *_ = done.stdout.splitlines()
    names = re.split(" {2,}", header.strip())
    return dict(zip(names, map(int, totals.split()[1:]), strict=True))


@pytest.mark.slow
def test_random_modules_are_refused_or_equal() -> None:
    outcomes = run("modules", 12)
    assert outcomes["equal"] >= 3  # where all are refused, nothing is tested


@pytest.mark.slow
def test_mutated_inputs_are_refused_or_change_nothing() -> None:
    outcomes = run("mutations", 100)
    assert outcomes["refused"] >= 50


@pytest.mark.slow
def test_mutated_onnx_models_are_refused_or_models() -> None:
    outcomes = run("onnx_models", 30)
    assert outcomes["refused"] >= 12
    assert outcomes["accepted"] >= 2
