"""Decode of the exact ONNX models beside their products: `python -m benchmarks.onnx_decode`.

Each model is in a process of its own, on one CPU, with one thread: both variants of the target, and
the peer "onnxruntime", which has the ternary products alone, without sentinels, norms, gates and
recurrence. In every round each runs in turn. Ratios are medians of the ratios of a round.
"""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import command
from benchmarks.peers import EXACT, PEERS
from benchmarks.processes import ROOT, Worker, prepare
from benchmarks.shapes import Shape
from benchmarks.tables import number, table
from benchmarks.worker import Job

PRODUCTS = PEERS["onnxruntime"]
TASK = "decode-1"

Samples = Mapping[str, list[float]]  # of each peer, seconds of a step in every round


def main(
    shape: Annotated[str, typer.Option(help="One of 370M, 1.3B, 2.7B.")] = "370M",
    repeat: Annotated[int, typer.Option(help="Rounds.", min=7)] = 15,
    cpu: Annotated[int, typer.Option(help="The CPU that all of them run on.", min=0)] = 0,
    folder: Annotated[Path, typer.Option(help="Where files are kept.")] = ROOT / "build" / "bench",
) -> None:
    """Print steps per second and their ratio to the products; write all samples as JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    size = Shape.of(shape)
    jobs = {name: Job(name, size, folder.resolve(), 1) for name in (*EXACT, PRODUCTS.name)}
    for name in jobs:
        prepare(Job(name, size, folder.resolve(), None), _log(folder, name))
    os.sched_setaffinity(0, {cpu})  # of the workers too
    samples = _measured(jobs, folder, repeat)
    typer.echo(report(samples))
    (folder / "onnx_decode.json").write_text(json.dumps(samples, indent=1) + "\n")


def _measured(jobs: Mapping[str, Job], folder: Path, repeat: int) -> Samples:
    samples: dict[str, list[float]] = {name: [] for name in jobs}
    with ExitStack() as stack:
        workers = {
            name: stack.enter_context(Worker(job, _log(folder, name))) for name, job in jobs.items()
        }
        for _ in range(repeat):
            for name, worker in workers.items():
                samples[name].append(worker.ask(TASK)["seconds"])
    return samples


def report(samples: Samples) -> str:
    """A table: tokens per second, and the speed relative to that of the products."""
    products, rows = samples[PRODUCTS.name], []
    for name, seconds in samples.items():
        ratios = [bare / own for bare, own in zip(products, seconds, strict=True)]
        speed, ratio = 1 / statistics.median(seconds), statistics.median(ratios)
        rows.append(((PEERS | EXACT)[name].title, number(speed), f"{ratio:.2f}"))
    return table(("model", "tokens per second", "speed relative to products"), rows)


def _log(folder: Path, name: str) -> Path:
    return folder / f"{name.replace(':', '-')}.log"


if __name__ == "__main__":
    command.run(main)
