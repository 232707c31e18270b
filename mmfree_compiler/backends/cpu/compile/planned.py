"""Programs after the passes of the CPU target: with packed weights, then with planned memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from mmfree_compiler.program import Program


@dataclass(frozen=True)
class Storage:
    """The place of a value's rows in an arena, in elements.

    `offset` is for one token; the rows of n tokens begin at n * offset.
    """

    arena: str  # "shared": floats made by tiles; "private": floats made by rows; "codes": int8
    offset: int
    stride: int  # from one token's row to the next


@dataclass(frozen=True)
class PackedProgram(Program):
    """`layouts` maps each variant to the name of the layout of the ternary weights it reads."""

    layouts: Mapping[str, str] = field(default_factory=dict)

    def details(self) -> Iterator[str]:
        yield from (f"variant {name} reads {layout}" for name, layout in self.layouts.items())


@dataclass(frozen=True)
class PlannedProgram(PackedProgram):
    """`storage` has the places of values that outlive a stage's registers.

    `arenas` has the size of each arena, in elements per token.
    """

    storage: Mapping[str, Storage] = field(default_factory=dict)
    arenas: Mapping[str, int] = field(default_factory=dict)

    def details(self) -> Iterator[str]:
        yield from super().details()
        for name, storage in self.storage.items():
            yield f"storage {name}: {storage.arena}[{storage.offset}] stride {storage.stride}"
        yield "arenas " + ", ".join(f"{name} {size}" for name, size in self.arenas.items())
