"""What the checks accept as rounding, and on which inputs they compare."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import mmfree_compiler as mmf
from mmfree_compiler.checking import Case, cases_like, run_program
from mmfree_compiler.checking.compare import difference
from mmfree_compiler.checking.rounding import Following, Recorded
from mmfree_compiler.models import MLGRU, ModelConfig

# --- outputs -------------------------------------------------------------------------------------

NAN, INF = math.nan, math.inf


def outputs_differ(found: list[Tensor], expected: list[Tensor]) -> str:
    return str(difference(Case((torch.zeros(2, 3),)), found, expected) or "")


@pytest.mark.parametrize(
    "rows", [[[1, 2]], [[1, NAN]], [[INF, -INF]], [[NAN, NAN]], [[0, 0], [1, 2]], [], [[]]]
)
def test_equal_outputs(rows: list[list[float]]) -> None:
    assert outputs_differ([torch.tensor(rows)], [torch.tensor(rows)]) == ""


def test_rounding_is_accepted_by_the_row() -> None:
    """1e-4 of the row's largest value, wherever in the row."""
    expected = torch.tensor([[100.0, 1.0], [1e-3, 0.0]])
    assert outputs_differ([expected + torch.tensor([[0, 9e-3], [0, 9e-8]])], [expected]) == ""
    found = outputs_differ([expected + torch.tensor([[9e-3, 0], [0, 1.1e-7]])], [expected])
    assert found.startswith("output 0 differs from the module's by 0.00011 of the largest value")
    assert "token 1" in found


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([1, 2.1], [1, 2]),
        ([1, NAN], [1, 2]),
        ([1, 2], [1, NAN]),
        ([1, INF], [1, 2]),
        ([1, INF], [1, -INF]),
        ([1e-30, 0], [0, 0]),
        ([1, 2, 3], [1, 2]),
    ],
    ids=str,
)
def test_other_outputs(found: list[float], expected: list[float]) -> None:
    zero = torch.zeros(1, 2)
    text = outputs_differ([zero, torch.tensor([found])], [zero, torch.tensor([expected])])
    assert text.startswith("output 1 differs from the module's")


def test_complex_outputs_are_compared_whole() -> None:
    expected = torch.complex(torch.ones(2, 3), torch.full((2, 3), NAN))
    assert outputs_differ([expected.clone()], [expected]) == ""
    expected = torch.complex(torch.ones(2, 3), torch.zeros(2, 3))
    found = outputs_differ([expected + 1e-3j], [expected])
    assert found.startswith("output 0 differs from the module's by 0.001 of the largest value")
    assert outputs_differ([expected.real], [expected + 1e-3j])
    assert outputs_differ([expected + 1e-5j], [expected]) == ""
    assert "by inf" in outputs_differ(
        [expected], [torch.complex(expected.real, expected.real * NAN)]
    )


def test_outputs_of_another_number_or_shape() -> None:
    zero = torch.zeros(2, 3)
    assert "in number: 2 outputs instead of 1" in outputs_differ([zero, zero], [zero])
    assert "in shape: (2, 3) instead of (1, 2, 3)" in outputs_differ([zero], [zero[None]])


# --- codes ---------------------------------------------------------------------------------------


def codes(*values: float) -> Tensor:
    return torch.tensor([values])


@pytest.mark.parametrize(
    ("x", "recorded"),
    [
        (codes(3.4, -7.0), codes(3.4, -7.0)),
        (codes(3.1, NAN), codes(2.9, NAN)),
        (codes(3.50004, 1.0), codes(3.49995, 1.0)),
        (codes(-3.50004, 1.0), codes(-3.49995, 1.0)),
        (codes(0.50009, 1.0), codes(0.49991, 1.0)),
    ],
)
def test_a_run_follows_another_at_edges(x: Tensor, recorded: Tensor) -> None:
    following = Following([Recorded(1, [recorded])], pytest.fail)
    assert torch.equal(following.round(x).nan_to_num(), recorded.round().nan_to_num())


@pytest.mark.parametrize(
    ("x", "recorded"),
    [
        (codes(3.6), codes(3.4)),  # off the edge
        (codes(3.50002), codes(3.4998)),  # one of them is
        (codes(4.5), codes(3.4999)),  # two codes apart
        (codes(NAN), codes(1.0)),
        (codes(1.0), codes(NAN)),
        (codes(1.0), codes(1.0, 2.0)),
    ],
)
def test_a_run_does_not_follow_what_differs(x: Tensor, recorded: Tensor) -> None:
    noticed: list[bool] = []
    following = Following([Recorded(1, [recorded])], lambda: noticed.append(True))
    assert torch.equal(following.round(x).nan_to_num(), x.round().nan_to_num())
    assert noticed == [True]


def test_runs_may_round_in_another_order_or_once_for_several() -> None:
    rows = [codes(0.4999999), codes(7.0), codes(9.49999)]
    following = Following([Recorded(1, rows)], pytest.fail)
    found = [following.round(codes(x)).item() for x in (9.50001, 0.5000001, 0.5000001, 7.0)]
    assert found == [9, 0, 0, 7]


# --- inputs ---------------------------------------------------------------------------------------


def test_every_magnitude_without_leading_dimensions() -> None:
    seen = [case for case in cases_like(nn.Identity(), (torch.ones(8),)) if case.rows]
    sizes = [case.inputs[0].abs().max().item() for case in seen]
    assert len(seen) == 7
    assert min(sizes) == 0
    assert max(sizes) > 1e3


def test_ids_are_below_the_vocabulary() -> None:
    tokens = torch.zeros(2, 3, dtype=torch.int64)
    _, one, many = cases_like(nn.Embedding(5, 4), (tokens,))
    assert one.inputs[0].shape == (1, 1)
    assert set(many.inputs[0].flatten().tolist()) == set(range(5))


@torch.no_grad()
def test_a_program_runs_from_zero_states() -> None:
    """Each sequence of a batch begins anew, and follows its own time."""
    torch.manual_seed(0)
    config = ModelConfig.of(16, 1, 20).model_copy(update={"use_short_conv": True})
    module, x = MLGRU(config).eval(), torch.randn(3, 7, 16)
    program = mmf.compile(module, "reference", example_inputs=(x,), check=False).artifact.program
    assert program is not None
    (found,) = run_program(program, (x,))
    torch.testing.assert_close(found, module(x)[0].flatten(0, 1), rtol=1e-3, atol=1e-4)
    (alone,) = run_program(program, (x[1],))  # one sequence, without a batch
    assert torch.equal(alone, found[7:14])
