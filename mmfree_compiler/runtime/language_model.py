"""Calling a language model: token ids and a state in, logits and the next state out."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from mmfree_compiler.artifact import Manifest
from mmfree_compiler.backends.decoding import Choices, Decoder, Decoding
from mmfree_compiler.backends.interface import Batch, Launcher, States
from mmfree_compiler.errors import InputError, StateError
from mmfree_compiler.runtime.arrays import like
from mmfree_compiler.runtime.device_array import DeviceArray
from mmfree_compiler.runtime.device_arrays import run_there, there, to_host
from mmfree_compiler.runtime.state import State

Ids = NDArray[np.int64]
Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]
Slots = NDArray[np.int32]

# Dimensions of ids -> what to pass.
_HINTS = {1: "Pass a list of at least one id", 2: "Pass ids (B, T), at least one token"}


class LanguageModel:
    """Runs an artifact of kind "lm" through its launcher."""

    usage = "Call session(tokens), session(tokens, state) or session(tokens, state, mask=mask)"

    def __init__(self, manifest: Manifest, launcher: Launcher) -> None:
        self._manifest, self.launcher = manifest, launcher
        self._states_type = type(launcher.states(0))
        self.vocab_size = manifest.outputs[0].width
        self.id_limit = manifest.inputs[0].limit or self.vocab_size

    def __call__(
        self, tokens: Any, state: State | None = None, *, mask: Any = None
    ) -> tuple[Any, State]:
        """See Session.__call__."""
        tokens = there(tokens, "tokens", self.launcher) or tokens
        ids = self.ids(tokens, "tokens", 2)
        state = self.fork(state, len(ids))
        return self._logits(tokens, ids, state, mask), state

    def advance(self, tokens: Any, state: State, *, mask: Any = None) -> Any:
        """See Session.advance."""
        tokens = there(tokens, "tokens", self.launcher) or tokens
        ids = self.ids(tokens, "tokens", 2)
        _check_type(state)
        state.check(self._manifest.fingerprint, self._manifest.states, len(ids))
        if not isinstance(state.states, self._states_type):
            state.states = state.on(self.launcher).states
        return self._logits(tokens, ids, state, mask)

    def _logits(self, tokens: Any, ids: Ids, state: State, mask: Any) -> Any:
        """Logits (B, T, V) in the framework of `tokens`, whose ids are (B, T). Advances `state`."""
        real = self._real(mask, ids.shape)
        lengths = real.sum(1)
        slots = np.repeat(np.arange(len(ids), dtype=np.int32), lengths)
        positions = (np.array(state.length)[:, None] + real.cumsum(1) - 1)[real]
        if isinstance(tokens, DeviceArray):
            logits = self._there(tokens, real, slots, positions, state)
        else:
            logits = like(tokens, self._here(ids, real, slots, positions, state))
        state.advance(lengths)
        return logits

    def _here(self, ids: Ids, real: Flags, slots: Slots, positions: Ids, state: State) -> Floats:
        padded = not real.all()
        flat = ids[real] if padded else ids.reshape(-1)
        rows = self.run(Batch((flat,), slots, positions, np.arange(flat.size)), state.states)
        if not padded:
            return rows.reshape(*ids.shape, self.vocab_size)
        logits = np.zeros((*ids.shape, self.vocab_size), np.float32)
        logits[real] = rows
        return logits

    def _there(
        self, tokens: DeviceArray, real: Flags, slots: Slots, positions: Ids, state: State
    ) -> Any:
        ids, index = tokens.cast("int64"), np.flatnonzero(real)
        batch = Batch((), slots, positions, np.arange(index.size))
        made = ids.zeros(*real.shape, self.vocab_size)
        (logits,) = run_there(batch, state.states, [ids], [made], index)
        return logits

    def _real(self, mask: Any, shape: tuple[int, ...]) -> Flags:
        """Which positions are tokens. A mask on the device is read back: indices are made here."""
        if mask is None:
            return np.ones(shape, np.bool_)
        return left_padding(to_host(mask, "mask", self.launcher), shape)

    def run(self, batch: Batch, states: States) -> Floats:
        """Logits (W, V) of the wanted tokens of a batch of checked ids. Advances `states`."""
        (rows,) = self.launcher.run(batch, states)
        return rows

    def continue_one(self, ids: Ids, state: State, wanted: int) -> Floats:
        """Run `ids` (T,) on the one sequence of `state`; returns logits of the last `wanted`."""
        count = ids.size
        positions = np.arange(state.length[0], state.length[0] + count)
        last = np.arange(count - wanted, count)
        rows = self.run(Batch((ids,), np.zeros(count, np.int32), positions, last), state.states)
        state.advance([count])
        return rows

    def decodes(self, choices: Choices) -> bool:
        """See Decoder.decodes; False where the launcher chooses no tokens."""
        return isinstance(self.launcher, Decoder) and self.launcher.decodes(choices)

    @property
    def most_decoded(self) -> int:
        """How many sequences `decode` takes."""
        return cast(Decoder, self.launcher).most_sequences

    def decode(self, batch: Batch, choices: Choices, states: States, steps: int) -> Decoding:
        """See Decoder.decode."""
        return cast(Decoder, self.launcher).decode(batch, choices, states, steps)

    def fork(self, state: State | None, batch: int) -> State:
        """A copy of `state`, or the zero state. Raises StateError if it does not fit."""
        manifest = self._manifest
        if state is None:
            states = self.launcher.states(batch)
            return State(states, manifest.fingerprint, (0,) * batch, manifest.states)
        _check_type(state)
        state.check(manifest.fingerprint, manifest.states, batch)
        return state.on(self.launcher)

    def ids(self, tokens: Any, thing: str, dimensions: int) -> Ids:
        """`tokens` as C-contiguous int64, copied only when they are not. Raises InputError."""
        array: NDArray[Any] = to_host(tokens, thing, self.launcher)
        if array.ndim != dimensions or array.size == 0:
            shaped = array.ndim or isinstance(tokens, DeviceArray)
            named = f"shape {array.shape}" if shaped else f"type {type(tokens).__name__}"
            raise InputError(thing, f"has {named}", _HINTS[dimensions])
        if array.dtype.kind not in "iu":
            raise InputError(thing, f"has dtype {array.dtype}", "Pass integers (int64)")
        if array.min() < 0 or array.max() >= self.id_limit:
            where = tuple(np.argwhere((array < 0) | (array >= self.id_limit))[0].tolist())
            cause = f"id {array[where]} at {where} is outside the vocabulary"
            raise InputError(thing, cause, f"Ids are 0 to {self.id_limit - 1}")
        return np.require(array, np.int64, ["C", "A", "W"])


def _check_type(state: object) -> None:
    if not isinstance(state, State):
        hint = "Pass a State; session.zero_state(batch) makes one that has seen nothing"
        raise StateError("state", f"is of type {type(state).__name__}", hint)


def left_padding(array: NDArray[Any], shape: tuple[int, ...]) -> Flags:
    """A mask (B, T) as booleans. Raises InputError unless each row has padding on the left only.

    Padding after a token would run through the recurrence and decay its state.
    """
    if array.shape != shape:
        cause = f"has shape {array.shape}, the tokens have {shape}"
        raise InputError("mask", cause, "Pass one number per token")
    if not np.isin(array, (0, 1)).all():
        raise InputError("mask", "has values other than 0 and 1", "1 is a token, 0 is padding")
    real = array.astype(np.bool_)
    for row in np.flatnonzero((real[:, :-1] > real[:, 1:]).any(1) | ~real[:, -1]):
        cause = f"row {row} has padding after a token, or has no token"
        raise InputError("mask", cause, "Pad on the left: padding after a token decays the state")
    return real
