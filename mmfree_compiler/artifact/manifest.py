"""The schema of manifest.json: the description of an artifact, and the rules for its parts."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, model_validator

from mmfree_compiler.program import DENSE, Role
from mmfree_compiler.structure import Structure, check, plain
from mmfree_compiler.wording import printable

SCHEMA_VERSION = 2
WEIGHTS, TOKENIZER, MANIFEST = "weights.bin", "tokenizer.json", "manifest.json"
STATE = "state.json"  # the header of a state file, which no artifact has

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


def _is_int(value: JsonValue) -> bool:
    return type(value) is int


Json = Annotated[JsonValue, AfterValidator(_finite)]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


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
    """A constant in weights.bin: `count` parts of `shape`, `nbytes` together, from `offset`.

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


class Manifest(_Record):
    """The manifest. `builds` are in order of preference; `members` lists all other members.

    `target` is the target it was compiled for, `arithmetic` the version of the rounding rules that
    it follows. `fingerprint` identifies the compiled model, on every target. `model` is the model's
    configuration, `quantization` describes how the model quantizes. `passes` are the passes that
    made it, `notes` their notes as (pass, node, text). `kind` "lm" maps one port of token ids to
    one port of logits. `result` says how a module's call returns the outputs; None: the one output,
    or a tuple of all.
    """

    schema_version: Literal[2] = 2
    producer: str
    target: str
    arithmetic: Count = 0  # as in files from before there were versions; their hash has no field
    kind: Literal["lm", "module"]
    fingerprint: Digest
    builds: tuple[Build, ...] = ()
    model: dict[str, Json] = {}
    quantization: dict[str, str] = {}
    inputs: Annotated[tuple[Port, ...], Field(min_length=1)]
    outputs: Annotated[tuple[Port, ...], Field(min_length=1)]
    result: Structure | None = None
    states: tuple[StateEntry, ...] = ()
    tensors: dict[str, TensorEntry] = {}
    passes: tuple[str, ...] = ()
    notes: tuple[tuple[str, str, str], ...] = ()
    members: dict[str, Member]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for fault in (*self._port_faults(), *self._member_faults()):
            raise ValueError(fault)
        if self.result is not None:
            check(self.result, len(self.outputs))
        return self

    @property
    def returned(self) -> Structure:
        """How a call of a module returns its outputs."""
        return self.result or plain(len(self.outputs))

    @property
    def summary(self) -> str:
        """What it is in a few words: "language model, 4 layers, 256 wide, target cpu"."""
        kind = {"lm": "language model", "module": f"module of {self.signature}"}[self.kind]
        sizes = (self.model.get("num_hidden_layers"), self.model.get("hidden_size"))
        shape = "{} layers, {} wide, ".format(*sizes) if all(map(_is_int, sizes)) else ""
        return printable(f"{kind}, {shape}target {self.target}")

    @property
    def signature(self) -> str:
        """The inputs of a call: "x (..., 64), ids (...)"."""
        return ", ".join(f"{port.name} {port.shape}" for port in self.inputs)

    def _port_faults(self) -> Iterator[str]:
        """Contradictions between inputs and outputs."""
        if any(port.dtype != "float32" for port in self.outputs):
            yield "outputs must be float32"
        ports = tuple(port.dtype for port in (*self.inputs, *self.outputs))
        if self.kind == "lm" and ports != ("int64", "float32"):
            yield "a language model has one input of token ids and one output"
        elif self.kind == "lm" and self.outputs[0].width > (self.inputs[0].limit or 0):
            yield "a language model has logits for tokens that it cannot read"
        if self.kind == "lm" and self.result is not None:
            yield "a language model returns logits and a state"
        if len({state.name for state in self.states}) < len(self.states):
            yield "two states share a name"

    def _member_faults(self) -> Iterator[str]:
        """Contradictions between the tables and the members."""
        if WEIGHTS not in self.members or MANIFEST in self.members:
            yield f"members must list {WEIGHTS} and not {MANIFEST}"
            return
        for build in self.builds:
            for missing in build.members.values() - self.members.keys():
                yield f"build {build.name}: no member {missing}"
        for name, tensor in self.tensors.items():
            if tensor.offset + tensor.nbytes > self.members[WEIGHTS].size:
                yield f"tensor {name} exceeds {WEIGHTS}"
            if tensor.role == "table" and (self.inputs[0].limit or 0) > tensor.shape[0]:
                yield f"token ids exceed the rows of tensor {name}"
