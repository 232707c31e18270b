"""Every golden case of the published model, on the reference backend.

Every other target gives the same bits (test_model_bits.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from golden_cases import (
    EDGE,
    FLIPPED,
    FLIPPED_SHARE,
    SEQUENCES,
    TOLERANCE,
    GoldenCase,
    golden_cases,
)
from published_codes import first_difference, published
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import mmfree_compiler as mmf
from mmfree_compiler.compiled_model import CompiledModel
from mmfree_compiler.models import BitLinear
from mmfree_compiler.ops import OPS
from mmfree_compiler.runtime import State

QUANTIZERS = {OPS[name].overload for name in ("quantize", "norm_quant")}

cases = pytest.mark.parametrize("case", golden_cases(), ids=str)
sequences = pytest.mark.parametrize("key", SEQUENCES)


class Codes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps the codes (1, tokens, K) that a Program's ops make, in their order."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.rows: list[Tensor] = []

    def __torch_dispatch__(
        self, func: Any, _: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        if func in QUANTIZERS:
            self.rows += made[::2]
        return made


@dataclass(frozen=True)
class Found:
    """What the compiled model makes of a sequence, as in published_codes.Run."""

    logits: Tensor
    states: list[State]
    codes: list[Tensor]


@cache
def compiled(case: GoldenCase) -> CompiledModel:
    return mmf.compile(case.folder, "reference", check=False)


@cache
def found(case: GoldenCase, key: str) -> Found:
    sequence, run = case.sequence(key), compiled(case).session
    real = torch.ones_like(sequence.tokens) if sequence.mask is None else sequence.mask
    logits, states = [], []
    # Padding has no codes. What stands there differs from none.
    codes = [rows.clone() for rows in published(case, key).codes]
    state, start = None, 0
    for tokens in torch.split(sequence.tokens, sequence.calls, 1):
        with Codes() as made:
            out, state = run(tokens, state, mask=sequence.mask)
        logits.append(out)
        states.append(state)
        here = slice(start, start + tokens.shape[1])
        for rows, of_call in zip(codes, made.rows, strict=True):
            rows[:, here][real[:, here].bool()] = of_call[0].float()
        start = here.stop
    return Found(torch.cat(logits, 1), states, codes)


@cases
@sequences
def test_logits(case: GoldenCase, key: str) -> None:
    """Within TOLERANCE but for tokens that follow a code that rounding decides."""
    result, theirs = found(case, key), published(case, key)
    names = [name for name, m in case.model().named_modules() if isinstance(m, BitLinear)]
    errors = case.errors(result.logits, key)
    off = errors > TOLERANCE
    assert errors.max() <= FLIPPED
    for row, token in off.nonzero().tolist():
        message = f"row {row}, token {token} is off by {errors[row, token]:.1e}"
        difference = first_difference(theirs, result.codes, row, token)
        assert difference, f"{message}, and every code is the published one"
        at, distance = difference
        message += f"; the first other code is at token {at.token}, {names[at.layer]}"
        message += f"[{at.column}], {distance:.1e} from the edge"
        assert distance <= EDGE, message


@pytest.mark.parametrize("case", golden_cases("ternary"), ids=str)
def test_ternary_codes(case: GoldenCase) -> None:
    """The compiled program holds the reference's codes, all of them and no others."""
    program = compiled(case).artifact.program
    assert program is not None
    ternary = [c for c in program.constants.values() if c.role == "ternary"]
    assert {c.dtype for c in ternary} == {"int8"}
    found = [part.tobytes() for c in ternary for part in c.parts]
    expected = []
    for name, tensor in case.ternary.items():
        if name.endswith("|ternary"):  # a GLU's gate and up are two weights of the program
            halves = tensor.chunk(2) if "gate_proj" in name else (tensor,)
            expected += [half.numpy().tobytes() for half in halves]
    assert sorted(found) == sorted(expected)


@cases
def test_few_tokens_are_off(case: GoldenCase) -> None:
    errors = torch.cat([case.errors(found(case, k).logits, k).flatten() for k in SEQUENCES])
    assert (errors > TOLERANCE).float().mean() <= FLIPPED_SHARE


def test_padding_changes_no_bit() -> None:
    for case in golden_cases():
        sequence, padded = case.sequence("padded"), found(case, "padded")
        assert sequence.mask is not None
        for row, mask in enumerate(sequence.mask.bool()):
            alone = compiled(case).session(sequence.tokens[row : row + 1, mask])[0]
            assert torch.equal(padded.logits[row, mask], alone[0]), case


@cases
def test_states(case: GoldenCase) -> None:
    """After 17 tokens and after 24, of the rows in which no code is another.

    The published cache was saved after the first single token, not before it.
    """
    result, theirs = found(case, "stepped"), published(case, "stepped")
    for key, call, last in (("prefill16_state", 1, 16), ("decode_state", -1, 23)):
        same = [first_difference(theirs, result.codes, row, last) is None for row in range(2)]
        assert_state(case, key, result.states[call], torch.tensor(same))


def assert_state(case: GoldenCase, key: str, state: State, rows: Tensor) -> None:
    """There is one state per layer; with a convolution, its (B, D, k) comes first."""
    for part in compiled(case).session.artifact.manifest.states:
        found = torch.from_numpy(state.part(part.name))  # (B, layers, *shape)
        convolution = len(part.shape) > 1
        recurrent = "1" if f"{key}.0.1" in case.golden else "0"
        for layer in range(part.count):
            expected = case.golden[f"{key}.{layer}.{'0' if convolution else recurrent}"]
            got = found[:, layer].transpose(1, 2) if convolution else found[:, layer]
            error = (got - expected.reshape(got.shape)).abs().flatten(1).amax(-1)
            assert (error[rows] <= TOLERANCE).all()


@cases
def test_greedy_ids(case: GoldenCase) -> None:
    """Compared as far as the margin between the best two logits decides (README of the cases)."""
    ids, margin = case.golden["greedy_ids"], case.golden["greedy_margin"]
    for row in range(len(ids)):
        count = int((margin[row] > 1e-3).int().cumprod(0).sum())
        options: dict[str, Any] = {"max_new_tokens": count, "temperature": 0, "stop_tokens": ()}
        made = compiled(case).session.generate(ids[row, :16].tolist(), **options)
        assert [token.id for token in made] == ids[row, 16 : 16 + count].tolist()


def test_a_difference_is_found_with_its_distance() -> None:
    """In the first layer of those that a token depends on, then at the first token."""
    case = golden_cases()[0]
    run = published(case, "whole")
    codes = [rows.clone() for rows in run.codes]
    for layer, token in ((2, 9), (3, 4), (3, 6)):
        codes[layer][0, token, 5] += 1
    for last, layer, token in ((33, 2, 9), (8, 3, 4), (5, 3, 4)):
        difference = first_difference(run, codes, 0, last)
        assert difference is not None
        at, distance = difference
        assert at == (layer, 0, token, 5)
        value = run.scaled[layer][0, token, 5]
        assert distance == pytest.approx(float((value - value.round() - 0.5).abs()), rel=1e-3)
    assert first_difference(run, codes, 0, 3) is first_difference(run, codes, 1, 33) is None
