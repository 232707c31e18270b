"""The schema of manifest.json: the description of an artifact, and the rules for its parts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, Self, TypeGuard

from pydantic import BaseModel, Field, JsonValue, model_validator

from mmfree_compiler.artifact.entries import (
    CONFIG,
    Count,
    Digest,
    Json,
    Member,
    Notes,
    Port,
    StateEntry,
    TargetEntry,
)
from mmfree_compiler.structure import Structure, check, plain
from mmfree_compiler.wording import counted, printable

SCHEMA_VERSION = 3
WEIGHTS, TOKENIZER, MANIFEST = "weights.bin", "tokenizer.json", "manifest.json"
STATE = "state.json"  # the header of a state file, which no artifact has


def _is_int(value: JsonValue) -> TypeGuard[int]:
    return type(value) is int


class Manifest(BaseModel):
    """The manifest: what `targets` have in common, and each of them, in order of preference.

    `arithmetic` is the version of the rounding rules that it follows. `fingerprint` identifies the
    compiled model, on every target. `model` is the model's configuration, `quantization` describes
    how the model quantizes. `passes` are the passes that made the Program of all targets, `notes`
    their notes as (pass, node, text). `kind` "lm" maps one port of token ids to one port of logits.
    `result` says how a module's call returns the outputs; None: the one output, or a tuple of all.
    `members` lists all other members.
    """

    model_config = CONFIG

    schema_version: Literal[3] = 3
    producer: str
    arithmetic: Count = 0  # as in files from before there were versions; their hash has no field
    kind: Literal["lm", "module"]
    fingerprint: Digest
    model: dict[str, Json] = {}
    quantization: dict[str, str] = {}
    inputs: Annotated[tuple[Port, ...], Field(min_length=1)]
    outputs: Annotated[tuple[Port, ...], Field(min_length=1)]
    result: Structure | None = None
    states: tuple[StateEntry, ...] = ()
    passes: tuple[str, ...] = ()
    notes: Notes = ()
    targets: Annotated[tuple[TargetEntry, ...], Field(min_length=1)]
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
        """What it is in a few words: "language model, 4 layers, 256 wide, target reference"."""
        kind = {"lm": "language model", "module": f"module of {self.signature}"}[self.kind]
        layers, width = self.model.get("num_hidden_layers"), self.model.get("hidden_size")
        shape = ""
        if _is_int(layers) and _is_int(width):
            shape = f"{counted(layers, 'layer')}, {width} wide, "
        targets = ", ".join(entry.target for entry in self.targets)
        return printable(f"{kind}, {shape}target{'s' * (len(self.targets) > 1)} {targets}")

    @property
    def all_notes(self) -> Notes:
        """The notes of all passes; where there are several targets, those of each say whose."""
        several = len(self.targets) > 1
        own = [
            (f"{entry.kind}: {name}" if several else name, node, text)
            for entry in self.targets
            for name, node, text in entry.notes
        ]
        return (*self.notes, *own)

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
        if len({entry.kind for entry in self.targets}) < len(self.targets):
            yield "two targets are of one kind"
        for entry in self.targets:
            if entry.offset + entry.nbytes > self.members[WEIGHTS].size:
                yield f"the constants of target {entry.target} exceed {WEIGHTS}"
            for build in entry.builds:
                for missing in build.members.values() - self.members.keys():
                    yield f"build {build.name}: no member {missing}"
            yield from self._tensor_faults(entry)

    def _tensor_faults(self, entry: TargetEntry) -> Iterator[str]:
        """Contradictions between the constants of a target and the rest."""
        for name, tensor in entry.tensors.items():
            if tensor.offset + tensor.nbytes > entry.nbytes:
                yield f"tensor {name} exceeds the constants of target {entry.target}"
            if tensor.role == "table" and (self.inputs[0].limit or 0) > tensor.shape[0]:
                yield f"token ids exceed the rows of tensor {name}"
