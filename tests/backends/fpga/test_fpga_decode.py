"""Greedy decoding on the machine alone: the tokens of a session that chooses on the host."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import mmfree_compiler as mmf
from mmfree_compiler.backends.fpga.facts import MOST_STEPS
from mmfree_compiler.backends.fpga.run.launcher import FpgaLauncher
from mmfree_compiler.backends.interface import Batch
from mmfree_compiler.cli.inspect import describe
from mmfree_compiler.errors import InputError
from mmfree_compiler.runtime import Sampling, Session

STEPS = 9


@pytest.fixture(scope="module")
def session(tiny_checkpoint: Path) -> Session:
    return mmf.compile(tiny_checkpoint, "fpga:kv260").session


def greedy(session: Session, prompt: list[int], steps: int) -> list[int]:
    sampling = Sampling(max_new_tokens=steps, stop_tokens=(), temperature=0)
    return [token.id for token in session.generate(prompt, sampling)]


@pytest.mark.parametrize("steps", [1, STEPS, MOST_STEPS + 3])
def test_the_same_tokens(session: Session, steps: int) -> None:
    launcher = session.launcher
    assert isinstance(launcher, FpgaLauncher)
    prompts = [[5], [77], [250]]
    states, index = launcher.states(3), np.arange(3)
    batch = Batch((np.array([5, 77, 250]),), index.astype(np.int32), index * 0, index)
    ids = launcher.greedy(batch, states, steps)
    assert ids.T.tolist() == [greedy(session, prompt, steps) for prompt in prompts]
    _, expected = session(np.array([[5], [77], [250]]))
    for row in ids[:-1]:
        _, expected = session(row[:, None], expected)
    for name, array in states.export().items():
        assert np.array_equal(array, expected.states.export()[name])


def test_more_sequences_than_fit(session: Session) -> None:
    launcher = session.launcher
    assert isinstance(launcher, FpgaLauncher)
    index = np.arange(launcher.most_sequences + 1)
    batch = Batch((index,), index.astype(np.int32), index, index)
    with pytest.raises(InputError, match="do not fit into the board's memories"):
        launcher.greedy(batch, launcher.states(len(index)), 1)


WITHOUT_TORCH = """
import sys
from mmfree_compiler.runtime import Sampling, load
text = load(sys.argv[1]).generate([97, 98], Sampling(max_new_tokens=3, stop_tokens=()))
print([token.id for token in text])
heavy = {"torch", "tvm", "triton", "tvm_ffi", "rich", "typer"} & sys.modules.keys()
sys.exit(f"imported {heavy}" if heavy else 0)
"""


def test_a_saved_model_runs_with_the_base_install(session: Session, tmp_path: Path) -> None:
    path = tmp_path / "model.mmfree"
    session.artifact.save(path)
    command = [sys.executable, "-c", WITHOUT_TORCH, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("[")


def test_beside_another_target(tiny_checkpoint: Path) -> None:
    """One file for both; each sees its own constants."""
    both = mmf.compile(tiny_checkpoint, ["cpu:portable", "fpga:kv260"], threads=1)
    ids = np.arange(12).reshape(2, 6)
    first, second = (Session(view)(ids)[0] for view in both.artifact.targets)
    assert np.array_equal(first, second)
    counts = [describe(view, 0)["parameters"] for view in both.artifact.targets]
    assert counts[0] == counts[1]
