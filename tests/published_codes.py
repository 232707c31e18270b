"""The activation codes of the published implementation, which its vectors do not hold.

They are those of the torch model, but where a value lies on a .5 edge, so that fp32 sums in another
order carry it over. Which of these went the other way is found out: with the right ones, the torch
model's logits are the published ones at every token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple
from unittest.mock import patch

import torch
from golden_cases import EDGE, TOLERANCE, GoldenCase
from torch import Tensor

from mmfree_compiler.models import MatMulFreeLM
from mmfree_compiler.models.lm import State
from mmfree_compiler.models.modules import QUANT_EPS

QUANTIZER = "mmfree_compiler.models.modules.quantize_activations"


class Place(NamedTuple):
    """One code of one token; `layer` counts the BitLinears in the order of computation."""

    layer: int
    row: int
    token: int
    column: int


@dataclass(frozen=True)
class Run:
    """A forward of the torch model: logits (B, T, V), the state after each call, and the rows
    (B, T, K) of every BitLinear, as `scaled` before and as `codes` after rounding.
    """

    logits: Tensor
    states: list[State]
    scaled: list[Tensor]
    codes: list[Tensor]


@dataclass
class Quantizer:
    """The torch model's, but it rounds `flips` the other way and keeps what it saw in a call."""

    flips: frozenset[Place]
    start: int  # the first token of the call
    scaled: list[Tensor] = field(default_factory=list)
    codes: list[Tensor] = field(default_factory=list)

    def __call__(self, x: Tensor) -> Tensor:
        scale = 127 / x.abs().amax(-1, keepdim=True).clamp(min=QUANT_EPS)
        scaled = x * scale
        codes = scaled.round().clamp(-128, 127)
        for layer, row, token, column in self.flips:
            at = row, token - self.start, column
            if layer == len(self.scaled) and 0 <= at[1] < x.shape[1]:
                codes[at] = scaled[at].floor() + scaled[at].ceil() - codes[at]
        self.scaled.append(scaled)
        self.codes.append(codes)
        return codes / scale


@torch.no_grad()
def forward(model: MatMulFreeLM, case: GoldenCase, key: str, flips: frozenset[Place]) -> Run:
    """Run a sequence of a case in the calls that it was made with."""
    logits, states, calls, start = [], [], [], 0
    state: State | None = None
    sequence = case.sequence(key)
    for tokens in torch.split(sequence.tokens, sequence.calls, 1):
        calls.append(Quantizer(flips, start))
        with patch(QUANTIZER, calls[-1]):
            made, state = model(tokens, state, sequence.mask)
        logits.append(made)
        states.append(state)
        start += tokens.shape[1]
    scaled = [torch.cat(rows, 1) for rows in zip(*(call.scaled for call in calls), strict=True)]
    codes = [torch.cat(rows, 1) for rows in zip(*(call.codes for call in calls), strict=True)]
    return Run(torch.cat(logits, 1), states, scaled, codes)


@cache
def published(case: GoldenCase, key: str) -> Run:
    """The torch model's run with the published codes.

    Raises AssertionError where no code on an edge explains a difference.
    """
    model, flips = case.model(), frozenset[Place]()
    run = forward(model, case, key, flips)
    while (wrong := case.errors(run.logits, key) > TOLERANCE).any():
        row, token = wrong.nonzero()[0].tolist()
        for place in on_edges(run, row, token):
            other = forward(model, case, key, flips ^ {place})
            if (case.errors(other.logits, key)[row, : token + 1] <= TOLERANCE).all():
                run, flips = other, flips ^ {place}
                break
        else:
            raise AssertionError(f"{case} {key}: row {row} differs from token {token} on")
    return run


def on_edges(run: Run, row: int, last: int) -> list[Place]:
    """The codes of a row, up to its token `last`, that could be others; the last tokens' first."""
    places = []
    for layer, values in enumerate(run.scaled):
        near = ((values[row, : last + 1].frac().abs() - 0.5).abs() <= EDGE).nonzero()
        places += [Place(layer, row, token, column) for token, column in near.tolist()]
    return sorted(places, key=lambda place: -place.token)


def first_difference(
    run: Run, codes: Sequence[Tensor], row: int, last: int
) -> tuple[Place, float] | None:
    """Where other `codes` begin to differ, among those that a token `last` depends on.

    No code before it differs, so rounding alone explains it. With its distance from the edge
    between the two codes; of several in one row of codes, the farthest.
    """
    for layer, (theirs, ours) in enumerate(zip(run.codes, codes, strict=True)):
        differ = (theirs != ours)[row, : last + 1]
        if differ.any():
            token = int(differ.any(-1).nonzero()[0])
            edges = (theirs[row, token] + ours[row, token]) / 2
            off = (run.scaled[layer][row, token] - edges).abs() * differ[token]
            return Place(layer, row, token, int(off.argmax())), off.max().item()
    return None
