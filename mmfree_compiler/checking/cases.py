"""The inputs on which a compiled form is compared with its module."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

# What rows are multiplied by, token after token. A pass that is wrong for some values only, such as
# those beyond a bound, is wrong at one of these.
MAGNITUDES = (1.0, 1e-4, 1e4, 0.0, 1e-2, 1e2)
OUTLIER = 1e4  # and one value of every seventh row by this
ROWS = (*(f"times {m:g}" for m in MAGNITUDES), f"with one value times {OUTLIER:g}")
# The last of these are the leading dimensions of a batch: 3 sequences of 7 tokens.
SIZES = (2, 2, 2, 3, len(ROWS))


@dataclass(frozen=True)
class Case:
    """One call of the module. `leading` are the dimensions in front of a row of its first input.

    `rows` says what is special about the token at its index, modulo their number.
    """

    inputs: tuple[Tensor, ...]
    rows: tuple[str, ...] = ()

    @property
    def leading(self) -> tuple[int, ...]:
        return leading(self.inputs[0])

    @property
    def tokens(self) -> int:
        return prod(self.leading)

    def token(self, index: int) -> str:
        """A token in words."""
        shapes = ", ".join(str(tuple(x.shape)) for x in self.inputs)
        special = f", a row {self.rows[index % len(self.rows)]}" if self.rows else ""
        return f"token {index} of input {shapes}{special}"


def leading(x: Tensor) -> tuple[int, ...]:
    """The dimensions in front of a row: all but the width, all of token ids."""
    return tuple(x.shape[:-1] if x.is_floating_point() else x.shape)


def _has_width(x: Tensor) -> bool:
    return not x.is_floating_point() or (x.dim() > 0 and x.shape[-1] > 0)


def cases_like(module: nn.Module, examples: tuple[Tensor, ...]) -> Iterator[Case]:
    """The examples; a batch of one token; a batch of sequences with rows of all magnitudes.

    Only the examples if one has no width, or if their leading dimensions differ, since it is
    unknown which ones belong together.
    """
    yield Case(examples)
    own = leading(examples[0])
    differ = any(leading(x) != own or not _has_width(x) for x in examples)
    if differ or len(own) > len(SIZES):
        return
    limit = _limit(module, examples)
    if own:
        yield _case(examples, (1,) * len(own), ROWS[:1], limit)
        yield _case(examples, SIZES[-len(own) :], ROWS, limit)
    else:
        yield from (_case(examples, (), ROWS[k:], limit) for k in range(len(ROWS)))


def cases_of_ids(vocabulary: int) -> tuple[Case, ...]:
    """The cases of a language model, all sizes of `cases_like`."""
    return tuple(Case((_ids(vocabulary, shape),)) for shape in ((1, 1), SIZES[-2:]))


def _case(
    examples: tuple[Tensor, ...], shape: tuple[int, ...], rows: tuple[str, ...], limit: int
) -> Case:
    def like(x: Tensor) -> Tensor:
        if not x.is_floating_point():
            return _ids(limit, shape).to(x.dtype)
        return _rows(shape, x.shape[-1], rows).to(x.dtype)

    return Case(tuple(map(like, examples)), rows)


def _rows(shape: tuple[int, ...], width: int, rows: tuple[str, ...]) -> Tensor:
    """Rows (*shape, width) of normal values, made special as `rows` says in turns."""
    x = torch.randn(prod(shape), width, generator=_random())
    first = ROWS.index(rows[0])
    for token, row in enumerate(x):
        kind = (first + token % len(rows)) % len(ROWS)
        if kind < len(MAGNITUDES):
            row *= MAGNITUDES[kind]
        else:
            row[token % width] *= OUTLIER
    return x.reshape(*shape, width)


def _ids(limit: int, shape: tuple[int, ...]) -> Tensor:
    return torch.randint(limit, shape, generator=_random())


def _random() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _limit(module: nn.Module, examples: tuple[Tensor, ...]) -> int:
    """A number that token ids are certainly below."""
    tables = [part.num_embeddings for part in module.modules() if isinstance(part, nn.Embedding)]
    ids = [x for x in examples if not (x.is_floating_point() or x.is_complex()) and x.numel()]
    return min(tables, default=max([1, *(int(x.max()) + 1 for x in ids)]))
