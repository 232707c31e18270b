"""Measure compiled models on a GPU: `python -m benchmarks.gpu --shapes 370M --tasks decode-1`.

Figures are kept in a JSON file; those of several runs are merged into docs/benchmarks-gpu.md by
`python -m benchmarks.gpu --merge a.json,b.json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks import command
from benchmarks.gpu import document, report
from benchmarks.gpu.document import Document
from benchmarks.gpu.peers import PEERS
from benchmarks.gpu.running import ShapeRun
from benchmarks.gpu.tasks import LOAD, TASKS
from benchmarks.processes import ROOT
from benchmarks.shapes import Shape
from mmfree_compiler.backends.cpu.features import processor
from mmfree_compiler.doctor import examine
from mmfree_compiler.errors import InputError

FOLDER = ROOT / "build" / "bench" / "gpu"
PAGE = ROOT / "docs" / "benchmarks-gpu.md"
progress = Console(stderr=True, highlight=False)


def main(
    shapes: Annotated[str, typer.Option(help="Some of 370M, 1.3B, 2.7B.")] = "370M,1.3B,2.7B",
    tasks: Annotated[str, typer.Option(help=f"Some of {', '.join(TASKS)}.")] = ",".join(TASKS),
    peers: Annotated[str, typer.Option(help=f"Some of {', '.join(PEERS)}.")] = ",".join(PEERS),
    repeat: Annotated[int, typer.Option(help="Rounds.", min=5)] = 5,
    json: Annotated[Path, typer.Option(help="Where figures are kept.")] = FOLDER / "gpu.json",
    merge: Annotated[str, typer.Option(help="Measure nothing; merge these JSON files.")] = "",
    compiled: Annotated[
        Path | None, typer.Option(help="Files of benchmarks.gpu.models, to compile nothing.")
    ] = None,
    folder: Annotated[Path, typer.Option(help="Where models are kept.")] = FOLDER,
    publish: Annotated[bool, typer.Option(help="Write docs/benchmarks-gpu.md.")] = True,
) -> None:
    """Measure, keep the figures, and publish them."""
    if merge:
        found = document.read(Path(path) for path in merge.split(","))
    else:
        folder.mkdir(parents=True, exist_ok=True)
        found = document.read([json] if json.exists() else [])
        found["machine"] = machine()
        chosen = _chosen(tasks, TASKS, "tasks"), _chosen(peers, PEERS, "peers")
        for name in shapes.split(","):
            with ShapeRun(Shape.of(name), folder, compiled, progress.print) as run:
                _measure(run, found, chosen, repeat, json)
    if publish:
        report.publish(found, PAGE)


def _measure(
    run: ShapeRun, found: Document, chosen: tuple[list[str], list[str]], repeat: int, json: Path
) -> None:
    """All tasks of a shape, written one by one: what was measured stays when the next one fails."""
    tasks, peers = [TASKS[name] for name in chosen[0]], chosen[1]
    run.say(f"{run.shape.name}: prepare")
    run.prepare(peers)
    found["shapes"][run.shape.name] = run.prepared
    opened = False
    for task in tasks:
        if task != LOAD and not opened:  # it measures memory: nobody else may use the GPU then
            run.say(f"{run.shape.name}: open")
            run.open_slow(peers, [task for task in tasks if task != LOAD])
            opened = True
        run.say(f"{run.shape.name}: {task.name}")
        document.keep(found, run.measured(task, peers, repeat))
        document.write(found, json)


def _chosen(listed: str, known: Mapping[str, object], what: str) -> list[str]:
    """In the order of the table."""
    names = listed.split(",")
    if unknown := [name for name in names if name not in known]:
        raise InputError(what, f"unknown: {', '.join(unknown)}", f"Known: {', '.join(known)}")
    return [name for name in known if name in names]


def machine() -> dict[str, str]:
    """A description of this machine, as `mmfree doctor` sees it."""
    found = {check.name: check.found for check in examine()}
    kept = ("GPU 0", "NVIDIA driver", "CPUs this process may use")
    names = {name: found[name] for name in kept if name in found}
    return {"processor": processor(), **names}


if __name__ == "__main__":
    command.run(main)
