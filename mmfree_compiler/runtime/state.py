"""The state of sequences, which can be saved, restored, forked and batched."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmfree_compiler.artifact import StateEntry, as_path
from mmfree_compiler.backends.interface import Launcher, States
from mmfree_compiler.backends.numpy_states import Arrays, NumpyStates
from mmfree_compiler.errors import InputError, StateError
from mmfree_compiler.runtime.state_file import StateFile
from mmfree_compiler.wording import counted

Floats = NDArray[np.float32]


@dataclass(eq=False)
class State:
    """What a model remembers of some sequences; `len(state)` is their number.

    `model` is the fingerprint of the model, the same on every target. `length` is the number of
    tokens that each sequence has seen. `states` hold the data as the target needs it; `slots`
    describe it. `state[i]` and `state[i:j]` are copies of some sequences.
    """

    states: States = field(repr=False)
    model: str
    length: tuple[int, ...]
    slots: tuple[StateEntry, ...] = field(repr=False)

    def __repr__(self) -> str:
        low, high = min(self.length, default=0), max(self.length, default=0)
        tokens = ("" if low == high else f"{low:,} to ") + counted(high, "token")
        return f"State({counted(len(self), 'sequence')}, {tokens}, model {self.model[:8]})"

    def __len__(self) -> int:
        return len(self.length)

    def __getitem__(self, index: int | slice) -> State:
        rows = index if isinstance(index, slice) else self._row(index)
        return State(self.states.take(rows), self.model, self.length[rows], self.slots)

    def _row(self, index: int) -> slice:
        try:
            row = operator.index(index)
        except TypeError:
            row = None
        if row is None or isinstance(index, bool):
            hint = "Pass its number, or a slice of them"
            raise InputError(f"sequence {index!r}", "is not a whole number", hint)
        if not -len(self) <= row < len(self):
            raise IndexError(f"sequence {row} of {len(self)}")
        return slice(row, row + 1 or None)

    def __reduce__(self) -> tuple[Any, ...]:
        # As in a state file: no memory of the target's choice.
        return _unpickled, (self.export(), self.model, self.length, self.slots)

    def export(self) -> dict[str, Floats]:
        """NumPy copies of each scan's state by name, (B, count, *shape).

        `count` is the number of layers that share the name.
        """
        return self.states.export()

    def part(self, name: str) -> Floats:
        """The state of scan `name`, as in `export`. Raises StateError if there is no such scan."""
        exported = self.export()
        if name not in exported:
            names = ", ".join(exported) or "none"
            raise StateError(f"part {name!r}", "is not in the state", f"Parts: {names}")
        return exported[name]

    def fork(self) -> State:
        """A copy that shares nothing with this one."""
        return self[:]

    @staticmethod
    def stack(states: Sequence[State]) -> State:
        """One state of all their sequences, in order. Raises StateError on different models."""
        for k, state in enumerate(states or ()):
            if not isinstance(state, State):
                cause = f"is of type {type(state).__name__}"
                raise StateError(f"state {k}", cause, "Stack states only; zero_state() makes one")
        if not states or len({(state.model, state.slots) for state in states}) > 1:
            cause = "are empty, or of different models"
            raise StateError("states", cause, "Stack states of one model")
        length = tuple(n for state in states for n in state.length)
        # Allocates all sequences, as copies of the first one that the loop overwrites.
        stacked = states[0].states.take(np.zeros(len(length), np.intp))
        start = 0
        for state in states:
            stacked.put(slice(start, start + len(state)), state.states)
            start += len(state)
        return State(stacked, states[0].model, length, states[0].slots)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the state to one file, completely or not at all. Raises StateError."""
        if not len(self):
            raise StateError("state", "has no sequences", "Save one that has")
        StateFile(self.model, self.length, self.slots, self.export()).write(as_path(path))

    @classmethod
    def load(cls, path: str | PathLike[str]) -> State:
        """Read what `save` wrote, on any target. Raises StateError when it is damaged."""
        read = StateFile.read(as_path(path))
        states = NumpyStates(read.arrays, len(read.length))
        return cls(states, read.model, read.length, read.slots)

    def advance(self, tokens: Iterable[int]) -> None:
        """Add the number of tokens that each sequence has read to its length."""
        self.length = tuple(n + int(more) for n, more in zip(self.length, tokens, strict=True))

    def on(self, launcher: Launcher) -> State:
        """A copy for `launcher`, which may be of another target."""
        states: States = launcher.states(len(self))
        states.put(slice(None), self.states)
        return State(states, self.model, self.length, self.slots)

    def check_numbers(self) -> None:
        """Raise StateError if it holds NaN, of which no text can follow."""
        for name, array in self.export().items():
            if np.isnan(array).any():
                hint = "Pass a state from before the tokens that made it"
                raise StateError("state", f"holds NaN in {name!r}", hint)

    def check(self, model: str, slots: tuple[StateEntry, ...], batch: int) -> None:
        """Raise StateError unless this is a state of `model`, with `slots`, of `batch` sequences.

        A file may claim to be of the model while its arrays are of other shapes.
        """
        if self.model != model or self.slots != slots:
            hint = "Pass a state that this model made"
            raise StateError("state", "belongs to another model", hint)
        if len(self) != batch:
            cause = f"holds {counted(len(self), 'sequence')}, the call has {batch}"
            raise StateError("state", cause, "Select or stack states to match")


def _unpickled(
    arrays: Arrays, model: str, length: tuple[int, ...], slots: tuple[StateEntry, ...]
) -> State:
    return State(NumpyStates(arrays, len(length)), model, length, slots)
