"""The state of sequences: a value that is saved, restored, forked and batched."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, NonNegativeInt, ValidationError

from mmfree_compiler.artifact import (
    Manifest,
    StatePart,
    aligned_empty,
    read_archive,
    write_archive,
)
from mmfree_compiler.errors import ArtifactError, StateError
from mmfree_compiler.wording import counted

Floats = NDArray[np.float32]

_HEADER, _DATA = "state.json", "state.bin"


class _Header(BaseModel):
    model_config = ConfigDict(extra="forbid")
    schema_version: Literal[1] = 1
    model: str
    length: tuple[NonNegativeInt, ...]
    parts: tuple[StatePart, ...]


@dataclass(frozen=True, eq=False)
class State:
    """What a model remembers of B sequences: `array` is (B, state_width) float32, a row each.

    `model` is the fingerprint of the model that it belongs to, `length` the tokens that each
    sequence has seen, `parts` where each scan's state lies in a row. `len(state)` is B;
    `state[i]` and `state[i:j]` are views of rows.
    """

    array: Floats = field(repr=False)
    model: str
    length: tuple[int, ...]
    parts: tuple[StatePart, ...] = field(repr=False)

    @classmethod
    def zero(cls, manifest: Manifest) -> State:
        """The state of one sequence that has seen nothing."""
        array = aligned_empty((1, manifest.state_width), np.float32)
        array[:] = 0
        return cls(array, fingerprint(manifest), (0,), manifest.states)

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, index: int | slice) -> State:
        rows = index if isinstance(index, slice) else slice(index, index + 1 or None)
        if not isinstance(index, slice) and not -len(self) <= index < len(self):
            raise IndexError(f"sequence {index} of {len(self)}")
        return replace(self, array=self.array[rows], length=self.length[rows])

    def part(self, name: str) -> Floats:
        """Scan `name`'s state: a view (B, count, *shape), `count` the layers that share the name.

        Raises StateError when there is none.
        """
        for part in self.parts:
            if part.name == name:
                rows = self.array[:, part.offset : part.offset + part.width * part.count]
                shape = (len(self), part.count, *part.shape[:-1], part.row_stride)
                return rows.reshape(shape)[..., : part.shape[-1]]
        names = ", ".join(part.name for part in self.parts) or "none"
        raise StateError(f"part {name!r}", "is not in the state", f"Parts: {names}")

    def fork(self) -> State:
        """A copy that shares nothing with this one."""
        array = aligned_empty(self.array.shape, np.float32)
        array[:] = self.array
        return replace(self, array=array)

    @staticmethod
    def stack(states: Sequence[State]) -> State:
        """One state of all their sequences, in order. Raises StateError on different models."""
        if not states or len({state.model for state in states}) > 1:
            raise StateError("states", "none, or of different models", "Stack states of one model")
        length = tuple(n for state in states for n in state.length)
        array = aligned_empty((len(length), states[0].array.shape[1]), np.float32)
        np.concatenate([state.array for state in states], out=array)
        return replace(states[0], array=array, length=length)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the state to one file, complete or not at all. Raises StateError."""
        header = _Header(model=self.model, length=self.length, parts=self.parts)
        data = np.ascontiguousarray(self.array).reshape(-1).view(np.uint8)
        text = np.frombuffer(header.model_dump_json().encode(), np.uint8)
        try:
            write_archive(Path(path), {_HEADER: text, _DATA: data})
        except ArtifactError as error:
            raise StateError(error.thing, error.cause, error.hint) from error

    @classmethod
    def load(cls, path: str | PathLike[str]) -> State:
        """Read what `save` wrote. Raises StateError when it is damaged or no state."""
        try:
            members = read_archive(Path(path), crc={_HEADER, _DATA}).members
            if members.keys() != {_HEADER, _DATA}:
                raise ArtifactError(str(path), "holds no state", "Check the path")
            header = _Header.model_validate_json(members[_HEADER].tobytes(), strict=True)
        except ArtifactError as error:
            raise StateError(error.thing, error.cause, error.hint) from error
        except ValidationError as error:
            raise StateError(str(path), "has a wrong header", "Save the state again") from error
        return cls._of_bytes(str(path), header, members[_DATA])

    @classmethod
    def _of_bytes(cls, thing: str, header: _Header, data: NDArray[np.uint8]) -> State:
        batch = len(header.length)
        needed = max((part.offset + part.width * part.count for part in header.parts), default=0)
        if batch == 0 or data.size % (4 * batch) or data.size // (4 * batch) < needed:
            raise StateError(thing, "has not the size that its header says", "Save it again")
        array = aligned_empty((batch, data.size // (4 * batch)), np.float32)
        array[:] = data.view(np.float32).reshape(array.shape)
        return cls(array, header.model, header.length, header.parts)

    def advanced(self, tokens: Iterable[int]) -> State:
        """This state, counted as so many tokens further for each sequence; shares its array."""
        length = tuple(n + int(more) for n, more in zip(self.length, tokens, strict=True))
        return replace(self, length=length)

    def check(self, other: State, batch: int) -> None:
        """Raise StateError unless this is a state of `other`'s model and of `batch` sequences."""
        if (self.model, self.array.shape[1]) != (other.model, other.array.shape[1]):
            raise StateError("state", "belongs to another model", "Pass a state that this one made")
        if len(self) != batch:
            cause = f"holds {counted(len(self), 'sequence')}, the call has {batch}"
            raise StateError("state", cause, "Select or stack states to match")


def fingerprint(manifest: Manifest) -> str:
    """What two artifacts share whose states are exchangeable: weights and the states' layout."""
    layout = [part.model_dump_json() for part in manifest.states]
    text = "\n".join([manifest.members["weights.bin"].sha256, *layout])
    return hashlib.sha256(text.encode()).hexdigest()
