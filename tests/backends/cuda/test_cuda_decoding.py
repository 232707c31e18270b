"""Decoding on the device, with kernels that Triton interprets: the reference's tokens and states.

On a GPU, tests/conformance/test_model_bits.py compares texts, which are decoded so.
"""

from __future__ import annotations

import pytest
from triton_process import interpreted

from mmfree_compiler.backends.cuda.lanes import AHEAD, RING


@pytest.mark.parametrize("name", ["generations", "ends", "batches", "turns", "threads"])
def test_tokens_and_states_of_the_reference(name: str) -> None:
    assert interpreted(f"cuda_decoding.{name}") == []


@pytest.mark.parametrize(("taken", "steps"), [(0, 9), (RING + 1, 9), (2, 1 + AHEAD), (2, 2)])
def test_closing_leaves_the_states_after_what_was_taken(taken: int, steps: int) -> None:
    assert interpreted("cuda_decoding.closing", taken, steps) == []


@pytest.mark.parametrize("method", ["step", "drawn"])
def test_interrupts(method: str) -> None:
    assert interpreted("cuda_decoding.interrupts", method) == []


def test_damaged_logits() -> None:
    message = "logits: contain NaN or infinity. Start from another state, or check the weights"
    assert interpreted("cuda_decoding.damaged") == message


def test_state_rows_are_given_back() -> None:
    first, second = interpreted("cuda_decoding.rows_left")
    assert first == second
