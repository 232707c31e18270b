"""How far an artifact is from the fp32 reference on text: divergence, agreement, perplexity."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from mmfree_compiler.checking.numbers import Numbers
from mmfree_compiler.errors import InputError
from mmfree_compiler.wording import counted

TOLERANCE = 1e-3  # of the perplexity ratio: docs/numerics.md
WINDOW = 128  # tokens: bounds the memory of both models' logits

# tokens (1, T) int64 and a state -> logits (1, T, V) fp32 and the next state: a runtime.Session, a
# models.MatMulFreeLM
Model = Callable[[Tensor, Any], tuple[Tensor, Any]]


@dataclass(frozen=True)
class Report:
    """Measured over `tokens` predictions. Divergences are KL(reference || artifact), in nats."""

    tokens: int
    kl_mean: float
    kl_max: float
    top1_agreement: float
    perplexity: float
    reference_perplexity: float

    @property
    def ratio(self) -> float:
        """The artifact's perplexity over the reference's."""
        return self.perplexity / self.reference_perplexity

    @property
    def passed(self) -> bool:
        """Whether the ratio is within 1 +- TOLERANCE."""
        return abs(self.ratio - 1) <= TOLERANCE


@dataclass
class _Sums:
    """Running totals over windows, in fp64."""

    tokens: int = 0
    kl: float = 0.0
    kl_max: float = 0.0
    agreed: int = 0
    nats: float = 0.0
    reference_nats: float = 0.0

    def add(self, logits: Tensor, reference: Tensor, targets: Tensor) -> None:
        """Logits (T, V) of both models, and the tokens (T,) that followed."""
        ours, theirs = logits.double().log_softmax(-1), reference.double().log_softmax(-1)
        kl = F.kl_div(ours, theirs, reduction="none", log_target=True).sum(-1)
        self.tokens += len(targets)
        self.kl += float(kl.sum())
        self.kl_max = max(float(kl.max()), self.kl_max, key=_nan_last)
        known = ~(ours + theirs).isnan().any(-1)  # the id of a NaN is not a prediction
        self.agreed += int((known & (ours.argmax(-1) == theirs.argmax(-1))).sum())
        self.nats += float(F.nll_loss(ours, targets, reduction="sum"))
        self.reference_nats += float(F.nll_loss(theirs, targets, reduction="sum"))

    def report(self) -> Report:
        n = self.tokens
        nats, reference = self.nats / n, self.reference_nats / n
        perplexities = _exp(nats), _exp(reference)
        return Report(n, self.kl / n, self.kl_max, self.agreed / n, *perplexities)


def _nan_last(x: float) -> tuple[bool, float]:
    """Orders numbers, with NaN as the largest."""
    return math.isnan(x), x


def _exp(nats: float) -> float:
    return math.inf if nats >= 700 else math.exp(nats)  # math.exp raises OverflowError above 709


@torch.no_grad()
def verify(
    session: Model,
    model: Model,
    tokens: NDArray[np.int64],
    on_window: Callable[[int], None] = lambda _: None,
) -> Report:
    """Compare how both models predict each of `tokens` (N,) from the tokens before it.

    `session` runs the artifact, `model` is the reference, such as the MatMulFreeLM that the
    artifact was compiled from. The text is one sequence, read in windows of WINDOW tokens with the
    states carried along. `on_window` is called with the number of tokens of each window. Raises
    InputError on fewer than two tokens and on models of different vocabularies.
    """
    if len(tokens) < 2:
        cause = f"has {counted(len(tokens), 'token')}, which leaves nothing to predict"
        raise InputError("text", cause, "Give a longer text")
    text, sums = torch.from_numpy(tokens), _Sums()
    state: Any = None
    reference_state: Any = None
    for start in range(0, len(text) - 1, WINDOW):
        targets = text[start + 1 : start + WINDOW + 1]
        inputs = text[None, start : start + len(targets)]
        logits, state = session(inputs, state)
        # So that both have the same ternary weights.
        with Numbers():  # type: ignore[no-untyped-call]
            reference, reference_state = model(inputs, reference_state)
        if logits.shape != reference.shape:
            cause = f"has {logits.shape[-1]} logits, the reference has {reference.shape[-1]}"
            hint = "Compare it with the checkpoint that it was compiled from"
            raise InputError("model", cause, hint)
        sums.add(logits[0], reference[0].float(), targets)
        on_window(len(targets))
    return sums.report()
