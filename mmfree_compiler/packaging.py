"""Packaging what backends made as an artifact: the target-independent part of the manifest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmfree_compiler.artifact import (
    TOKENIZER,
    WEIGHTS,
    Artifact,
    Notes,
    Port,
    StateEntry,
    TargetEntry,
)
from mmfree_compiler.artifact.ranges import joined
from mmfree_compiler.backends.interface import Emitted
from mmfree_compiler.errors import TargetError
from mmfree_compiler.notes import Note
from mmfree_compiler.program import Program, StateSlot
from mmfree_compiler.sources import Source
from mmfree_compiler.target import Target


@dataclass(frozen=True)
class Made:
    """What a backend made for `target`: its last Program, the names of its passes, the files."""

    target: Target
    program: Program
    passes: tuple[str, ...]
    emitted: Emitted


def package(
    program: Program,
    targets: Sequence[Made],
    passes: tuple[str, ...],
    fingerprint: str,
    source: Source | None,
) -> Artifact:
    """The artifact of `targets`; `source` is None for a part of a model.

    `program` is the one before any backend's passes, `passes` are those that made it. Raises
    TargetError when two targets make a file of one name.
    """
    stored = [np.frombuffer(made.emitted.members[WEIGHTS], np.uint8) for made in targets]
    tensors = [made.emitted.tensors for made in targets]
    weights, starts = joined(list(zip(stored, tensors, strict=True)))
    members = {WEIGHTS: weights, **_files(targets)}
    if source is not None and source.tokenizer is not None:
        members[TOKENIZER] = np.frombuffer(source.tokenizer, np.uint8)
    places = zip(starts, (own.size for own in stored), strict=True)
    return Artifact.build(
        members,
        tuple(made.program for made in targets),
        kind=program.kind,
        fingerprint=fingerprint,
        model=source.model if source else {},
        quantization=source.quantization if source else {},
        inputs=tuple(_port(program, name) for name in program.inputs),
        outputs=tuple(_port(program, name) for name in program.outputs),
        result=program.result,
        states=tuple(map(_state, program.states)),
        passes=passes,
        notes=_notes((*(source.notes if source else ()), *program.notes)),
        targets=tuple(
            _entry(made, len(program.notes), *place)
            for made, place in zip(targets, places, strict=True)
        ),
    )


def _files(targets: Sequence[Made]) -> dict[str, bytes | NDArray[np.uint8]]:
    """The files of all targets, but for weights.bin."""
    files: dict[str, bytes | NDArray[np.uint8]] = {}
    for made in targets:
        for name in files.keys() & made.emitted.members.keys():
            cause = f"makes a file {name}, as another target does"
            raise TargetError(f"target {made.target}", cause, "Compile the two into separate files")
        files |= {n: data for n, data in made.emitted.members.items() if n != WEIGHTS}
    return files


def _entry(made: Made, common: int, offset: int, nbytes: int) -> TargetEntry:
    """What the manifest says of a target, whose Program begins with `common` notes of all."""
    return TargetEntry(
        target=str(made.target),
        builds=made.emitted.builds,
        offset=offset,
        nbytes=nbytes,
        tensors=dict(made.emitted.tensors),
        passes=made.passes,
        notes=_notes(made.program.notes[common:]),
    )


def _notes(notes: Sequence[Note]) -> Notes:
    return tuple((note.pass_name, note.node, note.text) for note in notes)


def _port(program: Program, name: str) -> Port:
    value = program.values[name]
    assert value.dtype != "int8"  # codes never leave a program
    limit = program.vocabulary(name) if value.dtype == "int64" else None
    return Port(name=name, dtype=value.dtype, width=value.width, limit=limit)


def _state(slot: StateSlot) -> StateEntry:
    return StateEntry(name=slot.name, shape=slot.shape, count=slot.count, grows=slot.grows)
