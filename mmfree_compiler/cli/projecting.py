"""Projections of models on hardware that is not here: tables, and what each unit does when."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from mmfree_compiler.cli.loading import load_language_model
from mmfree_compiler.cli.output import emit
from mmfree_compiler.errors import InputError, TargetError, ToolchainError
from mmfree_compiler.tables import facts, grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mmfree_compiler.backends.projection import Interval, Projection

WIDTH = 72  # characters of a chart
SHOWN = 60  # intervals of the busiest unit in a chart
FORMATS = (".svg", ".png")  # of images
WORK, LITTLE, WAIT = "█", "▂", "·"


def projected(model: Path | None, target: str | None, shape: str | None) -> Projection | None:
    """The projection of a shape, or of a model whose target has one; None of other models.

    Raises InputError when neither is given, or both are.
    """
    from mmfree_compiler import backends
    from mmfree_compiler.backends.projection import Projector

    if (model is None) == (shape is None):
        raise InputError("bench", "takes either a model or a --shape", "Name one of them")
    if model is None:
        return project_shape(target, str(shape))
    artifact = load_language_model(model, target=target).artifact
    backend = backends.get(artifact.entry.kind)
    return backend.project(artifact) if isinstance(backend, Projector) else None


def project_shape(target: str | None, shape: str) -> Projection:
    """That of a published shape on a target. Raises InputError and TargetError."""
    from mmfree_compiler import backends
    from mmfree_compiler.backends.projection import Projector
    from mmfree_compiler.models.config import SHAPES
    from mmfree_compiler.scaled import program_of

    if shape not in SHAPES:
        raise InputError(f"--shape {shape}", "is unknown", f"Known: {', '.join(SHAPES)}")
    if target is None:
        hint = "Name one whose hardware is simulated, such as fpga:kv260"
        raise InputError("--shape", "needs a --target", hint)
    backend, spec = backends.of(target)
    if not isinstance(backend, Projector):
        hint = "Choose another target, or measure a compiled model"
        raise TargetError(f"target {target}", "has no model of its hardware", hint)
    return backend.project_shape(program_of(SHAPES[shape]), spec, shape)


def show(projection: Projection, json: bool, image: Path | None) -> None:
    """Print a projection; draw it too, into `image`."""
    if image is not None:
        draw(projection, image)
    shares = {unit: projection.shares(unit) for unit in projection.units}
    document = {
        "machine": projection.machine,
        "figures": [asdict(figure) for figure in projection.figures],
        "units": shares,
    }
    tables = _figures(projection), _shares(shares, projection.work)
    emit(json, document, *tables, _chart(projection))


def _figures(projection: Projection) -> Table:
    rows = [
        (f.name, f"{f.value:,.{0 if f.value >= 1000 else 3}f}", f.unit, f.origin)
        for f in projection.figures
    ]
    return grid(projection.machine, ("", "value", "", "origin"), rows)


def _shares(shares: dict[str, dict[str, float]], work: frozenset[str]) -> Table:
    """A line for each unit: its work, and behind it what it waits for, the longest wait first."""
    rows = []
    for unit, found in shares.items():
        order = sorted(found, key=lambda what: (what not in work, -found[what]))
        rows.append((unit, ", ".join(f"{what} {found[what]:.1%}" for what in order)))
    return facts(rows, "\nUnits: the share of the time in which each works, or waits for what")


def _chart(projection: Projection) -> Text:
    """The first cycles of the token, a line for each unit."""
    busiest = max(projection.units.values(), key=len)
    last = busiest[min(SHOWN, len(busiest)) - 1].end
    legend = f"{WORK} works, {LITTLE} works less than half of the time, {WAIT} waits"
    lines = [f"\nThe first {last:,} cycles: {legend}"]
    for unit, intervals in projection.units.items():
        lines.append(f"{unit:3} {''.join(_cells(intervals, last, projection.work))}")
    return Text("\n".join(lines))


def _cells(intervals: Sequence[Interval], last: int, work: frozenset[str]) -> Iterator[str]:
    """A character for each part of the time."""
    for k in range(WIDTH):
        start, end = last * k / WIDTH, last * (k + 1) / WIDTH
        busy = sum(
            max(0.0, min(end, interval.end) - max(start, interval.start))
            for interval in intervals
            if interval.what in work
        )
        yield WORK if 2 * busy >= end - start else LITTLE if busy else WAIT


def draw(projection: Projection, path: Path) -> None:
    """A chart of the whole token as an image.

    Raises InputError if its suffix is not one of FORMATS, ArtifactError if it cannot be written,
    ToolchainError without matplotlib.
    """
    from mmfree_compiler.artifact import replacing
    from mmfree_compiler.artifact.archive import writable

    if path.suffix not in FORMATS:
        hint = f"Name a file that ends in {' or '.join(FORMATS)}"
        raise InputError(f"--gantt {path}", "is not the name of an image", hint)
    with writable(path), replacing(path) as file:
        _figure(projection).savefig(file, format=path.suffix[1:], bbox_inches="tight")


def _figure(projection: Projection) -> Figure:
    """A row for each unit; each wait in a color of its own."""
    try:
        from matplotlib.figure import Figure
        from matplotlib.patches import Patch
    except ImportError as error:
        hint = "pip install 'mmfree-compiler[plot]'"
        raise ToolchainError("--gantt", f"needs matplotlib: {error}", hint) from error
    figure = Figure(figsize=(12, 3))
    axes = figure.add_subplot()
    causes = {i.what for intervals in projection.units.values() for i in intervals}
    stalls = sorted(causes - projection.work)
    colors = dict.fromkeys(projection.work, "black") | {w: f"C{k}" for k, w in enumerate(stalls)}
    for row, intervals in enumerate(projection.units.values()):
        for what in causes:
            bars = [(i.start, i.end - i.start) for i in intervals if i.what == what]
            axes.broken_barh(bars, (row - 0.4, 0.8), color=colors[what], linewidth=0)
    patches = [Patch(color=color, label=what) for what, color in colors.items()]
    axes.legend(handles=patches, loc="upper center", ncols=len(patches), bbox_to_anchor=(0.5, 1.25))
    axes.set_yticks(range(len(projection.units)), list(projection.units))
    axes.set_xlabel("cycles")
    return figure
