"""This tree beside an earlier commit: `python benchmarks/commits.py 6107c07 --shape 370M`.

Each tree compiles the same random checkpoint and runs it in its own process. They take turns, and
the figure of a task is the median over the rounds of the commit's time over this tree's: above 1,
this tree is faster. The commit has to be one that has benchmarks/worker.py.
"""

from __future__ import annotations

import json
import statistics
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.processes import ROOT, Worker
from benchmarks.shapes import Shape
from benchmarks.worker import Job
from mmfree_compiler.cli.measure import Spread
from mmfree_compiler.models import random_checkpoint

FOLDER = ROOT / "build" / "bench"
HERE = "this tree"


def main(
    commit: str,
    shape: Annotated[str, typer.Option(help="370M, 1.3B or 2.7B.")] = "370M",
    threads: Annotated[int, typer.Option(help="Threads of each session.")] = 1,
    tasks: Annotated[str, typer.Option()] = "decode-1,prefill-512",
    rounds: Annotated[int, typer.Option(min=5)] = 7,
    output: Annotated[Path, typer.Option()] = FOLDER / "commits.json",
) -> None:
    """Print the ratio of each task, and the seconds of each stage of compiling; write JSON."""
    size = Shape.of(shape)
    with ExitStack() as stack:
        trees = {commit: stack.enter_context(_checked_out(commit)), HERE: ROOT}
        compiled = {
            name: _worker(name, root, _job(name, size, None)).opened for name, root in trees.items()
        }
        workers = {
            name: stack.enter_context(_worker(name, root, _job(name, size, threads)))
            for name, root in trees.items()
        }
        measured = {task: _measure(task, workers, rounds) for task in tasks.split(",")}
    output.write_text(json.dumps({"compile": compiled, "tasks": measured}, indent=1) + "\n")
    _print(commit, compiled, measured)


@contextmanager
def _checked_out(commit: str) -> Iterator[Path]:
    """A work tree of the commit, for as long as the body runs."""
    tree = FOLDER / f"tree-{commit}"
    git = ["git", "-C", str(ROOT), "worktree"]
    subprocess.run([*git, "add", "--force", "--detach", tree, commit], check=True)
    try:
        yield tree
    finally:
        subprocess.run([*git, "remove", "--force", tree], check=True)


def _job(name: str, shape: Shape, threads: int | None) -> Job:
    """A job in the tree's own folder; the checkpoint in it is the one that both trees compile."""
    folder, checkpoint = _folder(name), FOLDER / shape.name
    if not checkpoint.exists():
        random_checkpoint(checkpoint, shape.name)
    if not (own := folder / shape.name).exists():
        own.symlink_to(checkpoint)
    return Job("mmfree", shape, folder, threads)


def _folder(name: str) -> Path:
    folder = FOLDER / name.replace(" ", "-")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _worker(name: str, root: Path, job: Job) -> Worker:
    return Worker(job, _folder(name) / "worker.log", root=root)


def _measure(task: str, workers: Mapping[str, Worker], rounds: int) -> dict[str, list[float]]:
    """Seconds per step of each tree, round by round."""
    found: dict[str, list[float]] = {name: [] for name in workers}
    for _ in range(rounds):
        for name, worker in workers.items():
            found[name].append(worker.ask(task)["seconds"])
    return found


def _print(commit: str, compiled: Mapping[str, Any], tasks: Mapping[str, Any]) -> None:
    table = Table("task", commit, HERE, "ratio", "lowest", "highest", box=None)
    for task, seconds in tasks.items():
        medians = (f"{1e3 * statistics.median(seconds[name]):,.2f} ms" for name in (commit, HERE))
        ratio = Spread.of([a / b for a, b in zip(seconds[commit], seconds[HERE], strict=True)])
        figures = (ratio.median, ratio.low, ratio.high)
        table.add_row(task, *medians, *(f"{figure:.3f}" for figure in figures))
    Console().print(table)
    for name, facts in compiled.items():
        stages = ", ".join(f"{stage} {spent:.1f}" for stage, spent in facts["seconds"].items())
        Console().print(f"compiled by {name}: {sum(facts['seconds'].values()):.1f} s ({stages})")


if __name__ == "__main__":
    typer.run(main)
