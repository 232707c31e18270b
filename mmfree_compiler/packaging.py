"""Packaging a backend's output as an artifact: the target-independent part of the manifest."""

from __future__ import annotations

from mmfree_compiler.artifact import TOKENIZER, Artifact, Port, StateEntry
from mmfree_compiler.backends.interface import Emitted
from mmfree_compiler.program import Program, StateSlot
from mmfree_compiler.sources import Source
from mmfree_compiler.target import Target


def package(
    program: Program,
    target: Target,
    emitted: Emitted,
    passes: tuple[str, ...],
    fingerprint: str,
    source: Source | None,
) -> Artifact:
    """The artifact of `emitted`; `source` is None for a part of a model."""
    members = dict(emitted.members)
    notes = (*(source.notes if source else ()), *program.notes)
    if source is not None and source.tokenizer is not None:
        members[TOKENIZER] = source.tokenizer
    return Artifact.build(
        members,
        program,
        target=str(target),
        kind=program.kind,
        fingerprint=fingerprint,
        builds=emitted.builds,
        model=source.model if source else {},
        quantization=source.quantization if source else {},
        inputs=tuple(_port(program, name) for name in program.inputs),
        outputs=tuple(_port(program, name) for name in program.outputs),
        result=program.result,
        states=tuple(map(_state, program.states)),
        tensors=dict(emitted.tensors),
        passes=passes,
        notes=tuple((note.pass_name, note.node, note.text) for note in notes),
    )


def _port(program: Program, name: str) -> Port:
    value = program.values[name]
    assert value.dtype != "int8"  # codes never leave a program
    limit = program.vocabulary(name) if value.dtype == "int64" else None
    return Port(name=name, dtype=value.dtype, width=value.width, limit=limit)


def _state(slot: StateSlot) -> StateEntry:
    return StateEntry(name=slot.name, shape=slot.shape, count=slot.count, grows=slot.grows)
