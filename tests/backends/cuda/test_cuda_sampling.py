"""The kernels that choose tokens, in Triton's interpreter: the tokens of runtime/next_token.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from triton_process import interpreted, native

from mmfree_compiler.backends.cuda import lanes
from mmfree_compiler.runtime.choices import choices
from mmfree_compiler.runtime.next_token import sample
from mmfree_compiler.runtime.sampling import Sampling

LARGEST = float(np.finfo(np.float32).max)
Floats = NDArray[np.float32]
Run = Callable[..., Any]


def assert_same(
    logits: Floats, samplings: list[Sampling], random: np.random.Generator, run: Run = interpreted
) -> None:
    """Of the first step, for each row of logits with its own settings."""
    count, vocabulary = logits.shape
    seen = random.random((count, vocabulary)) < 0.3
    seeds = [int(x) for x in random.integers(0, 2**64 - 1, count, np.uint64)]
    position = np.full(count, 2**32 + 1)
    rows = np.arange(count * lanes.RING, dtype=np.int32).reshape(count, lanes.RING)
    before = lanes.chosen_by(choices(samplings, seeds, seen), position, rows)
    drawn, after, left = run("sampling_kernels.chosen", logits, before, 1)
    for i, sampling in enumerate(samplings):
        chosen, logprob = sample(logits[i], seen[i], sampling, seeds[i], 2**32 + 2)
        found = drawn[i, 0]
        assert (found["id"], left["input"][i]) == (chosen, chosen), (i, sampling)
        assert (found["logit"], found["peak"]) == (logits[i, chosen], logits[i].max())
        ours = float(found["logit"]) - float(found["peak"]) - np.log(found["total"])
        assert abs(ours - logprob) < 1e-6
        seen[i, chosen] = True
    expected = lanes.chosen_by(choices(samplings, seeds, seen), position + 1, rows)
    expected["step"] = 1
    assert [name for name in after.dtype.names if (after[name] != expected[name]).any()] == []
    assert np.array_equal(left["slots"], rows[:, 1])
    assert np.array_equal(left["targets"], rows[:, 2])


def random_samplings(random: np.random.Generator, count: int) -> list[Sampling]:
    return [
        Sampling(
            temperature=random.choice([0.0, 1e-3, 0.7, 1.0, 3.0, 1e6]),
            top_k=int(random.choice([0, 0, 1, 5, 40, 10**9])),
            top_p=random.choice([1e-6, 0.3, 0.9, 1.0]),
            repetition_penalty=random.choice([0.5, 1.0, 1.3]),
        )
        for _ in range(count)
    ]


# Few distinct values, so that ties are common; what a nucleus cuts; what is masked out; flat.
VALUES: dict[str, Any] = {
    "ties": lambda random, shape: random.choice([0.0, -0.0, 1.0, -2.5, 9.0, -np.inf], shape),
    "normal": lambda random, shape: random.normal(size=shape) * 4,
    "flat": lambda _, shape: np.zeros(shape),
    "huge": lambda random, shape: random.choice([LARGEST, -LARGEST, 2e30, 1e27, 1.0], shape),
    "far below": lambda random, shape: random.uniform(-LARGEST, -1e30, shape),
}


@pytest.mark.parametrize(
    ("values", "vocabulary", "count"),
    [
        ("normal", 1, 3),
        *((values, 45, 9) for values in VALUES),
        ("normal", 2100, 4),
        ("ties", 2100, 4),
    ],
)
def test_the_tokens_of_the_host(values: str, vocabulary: int, count: int) -> None:
    random = np.random.default_rng(vocabulary)
    logits = VALUES[values](random, (count, vocabulary)).astype(np.float32)
    logits[:, random.integers(vocabulary)] = 3.0 if values == "ties" else logits[:, 0]
    assert_same(logits, random_samplings(random, count), random)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("vocabulary", [45, 32_000, 262_144])
def test_the_same_on_a_gpu(values: str, vocabulary: int) -> None:
    random = np.random.default_rng(vocabulary)
    logits = VALUES[values](random, (32, vocabulary)).astype(np.float32)
    logits[:, random.integers(vocabulary)] = 3.0 if values == "ties" else logits[:, 0]
    assert_same(logits, random_samplings(random, 32), random, native)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_damaged_logits_are_told_and_change_no_other_lane(bad: float) -> None:
    """The host reads of them in the largest logit; the id is one that can be read."""
    logits = np.arange(2 * 45, dtype=np.float32).reshape(2, 45) % 7
    logits[0, 3:] = bad
    if bad < 0:
        logits[0] = bad
    hot = [Sampling(temperature=temperature, top_k=5, top_p=0.5) for temperature in (1.0, 0.0)]
    no = np.zeros((2, 45), np.bool_)
    rows = np.zeros((2, lanes.RING), np.int32)
    before = lanes.chosen_by(choices(hot, [0, 0], no), np.zeros(2, np.int64), rows)
    drawn, *_ = interpreted("sampling_kernels.chosen", logits, before, 1)
    assert not np.isfinite(drawn[0, 0]["peak"])
    assert np.isnan(drawn[0, 0]["peak"]) == np.isnan(bad)
    assert drawn["id"][:, 0].tolist() == [0, 3]


def test_steps_follow_each_other() -> None:
    """Each draws at the next position, and goes on to the next state rows, in turns."""
    logits = np.random.default_rng(3).normal(size=(1, 45)).astype(np.float32)
    seen, rows = np.zeros((1, 45), np.bool_), np.array([[7, 1, 5, 2]], np.int32)
    sampling = Sampling(repetition_penalty=1.3)
    before = lanes.chosen_by(choices([sampling], [9], seen), np.array([4]), rows)
    drawn, after, left = interpreted("sampling_kernels.chosen", logits, before, lanes.RING + 1)
    ids = []
    for position in range(5, 5 + lanes.RING + 1):
        ids.append(sample(logits[0], seen[0], sampling, 9, position)[0])
        seen[0, ids[-1]] = True
    assert drawn[0]["id"].tolist() == [ids[lanes.RING], *ids[1 : lanes.RING]]
    assert (after["step"][0], after["position"][0]) == (lanes.RING + 1, 5 + lanes.RING)
    step = lanes.RING + 1
    assert left["slots"][0] == rows[0, step % lanes.RING]
    assert left["targets"][0] == rows[0, (step + 1) % lanes.RING]
