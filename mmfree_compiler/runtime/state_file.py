"""State files: an archive of a header and the numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mmfree_compiler.artifact import MANIFEST, STATE, StateEntry, read_archive, write_archive
from mmfree_compiler.errors import ArtifactError, StateError

_HEADER, _DATA = STATE, "state.bin"
_AGAIN = "Get the file or save the state again"


class _Header(BaseModel):
    model_config = ConfigDict(extra="forbid")
    schema_version: Literal[2] = 2
    model: str
    length: Annotated[tuple[Annotated[int, Field(ge=0, lt=1 << 62)], ...], Field(min_length=1)]
    slots: tuple[StateEntry, ...]


@dataclass(frozen=True)
class StateFile:
    """The contents of a state file: fields of State, and `arrays` (B, count, *shape) by name.

    The file has the arrays in the order of `slots`, as little-endian float32.
    """

    model: str
    length: tuple[int, ...]
    slots: tuple[StateEntry, ...]
    arrays: dict[str, NDArray[np.float32]] = field(repr=False)

    def write(self, path: Path) -> None:
        """Write the file completely or not at all. Raises StateError."""
        header = _Header(model=self.model, length=self.length, slots=self.slots)
        text = np.frombuffer(header.model_dump_json().encode(), np.uint8)
        flat = [np.ravel(self.arrays[slot.name]) for slot in self.slots]
        data = np.concatenate([*flat, np.empty(0, np.float32)]).astype("<f4").view(np.uint8)
        try:
            write_archive(path, {_HEADER: text, _DATA: data})
        except ArtifactError as error:
            raise StateError(error.thing, error.cause, error.hint) from error

    @classmethod
    def read(cls, path: Path) -> StateFile:
        """Read the file. Raises StateError if it is damaged or does not hold a state."""
        try:
            members = read_archive(path, {_HEADER, _DATA}, _AGAIN).members
            if MANIFEST in members:
                raise ArtifactError(
                    str(path), "is a compiled model, not a state", "load(path) reads it"
                )
            if members.keys() != {_HEADER, _DATA}:
                raise ArtifactError(str(path), "does not hold a state", "Check the path")
            header = _Header.model_validate_json(members[_HEADER].tobytes(), strict=True)
        except ArtifactError as error:
            raise StateError(error.thing, error.cause, error.hint) from error
        except ValidationError as error:
            raise StateError(str(path), "has an invalid header", _AGAIN) from error
        arrays = _split(str(path), header, members[_DATA])
        return cls(header.model, header.length, header.slots, arrays)


def _split(thing: str, header: _Header, data: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    shapes = {s.name: (len(header.length), s.count, *s.shape) for s in header.slots}
    needed = 4 * sum(math.prod(shape) for shape in shapes.values())
    if len(shapes) < len(header.slots) or data.size != needed:
        cause = f"holds {data.size} bytes of state, its header describes {needed}"
        raise StateError(thing, cause, _AGAIN)
    numbers, start = data.view("<f4").astype(np.float32), 0
    arrays = {}
    for name, shape in shapes.items():
        arrays[name] = numbers[start : start + math.prod(shape)].reshape(shape)
        start += math.prod(shape)
    return arrays
