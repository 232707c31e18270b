"""What a call returns: its outputs in the containers that the module puts them in.

As JSON (docs/artifact.md): `{"output": 0}`, `{"constant": null}`, `{"kind": "tuple", "items": []}`,
`{"kind": "dict", "fields": [["a", {"output": 0}]]}`.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

Scalar = bool | int | float | str | None


@dataclass(frozen=True)
class Output:
    """Output number `output`."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    output: int

    def build(self, outputs: Sequence[Any]) -> Any:
        return outputs[self.output]

    def leaves(self) -> Iterator[int]:
        yield self.output


@dataclass(frozen=True)
class Constant:
    """A value that is the same at every call."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    constant: Scalar

    def build(self, outputs: Sequence[Any]) -> Any:  # noqa: ARG002 - as the others
        return self.constant

    def leaves(self) -> Iterator[int]:
        yield from ()


@dataclass(frozen=True)
class Items:
    """A tuple or a list."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    kind: Literal["tuple", "list"]
    items: tuple[Structure, ...]

    def build(self, outputs: Sequence[Any]) -> Any:
        built = (item.build(outputs) for item in self.items)
        return tuple(built) if self.kind == "tuple" else list(built)

    def leaves(self) -> Iterator[int]:
        for item in self.items:
            yield from item.leaves()


@dataclass(frozen=True)
class Fields:
    """A dict, or a namedtuple of this `name`, whose keys are names."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    kind: Literal["dict", "namedtuple"]
    fields: tuple[tuple[Scalar, Structure], ...]
    name: str = ""

    def build(self, outputs: Sequence[Any]) -> Any:
        built = {key: value.build(outputs) for key, value in self.fields}
        return built if self.kind == "dict" else self._type()(*built.values())

    def _type(self) -> Callable[..., Any]:
        """Raises ValueError on names that Python does not take."""
        return namedtuple(self.name, [str(key) for key, _ in self.fields])

    def leaves(self) -> Iterator[int]:
        for _, value in self.fields:
            yield from value.leaves()


Structure = Output | Constant | Items | Fields


def plain(count: int) -> Structure:
    """One output itself, several as a tuple."""
    outputs = tuple(map(Output, range(count)))
    return outputs[0] if count == 1 else Items("tuple", outputs)


def check(structure: Structure, count: int) -> None:
    """Raise ValueError unless `structure` can be built and holds each of `count` outputs once."""
    if sorted(structure.leaves()) != list(range(count)):
        raise ValueError(f"result does not hold outputs 0 to {count - 1}, each once")
    structure.build(range(count))
