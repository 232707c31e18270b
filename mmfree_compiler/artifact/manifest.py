"""The schema of manifest.json: what an artifact is, and what must hold between its parts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from mmfree_compiler.program import TABLE

SCHEMA_VERSION = 1
WEIGHTS, TOKENIZER, MANIFEST = "weights.bin", "tokenizer.json", "manifest.json"

# dtype -> the NumPy dtype that stores it. NumPy has no bfloat16: its bits are stored as uint16.
STORAGE: dict[str, np.dtype[np.generic]] = {
    name: np.dtype(name) for name in ("float32", "float16", "int8", "uint8", "int32", "int64")
} | {"bfloat16": np.dtype("uint16")}

Count = Annotated[int, Field(ge=0, le=1 << 48)]
Size = Annotated[int, Field(gt=0, le=1 << 31)]
Shape = Annotated[tuple[Size, ...], Field(max_length=8)]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Member(_Record):
    """A member of the archive: `size` in bytes and the SHA-256 of its bytes, in hex."""

    size: Count
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Variant(_Record):
    """One instruction-set variant: `member` runs on `arch` machines whose CPU has `features`.

    `arch` is as platform.machine() spells it: "x86_64", "aarch64". `abi` is the number of the
    calling convention that its functions follow; a launcher knows one. `tuning` are the settings
    it was compiled with: they change its speed alone.
    """

    name: str
    arch: str
    features: tuple[str, ...] = ()
    member: str
    abi: Size = 1
    tuning: dict[str, int] = {}


class Port(_Record):
    """An input or output: the user sees `width` elements a row, the kernel's rows have `stride`.

    Token ids are "int64" ports: a scalar a token (width 1, stride 1), each id below `limit`.
    """

    name: str
    dtype: Literal["float32", "int64"]
    width: Size
    stride: Size
    limit: Size | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.stride < self.width:
            raise ValueError(f"stride {self.stride} is below width {self.width}")
        if self.dtype == "int64" and (self.stride > 1 or self.limit is None):
            raise ValueError("token ids have width 1, stride 1 and a limit")
        return self


class StatePart(_Record):
    """A scan's state: `count` (loop iterations) times `width` floats from `offset` of a state row.

    `shape` is how a person reads one of them: (I,) for a recurrence, (k, D) for a convolution. Its
    last dimension is padded: `width` is the product of the others times `row_stride`.
    """

    name: str
    offset: Count
    width: Size
    count: Size = 1
    shape: Annotated[Shape, Field(min_length=1)]

    @property
    def row_stride(self) -> int:
        """Floats from one row of the last dimension to the next."""
        return self.width // math.prod(self.shape[:-1])

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.row_stride < self.shape[-1] or self.width % self.row_stride:
            raise ValueError(f"shape {self.shape} does not fit in width {self.width}")
        return self


class TensorEntry(_Record):
    """A constant in weights.bin: `count` parts of `shape`, `nbytes` together, from `offset`.

    `layout` is as program.Constant's; `shape` is the logical one whatever the layout.
    """

    dtype: str
    shape: Shape
    layout: str
    offset: Annotated[Count, Field(multiple_of=64)]
    nbytes: Count
    count: Size = 1

    @property
    def row_bytes(self) -> int:
        """Bytes from one row of a table to the next."""
        return self.nbytes // (self.count * self.shape[0])

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.dtype not in STORAGE:
            raise ValueError(f"unknown dtype {self.dtype!r}")
        dense = math.prod(self.shape) * STORAGE[self.dtype].itemsize * self.count
        if self.layout == "dense" and self.nbytes != dense:
            raise ValueError(f"{self.nbytes} bytes, but dtype and shape make {dense}")
        if self.layout == TABLE and self.nbytes % (self.count * self.shape[0]):
            raise ValueError(f"{self.nbytes} bytes are not so many equal rows")
        if self.nbytes % self.count:
            raise ValueError(f"{self.nbytes} bytes are not {self.count} equal parts")
        return self


class MemoryPlan(_Record):
    """Scratch that a launcher allocates, in elements a token: floats, floats, int8.

    A call takes at most `chunk` tokens. `private` and `codes` are needed a thread as well, when
    there are more threads than tokens. `scratch` are bytes a thread.
    """

    shared: Count = 0
    private: Count = 0
    codes: Count = 0
    scratch: Count = 0
    chunk: Size = 1


class Manifest(_Record):
    """The manifest. `variants` are in order of preference; `members` lists all other members.

    `model` is the model's configuration, `quantization` how its weights were quantized, `passes`
    the pipeline that made it, `notes` what passes did as (pass, node, text). A state row is
    `state_width` floats wide. `kind` "lm" maps one port of token ids to one port of logits.
    """

    schema_version: Literal[1] = 1
    producer: str
    target: str
    kind: Literal["lm", "module"]
    variants: tuple[Variant, ...] = ()
    model: dict[str, JsonValue] = {}
    quantization: dict[str, str] = {}
    inputs: Annotated[tuple[Port, ...], Field(min_length=1)]
    outputs: Annotated[tuple[Port, ...], Field(min_length=1)]
    states: tuple[StatePart, ...] = ()
    state_width: Annotated[Count, Field(le=1 << 31)] = 0
    tensors: dict[str, TensorEntry] = {}
    memory: MemoryPlan = MemoryPlan()
    passes: tuple[str, ...] = ()
    notes: tuple[tuple[str, str, str], ...] = ()
    members: dict[str, Member]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for fault in self._faults():
            raise ValueError(fault)
        return self

    def _faults(self) -> Iterator[str]:
        """What does not hold between the parts."""
        if WEIGHTS not in self.members or MANIFEST in self.members:
            yield f"members must list {WEIGHTS} and not {MANIFEST}"
        if any(port.dtype != "float32" for port in self.outputs):
            yield "outputs must be float32"
        ports = tuple(port.dtype for port in (*self.inputs, *self.outputs))
        if self.kind == "lm" and ports != ("int64", "float32"):
            yield "a language model has one input of token ids and one output"
        elif self.kind == "lm" and self.outputs[0].width > (self.inputs[0].limit or 0):
            yield "a language model's logits name tokens that it cannot read"
        for variant in self.variants:
            if variant.member not in self.members:
                yield f"variant {variant.name}: no member {variant.member}"
        ends = [part.offset + part.width * part.count for part in self.states]
        if max(ends, default=0) != self.state_width:
            yield f"states end at {max(ends, default=0)}, not at the width {self.state_width}"
        for name, tensor in self.tensors.items():
            if tensor.offset + tensor.nbytes > self.members[WEIGHTS].size:
                yield f"tensor {name} exceeds {WEIGHTS}"
            if tensor.layout == TABLE and (self.inputs[0].limit or 0) > tensor.shape[0]:
                yield f"token ids exceed the rows of tensor {name}"
