"""Calls of a language model: token ids and a state in, logits and the next state out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmfree_compiler.errors import InputError, StateError
from mmfree_compiler.runtime.arrays import like, to_numpy
from mmfree_compiler.runtime.launcher import Floats, Runner, Slots
from mmfree_compiler.runtime.state import State

Ids = NDArray[np.int64]

_SHAPES = {1: "(T,)", 2: "(B, T)"}


class LanguageModel:
    """An artifact of kind "lm" behind its launcher."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._zero = State.zero(runner.manifest)
        self.vocab_size = runner.manifest.outputs[0].width
        self.id_limit = runner.manifest.inputs[0].limit or self.vocab_size

    def __call__(
        self, tokens: Any, state: State | None = None, *, mask: Any = None
    ) -> tuple[Any, State]:
        """See Session.__call__."""
        ids = self.ids(tokens, "tokens", 2)
        state = self.fork(state, len(ids))
        real = np.ones(ids.shape, np.bool_) if mask is None else left_padding(mask, ids.shape)
        lengths = real.sum(1)
        padded = not real.all()
        slots = np.repeat(np.arange(len(ids), dtype=np.int32), lengths)
        rows = self.advance(ids[real] if padded else ids.reshape(-1), slots, state.array)
        if padded:
            logits = np.zeros((*ids.shape, self.vocab_size), np.float32)
            logits[real] = rows
        else:
            logits = rows.reshape(*ids.shape, self.vocab_size)
        return like(tokens, logits), state.advanced(lengths)

    def advance(self, ids: Ids, slots: Slots, states: Floats, first: int = 0) -> Floats:
        """Run checked `ids` (M,) in rows `slots` (M,) of `states`, which change in place.

        Returns logits (M - first, V) of the tokens from `first` on: a view of padded rows.
        """
        (rows,) = self._runner.run((ids,), slots, states, first)
        return rows[:, : self.vocab_size]

    def fork(self, state: State | None, batch: int) -> State:
        """A copy of `state`, or the zero state. Raises StateError when it does not fit."""
        if state is None:
            return State.stack([self._zero] * batch)
        if not isinstance(state, State):
            raise StateError("state", f"is a {type(state).__name__}", "Pass a State, or None")
        state.check(self._zero, batch)
        return state.fork()

    def ids(self, tokens: Any, thing: str, dimensions: int) -> Ids:
        """`tokens` as C-contiguous int64, copied only when they are not. Raises InputError."""
        array: NDArray[Any] = to_numpy(tokens, thing)
        if array.ndim != dimensions or array.size == 0:
            hint = f"Pass {_SHAPES[dimensions]} with at least one token"
            raise InputError(thing, f"shape {array.shape}", hint)
        if array.dtype.kind not in "iu":
            raise InputError(thing, f"dtype {array.dtype}", "Pass integers (int64)")
        if array.min() < 0 or array.max() >= self.id_limit:
            where = tuple(np.argwhere((array < 0) | (array >= self.id_limit))[0].tolist())
            cause = f"id {array[where]} at {where} is outside the vocabulary"
            raise InputError(thing, cause, f"Ids are 0 to {self.id_limit - 1}")
        return np.require(array, np.int64, ["C", "A", "W"])


def left_padding(mask: Any, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """`mask` (B, T) as booleans, once it is known to hide only the beginnings of rows.

    Raises InputError. Padding behind a token would run through the recurrence and decay its state.
    """
    array = to_numpy(mask, "mask")
    if array.shape != shape:
        raise InputError("mask", f"has shape {array.shape}, the tokens {shape}", "Pass one a token")
    if not np.isin(array, (0, 1)).all():
        raise InputError("mask", "holds other values than 0 and 1", "1 is a token, 0 is padding")
    real = array.astype(np.bool_)
    for row in np.flatnonzero((real[:, :-1] > real[:, 1:]).any(1) | ~real[:, -1]):
        cause = f"row {row} has padding behind a token, or no token"
        raise InputError("mask", cause, "Pad on the left: padding would decay the state behind it")
    return real
