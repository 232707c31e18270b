"""The parts of a manifest: files, builds, ports, states, constants, and what a target has."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from itertools import chain
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, model_validator

from mmfree_compiler.program import DENSE, Role

# dtype -> the NumPy dtype that stores it. NumPy has no bfloat16: its bits are stored as uint16.
STORAGE: dict[str, np.dtype[np.generic]] = {
    name: np.dtype(name) for name in ("float32", "float16", "int8", "uint8", "int32", "int64")
} | {"bfloat16": np.dtype("uint16")}

Count = Annotated[int, Field(ge=0, le=1 << 48)]
Size = Annotated[int, Field(gt=0, le=1 << 31)]
Shape = Annotated[tuple[Size, ...], Field(max_length=8)]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


def _finite(value: JsonValue) -> JsonValue:
    json.dumps(value, allow_nan=False)  # raises ValueError; JSON has no NaN, but parsers accept it
    return value


Json = Annotated[JsonValue, AfterValidator(_finite)]
Notes = tuple[tuple[str, str, str], ...]  # (pass, node, text) of each


CONFIG = ConfigDict(extra="forbid", frozen=True)


class _Record(BaseModel):
    model_config = CONFIG


class Member(_Record):
    """A member of the archive: `size` in bytes and the SHA-256 of its bytes, in hex."""

    size: Count
    sha256: Digest


class Build(_Record):
    """One way to run the artifact: for a CPU with some features, for a GPU's architecture...

    `abi` is the number of the calling convention between its code and its launcher. `members` maps
    roles that the launcher knows to names of files. Only this launcher reads `facts`, strictly.
    """

    name: str
    abi: Size
    members: dict[str, str] = {}
    facts: dict[str, Json] = {}


class Port(_Record):
    """An input or output of `width` elements per row.

    Token ids are "int64" ports: one number per token (width 1), each below `limit`.
    """

    name: str
    dtype: Literal["float32", "int64"]
    width: Size
    limit: Size | None = None

    @property
    def shape(self) -> str:
        """The shape of an array for it, as people write it."""
        return "(...)" if self.dtype == "int64" else f"(..., {self.width})"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.dtype == "int64" and (self.width > 1 or self.limit is None):
            raise ValueError("token ids have width 1 and a limit")
        return self


class StateEntry(_Record):
    """The state of a scan, per sequence: `count` (loop iterations) arrays of `shape`, float32.

    The shape is (I,) for a recurrence, (k, D) for a convolution. A state that `grows` has such an
    array for each position.
    """

    name: str
    shape: Annotated[Shape, Field(min_length=1)]
    count: Size = 1
    grows: bool = False


class TensorEntry(_Record):
    """A constant in weights.bin: `count` parts of `shape`, `nbytes` together.

    They begin `offset` bytes behind where the constants of the target do (TargetEntry.offset).
    `role` is the role of the program.Constant. `layout` is the layout of the parts: "dense", or a
    name that the target's launcher knows. `shape` is the logical shape in every layout.
    """

    dtype: str
    shape: Shape
    role: Role
    layout: str
    offset: Annotated[Count, Field(multiple_of=64)]
    nbytes: Count
    count: Size = 1

    @property
    def row_bytes(self) -> int:
        """Bytes from one row of a table to the next."""
        return self.nbytes // (self.count * self.shape[0])

    @property
    def elements(self) -> int:
        """Logical elements of all parts."""
        return math.prod(self.shape) * self.count

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.dtype not in STORAGE:
            raise ValueError(f"unknown dtype {self.dtype!r}")
        dense = self.elements * STORAGE[self.dtype].itemsize
        if self.layout == DENSE.name and self.nbytes != dense:
            raise ValueError(f"{self.nbytes} bytes, but dtype and shape make {dense}")
        if self.role == "table" and self.nbytes % (self.count * self.shape[0]):
            raise ValueError(f"{self.nbytes} bytes are not {self.shape[0]} equal rows")
        if self.nbytes % self.count:
            raise ValueError(f"{self.nbytes} bytes are not {self.count} equal parts")
        return self


class TargetEntry(_Record):
    """What one `target` has of its own; `builds` are in order of preference.

    Its constants are in the `nbytes` bytes of weights.bin from `offset` on, from where the offsets
    of `tensors` count; other targets may read some of these bytes too. `passes` are the target's,
    which ran after those of the manifest, `notes` their notes.
    """

    target: str
    builds: tuple[Build, ...] = ()
    offset: Annotated[Count, Field(multiple_of=64)] = 0
    nbytes: Count
    tensors: dict[str, TensorEntry] = {}
    passes: tuple[str, ...] = ()
    notes: Notes = ()

    @property
    def kind(self) -> str:
        """What its backend is called: the target without options."""
        return self.target.partition(":")[0]

    @property
    def own_members(self) -> Iterator[str]:
        """Names of the files of its builds."""
        return chain.from_iterable(build.members.values() for build in self.builds)
