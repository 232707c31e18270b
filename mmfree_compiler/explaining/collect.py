"""Putting an explanation together: of an artifact, of an eager model, of a failed compilation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from mmfree_compiler import passes
from mmfree_compiler.artifact import Artifact
from mmfree_compiler.contents import Parameters, state_bytes
from mmfree_compiler.errors import MmfreeError
from mmfree_compiler.explaining.coverage import coverage, ops_of
from mmfree_compiler.explaining.drawn import NoteLine
from mmfree_compiler.explaining.history import History, purpose
from mmfree_compiler.explaining.schema import Audit, Difference, Explanation, ModelFacts, PassStep
from mmfree_compiler.explaining.summary import summary
from mmfree_compiler.explaining.targets import target_part
from mmfree_compiler.notes import Note

_NOT_SAVED = (
    "the Program, what each pass changed, the audit, and what each op costs are not part of a "
    "compiled model: explain the checkpoint that it was made of"
)
LOAD = "load"
# What leaves notes besides passes.
_OTHERS = {
    LOAD: "Read the model and its tokenizer.",
    "fallback": "Run in torch what the target cannot lower, or all of the module.",
}


def explain_artifact(
    artifact: Artifact, history: History, threads: int | None, measure: bool
) -> Explanation:
    """What was done to make `artifact`, whose passes `history` saw if it was made here."""
    manifest = artifact.manifest
    sizes = Parameters.of(artifact)
    model = ModelFacts(
        title=artifact.title,
        kind=manifest.kind,
        layers=sizes.layers or None,
        parameters=sizes.total,
        ternary_parameters=sizes.ternary,
        state_bytes=state_bytes(manifest),
        configuration={name: str(value) for name, value in manifest.model.items()},
    )
    notes = {"": manifest.notes} | {entry.target: entry.notes for entry in manifest.targets}
    named = {stage: [Note(*note) for note in found] for stage, found in notes.items()}
    counts = ops_of(artifact.program) if artifact.program else {}
    kinds, table = coverage(counts)
    targets = tuple(target_part(view, threads, measure) for view in artifact.targets)
    return Explanation(
        model=model,
        summary=summary(targets, table, history.audit),
        passes=tuple(_steps(history, named) if history.steps else _saved(artifact, named)),
        snapshots=history.snapshots,
        targets=targets,
        coverage=table,
        kinds=kinds,
        audit=history.audit,
        missing=() if artifact.program else (_NOT_SAVED,),
    )


def explain_graph(
    title: str, kind: str, history: History, notes: Iterable[Note], error: MmfreeError | None = None
) -> Explanation:
    """What was done to a model of which no artifact was made: `error` says why, if it failed."""
    last = history.taken[-1].ops if history.taken else {}
    kinds, table = coverage({name.removeprefix("mmfree."): n for name, n in last.items()})
    return Explanation(
        model=ModelFacts(title=title, kind=kind),
        summary=summary((), table, history.audit),
        passes=tuple(_steps(history, {"": list(notes)})),
        snapshots=history.snapshots,
        coverage=table,
        kinds=kinds,
        audit=history.audit,
        failed=str(error or ""),
    )


def with_audit(explanation: Explanation, audit: Audit | None) -> Explanation:
    """An explanation of a model whose graph is not known, with an audit of another kind."""
    found = summary((), explanation.coverage, audit)
    return explanation.model_copy(update={"audit": audit, "summary": found})


def _steps(history: History, notes: Mapping[str, list[Note]]) -> Iterator[PassStep]:
    """The passes of `history` with their notes, between those of loading and of compiled parts.

    `notes` are by target, those of what all have in common by "".
    """
    common = notes.get("", [])
    names = {step.name for step in history.steps}
    others = [note for note in common if note.pass_name not in names]
    yield from _of_notes("model", (note for note in others if note.pass_name == LOAD))
    for number, step in enumerate(history.steps):
        own = notes.get(step.stage, common)
        yield PassStep(
            name=step.name,
            stage=step.stage,
            purpose=step.purpose,
            notes=tuple(_lines(note for note in own if note.pass_name == step.name)),
            before=step.before,
            after=step.after,
            seconds=step.seconds,
            difference=history.difference(number),
        )
    yield from _of_notes("parts", (note for note in others if note.pass_name != LOAD))


def _saved(artifact: Artifact, notes: Mapping[str, list[Note]]) -> Iterator[PassStep]:
    """The passes that the manifest names, with their notes."""
    graph = {step.name: purpose(step) for step in passes.GRAPH}
    program = {step.name: purpose(step) for step in passes.PROGRAM} | {
        "lower": purpose(passes.lower)
    }
    manifest = artifact.manifest
    named = [("graph" if name in graph else "program", name) for name in manifest.passes]
    named += [(entry.target, name) for entry in manifest.targets for name in entry.passes]
    yield from _of_notes("model", (note for note in notes[""] if note.pass_name == LOAD))
    for stage, name in named:
        own = notes.get(stage, notes[""])
        yield PassStep(
            name=name,
            stage=stage,
            purpose=(graph | program).get(name, ""),
            notes=tuple(_lines(note for note in own if note.pass_name == name)),
            difference=Difference(reason="not part of a compiled model"),
        )


def _of_notes(stage: str, notes: Iterable[Note]) -> Iterator[PassStep]:
    """A step for each name that left notes, in the order of its first."""
    found: dict[str, list[Note]] = {}
    for note in notes:
        found.setdefault(note.pass_name, []).append(note)
    for name, own in found.items():
        yield PassStep(
            name=name,
            stage=stage,
            purpose=_OTHERS.get(name, ""),
            notes=tuple(_lines(own)),
            difference=Difference(reason="it computes nothing"),
        )


def _lines(notes: Iterable[Note]) -> Iterator[NoteLine]:
    return (NoteLine(node=note.node, text=note.text) for note in notes)
