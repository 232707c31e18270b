"""Two runs that agree on activation codes: where both may round either way, one follows the other.

fp32 sums in another order move a value by a few ulps. Where that carries it over a .5 edge, one
activation code differs by 1, and everything computed from it differs too. So a compiled form rounds
as the module did wherever both values lie within EDGE of that edge (numerics 5). Nothing else is
explained by rounding, and whatever follows can be compared closely.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mmfree_compiler.ops import OPS
from mmfree_compiler.passes.arithmetic import apply
from mmfree_compiler.passes.pattern import aten

EDGE = 1e-4  # in codes
_OP_OF = {op.overload: op for op in OPS.values()}
_ROUNDS = {aten.round.default, aten.round_.default}


class Rounding(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Rounds rows by the function `round`, also inside of ops of the table."""

    def __init__(self, round: Callable[[Tensor], Tensor]) -> None:  # noqa: A002 - what it replaces
        super().__init__()  # type: ignore[no-untyped-call]
        self.round = round

    def __torch_dispatch__(
        self, func: Any, _: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _OP_OF:
            with self:
                return _OP_OF[func].reference(*args, **(kwargs or {}))
        if func in _ROUNDS and args[0].dim():
            rounded = self.round(args[0])
            return rounded if func is aten.round.default else args[0].copy_(rounded)
        return apply(func, args, kwargs or {})


@dataclass
class Recorded:
    """What one run rounded: rows (`tokens`, width) in their order. `last` is what matched last."""

    tokens: int
    rows: list[Tensor] = field(default_factory=list)
    last: int = -1

    def round(self, x: Tensor) -> Tensor:
        """Record x, unless it is a weight."""
        if x.numel() == self.tokens * x.shape[-1]:
            self.rows.append(x.reshape(self.tokens, -1).clone())
        return x.round()

    def codes(self, x: Tensor) -> Tensor | None:
        """The codes of the recorded rows that `x` (tokens, width) equals up to edges, or None."""
        start = self.last + 1  # most probably the next one
        for k in (*range(start, len(self.rows)), *range(start)):
            if _agree(x, self.rows[k]):
                self.last = k
                return torch.round(self.rows[k])
        return None


def _agree(x: Tensor, recorded: Tensor) -> bool:
    """Whether the codes are equal, but for values at a .5 edge."""
    if x.shape != recorded.shape:
        return False
    ours, theirs = x.round(), recorded.round()
    differ = (ours != theirs) & ~(ours.isnan() & theirs.isnan())
    edge = (ours[differ] + theirs[differ]) / 2
    off = torch.maximum((x[differ] - edge).abs(), (recorded[differ] - edge).abs())
    # Where codes are not neighbours, the edge between them is an integer or far away.
    return bool((off <= EDGE).all())


@dataclass(frozen=True)
class Following:
    """A run on the tokens of all `recorded` runs that rounds as they did wherever it may.

    `unmatched` is called when rows equal none that were recorded.
    """

    recorded: Sequence[Recorded]
    unmatched: Callable[[], None]

    def round(self, x: Tensor) -> Tensor:
        tokens = [run.tokens for run in self.recorded]
        if x.numel() != sum(tokens) * x.shape[-1]:
            return x.round()
        parts = torch.split(x.reshape(-1, x.shape[-1]), tokens)
        return torch.cat(list(map(self._codes, self.recorded, parts))).reshape(x.shape)

    def _codes(self, recorded: Recorded, rows: Tensor) -> Tensor:
        codes = recorded.codes(rows)
        if codes is None:
            self.unmatched()
            return rows.round()
        return codes.to(rows.dtype)
