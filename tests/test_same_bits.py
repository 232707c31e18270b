"""same_bits: a bit that differs is found where it is; other models are refused."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mmfree_compiler as mmf
from mmfree_compiler.backends.interface import States
from mmfree_compiler.backends.numpy_states import NumpyStates
from mmfree_compiler.errors import InputError
from mmfree_compiler.models import ModelConfig, load_checkpoint, random_checkpoint, save_checkpoint
from mmfree_compiler.runtime import Session, load
from mmfree_compiler.same_bits import Difference, Floats, same_bits

TOKENS = 350  # 70 tokens per case


def changing(session: Session, call: int, change: Callable[[Floats, States], None]) -> Session:
    """The session, with `change(logits, states)` after one call; logits has a row per token."""
    model, run, calls = session.language_model, session.language_model.run, count()

    def changed(*arguments: Any) -> Floats:
        logits = run(*arguments)
        if next(calls) == call:
            change(logits, arguments[-1])
        return logits

    model.run = changed  # type: ignore[assignment,method-assign]
    return session


def flip(numbers: Floats) -> None:
    """The lowest bit of each."""
    numbers.view(np.uint32)[:] ^= np.uint32(1)


# 70 tokens per case. Prompt 0 is read by calls 0 to 69, prompt 1 by call 70, prompts 2 and 3 by
# call 71, 35 tokens each; 4 to 8 by calls 72 and 73, 7 tokens each; 9 to 15 by calls 74 to 83.
@pytest.mark.parametrize(
    ("call", "row", "prompt", "token"),
    [(7, 0, 0, 7), (70, 13, 1, 13), (71, 35 + 5, 3, 5), (73, 4 * 7 + 2, 8, 7 + 2), (83, 6, 15, 9)],
)
def test_a_bit_of_a_logit(
    tiny_artifact: Path, call: int, row: int, prompt: int, token: int
) -> None:
    theirs = changing(load(tiny_artifact, 1), call, lambda logits, _: flip(logits[row, -1:]))
    report = same_bits(load(tiny_artifact, 1), theirs, TOKENS, seed=0)
    assert not report.passed
    assert report.differing_bits == 1
    assert report.first == Difference(prompt, token, "logits")


def test_the_first_difference_is_the_earliest_token(tiny_artifact: Path) -> None:
    theirs = changing(load(tiny_artifact, 1), 71, lambda logits, _: flip(logits[9]))
    theirs = changing(theirs, 71, lambda logits, _: flip(logits[35 + 4]))
    report = same_bits(load(tiny_artifact, 1), theirs, TOKENS, seed=0)
    assert report.first == Difference(3, 4, "logits")


def test_a_bit_of_a_state(tiny_artifact: Path) -> None:
    def change(_: Floats, states: States) -> None:
        arrays = states.export()
        (name,) = arrays
        flip(arrays[name].reshape(-1)[-1:])
        states.put(slice(None), NumpyStates(arrays, 1))

    report = same_bits(
        load(tiny_artifact, 1), changing(load(tiny_artifact, 1), 70, change), TOKENS, 0
    )
    assert report.differing_bits == 1
    assert report.first is not None
    assert (report.first.prompt, report.first.token) == (1, 69)
    assert report.first.output.startswith("state ")


def test_states_are_carried_on(tiny_artifact: Path) -> None:
    """Each model's own: a state that differs is found in later logits too."""

    def change(_: Floats, states: States) -> None:
        states.put(slice(None), NumpyStates({k: x + 1 for k, x in states.export().items()}, 1))

    once = same_bits(
        load(tiny_artifact, 1), changing(load(tiny_artifact, 1), 69, change), TOKENS, 0
    )
    early = same_bits(
        load(tiny_artifact, 1), changing(load(tiny_artifact, 1), 60, change), TOKENS, 0
    )
    assert early.differing_bits > 5 * once.differing_bits > 0


def test_all_nan_count_as_one(tiny_artifact: Path) -> None:
    def nan(bits: int) -> Session:
        def change(logits: Floats, _: States) -> None:
            logits.view(np.uint32)[0, 0] = bits

        return changing(load(tiny_artifact, 1), 70, change)

    assert same_bits(nan(0x7FC00000), nan(0xFFC12345), TOKENS, 0).passed
    assert not same_bits(nan(0x7FC00000), nan(0x3F800000), TOKENS, 0).passed


def test_torch_is_not_needed(tiny_artifact: Path) -> None:
    code = (
        "import sys\n"
        "from mmfree_compiler.runtime import load\n"
        "from mmfree_compiler.same_bits import same_bits\n"
        "assert same_bits(load(sys.argv[1], 1), load(sys.argv[1], 1), 1, 0).passed\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tiny_artifact)], check=True)


def test_one_weight_changed(tiny_checkpoint: Path, tiny_artifact: Path, tmp_path: Path) -> None:
    model = load_checkpoint(tiny_checkpoint)
    model.get_parameter("model.embeddings.weight").data[0, 0] += 1
    save_checkpoint(model, tmp_path / "c")
    changed = Session(mmf.compile(tmp_path / "c", "cpu:portable", threads=1).artifact)
    with pytest.raises(InputError, match="another fingerprint: other weights"):
        same_bits(load(tiny_artifact, 1), changed, TOKENS, 0)


def test_another_vocabulary(tiny_artifact: Path, tmp_path: Path) -> None:
    random_checkpoint(tmp_path / "c", ModelConfig.of(64, 2, 99))
    other = Session(mmf.compile(tmp_path / "c", "cpu:portable", threads=1).artifact)
    with pytest.raises(InputError, match="257 logits, the other model has 99"):
        same_bits(load(tiny_artifact, 1), other, TOKENS, 0)
