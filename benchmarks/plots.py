"""The benchmark's document as plots: a roofline, and tokens per second beside the peers'."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.ceilings import CEILINGS
from benchmarks.peers import OURS, PEERS
from benchmarks.report import Group
from benchmarks.tables import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INTENSITIES = (0.25, 4096.0)  # multiply-adds per byte of weights
PANEL = (6.0, 4.5)  # inches


def draw(document: dict[str, Any], folder: Path) -> None:
    """Write cpu-roofline.svg and cpu-peers.svg into `folder`."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    groups = [group for group in Group.of(document) if group.task.kind != "load"]
    # Without a date and with ids from this salt, the same document gives the same file.
    with mpl.rc_context({"svg.hashsalt": "mmfree"}):
        for name, plot in (("cpu-roofline", roofline), ("cpu-peers", against_peers)):
            figure = Figure(layout="constrained")
            plot(figure, groups)
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None})


def roofline(figure: Figure, groups: Sequence[Group]) -> None:
    """Multiply-adds per second over multiply-adds per byte; a panel for each number of threads."""
    counts = sorted({group.threads for group in groups})
    figure.set_size_inches(PANEL[0] * len(counts), PANEL[1])
    panels = figure.subplots(1, len(counts), squeeze=False)[0]
    for axes, threads in zip(panels, counts, strict=True):
        own = [group for group in groups if group.threads == threads]
        _roofs(axes, own)
        for peer in PEERS:
            _points(axes, [group for group in own if peer in group.seconds], peer)
        axes.set(xscale="log", yscale="log", title=f"threads: {threads}")
        axes.set(xlabel="multiply-adds per byte of weights", ylabel="GMAC/s")
        axes.legend(fontsize="x-small")


def _roofs(axes: Axes, groups: Sequence[Group]) -> None:
    """Each ceiling at its highest median: arithmetic as level lines, reads as slopes up to them."""
    rates = {name: max(group.rates[name] for group in groups) / 1e9 for name in groups[0].rates}
    left, right = INTENSITIES
    top = max((rate for name, rate in rates.items() if CEILINGS[name].multiply_adds), default=None)
    for name, rate in rates.items():
        if CEILINGS[name].multiply_adds:
            ends, heights = (left, right), (rate, rate)
        else:
            knee = right if top is None else top / rate
            ends, heights = (left, knee), (left * rate, knee * rate)
        axes.plot(ends, heights, label=CEILINGS[name].title, linewidth=1, linestyle="--")


def _points(axes: Axes, groups: Sequence[Group], peer: str) -> None:
    if groups:
        work = [group.task.multiply_adds(group.shape) for group in groups]
        intensities = [w / g.weight_bytes[peer] for w, g in zip(work, groups, strict=True)]
        rates = [group.multiply_adds_per_second(peer) / 1e9 for group in groups]
        size, marker = (60, "*") if peer == OURS else (18, "o")
        axes.scatter(intensities, rates, s=size, marker=marker, label=PEERS[peer].title, zorder=3)


def against_peers(figure: Figure, groups: Sequence[Group]) -> None:
    """Bars of tokens per second: a column of panels for each task, a row for each model."""
    shapes = list(dict.fromkeys(group.shape.name for group in groups))
    tasks = list(dict.fromkeys(group.task for group in groups))
    figure.set_size_inches(4 * len(tasks), 3.5 * len(shapes))
    panels = figure.subplots(len(shapes), len(tasks), squeeze=False)
    for row, shape in zip(panels, shapes, strict=True):
        for axes, task in zip(row, tasks, strict=True):
            own = [g for g in groups if (g.shape.name, g.task) == (shape, task)]
            axes.set_visible(bool(own))
            _bars(axes, own)
            axes.set_title(f"{shape}: {task.label}", fontsize="small")
    panels[0][0].set_ylabel("tokens/s")


def _bars(axes: Axes, groups: Sequence[Group]) -> None:
    """A group of bars for each peer, in it a bar for each number of threads."""
    peers = [peer for peer in PEERS if any(peer in group.seconds for group in groups)]
    width = 0.8 / max(1, len(groups))
    for place, group in enumerate(groups):
        here = [(at, peer) for at, peer in enumerate(peers) if peer in group.seconds]
        heights = [group.tokens_per_second(peer) for _, peer in here]
        places = [at + place * width for at, _ in here]
        bars = axes.bar(places, heights, width, label=f"threads: {group.threads}")
        axes.bar_label(bars, fmt=number, fontsize=5)
    titles = [PEERS[peer].title for peer in peers]
    axes.set_xticks(range(len(peers)), titles, rotation=30, ha="right", fontsize="x-small")
    if groups:
        axes.legend(fontsize="x-small")
