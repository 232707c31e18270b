"""Random modules are reproducible, and differences of outputs are noticed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from fuzz.agreement import Agreement, Jitter
from fuzz.generate import generate
from fuzz.modules import refusal


def test_a_module_is_the_same_each_time_that_it_is_generated() -> None:
    one, other = generate(7), generate(7)
    assert one == other
    assert all(map(torch.equal, one.example(), other.example()))
    x = one.example()
    assert torch.equal(one.module()(*x), other.module()(*x))


@pytest.mark.parametrize(
    ("message", "outcome"),
    [
        ("<random module 7>:3: y = x.sort(): cannot be lowered", "refused"),
        ("<random module 8>:3: y = x.sort(): cannot be lowered", "unclear"),
        ("{weight}: holds NaN or infinite values", "refused, weight"),
        ("{weight}s: holds NaN or infinite values", "unclear"),
        ("what the module returns: holds a Size", "refused, port"),
        ("output 1: is not a row of floats", "refused, port"),
        ("token ids tokens: are not the only input", "refused, port"),
        ("a step failed", "unclear"),
        ("<random module 7>:3: a bug of the compiler", "caught"),
        ("the compiled model: output 0 differs from the module's by 0.1", "caught"),
    ],
)
def test_a_refusal_names_a_line_or_what_has_none(message: str, outcome: str) -> None:
    case = generate(7)
    weight = next(name for name, _ in case.module().named_parameters())
    assert refusal(case, message.format(weight=weight)) == outcome


x = torch.linspace(1, 2, 12).reshape(3, 4)


@pytest.mark.parametrize(
    ("got", "fault"),
    [
        (x * (1 + 1e-6), ""),
        (x * torch.tensor([[1.0], [1.001], [1.0]]), "1 of 3 rows differ"),
        (x.half(), "returns"),
        ((x,), "returns"),
        (torch.where(x > 1.9, torch.nan, x), "1 of 3 rows differ"),
    ],
)
def test_outputs_that_differ(got: object, fault: str) -> None:
    found = Agreement().compare(got, x, x, near_edge=False)
    assert found.startswith(fault)
    assert bool(found) == bool(fault)


def test_a_few_rows_may_differ_near_an_edge() -> None:
    agreement, many = Agreement(), x.repeat(10, 1)
    few, most = many.clone(), many * 1.01
    few[:3] *= 1.01
    assert agreement.compare(few, many, many, near_edge=True) == ""
    assert "30 of 30 rows differ" in agreement.compare(most, many, many, near_edge=True)


@pytest.mark.parametrize(
    ("rounded", "near"),
    [
        (lambda: torch.tensor([0.49995, 1.2]).round(), True),
        (lambda: torch.tensor([0.4, 1.2]).round(), False),
        (lambda: torch.tensor([3.0, -128.0]).to(torch.int8), False),
        (lambda: torch.tensor([2.99995]).int(), True),
        (lambda: torch.tensor([1 + 2**-11]).half(), True),
        (lambda: torch.tensor([1 + 2**-12]).half().double(), False),
    ],
)
def test_edges_of_what_is_rounded_are_noticed(rounded: Callable[[], object], near: bool) -> None:
    with Jitter() as jitter:
        rounded()
    assert jitter.near_edge == near
