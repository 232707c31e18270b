"""Decode of the exact ONNX models beside their products: `python -m benchmarks.onnx_decode`.

Both variants of the target, and the peer "onnxruntime", which has the ternary products alone,
without sentinels, norms, gates and recurrence, take turns in one process, on one CPU and thread.
Figures are CPU time, which other processes change least; ratios are medians of those of a round.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import command
from benchmarks.peers import PEERS, Peer, Step
from benchmarks.processes import ROOT
from benchmarks.shapes import Shape
from benchmarks.tables import number, table
from benchmarks.worker import seconds_per_step

_PACKAGES = ("mmfree-compiler", "onnxruntime", "onnx")
PRODUCTS = PEERS["onnxruntime"]
MODELS = (
    Peer("onnx", "mmfree onnx", "mmfree", _PACKAGES, 1.5, "onnx"),
    Peer("onnx:ms", "mmfree onnx:ms", "mmfree", _PACKAGES, 1.5, "onnx:ms"),
    PRODUCTS,
)

Samples = Mapping[str, list[float]]  # of each model, seconds of a step in every round


def main(
    shape: Annotated[str, typer.Option(help="One of 370M, 1.3B, 2.7B.")] = "370M",
    repeat: Annotated[int, typer.Option(help="Rounds.", min=7)] = 15,
    cpu: Annotated[int, typer.Option(help="The CPU to run on.", min=0)] = 0,
    folder: Annotated[Path, typer.Option(help="Where files are kept.")] = ROOT / "build" / "bench",
) -> None:
    """Print tokens per second and the ratio to the products; write all samples as JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    steps = {model.name: _step(model, Shape.of(shape), folder) for model in MODELS}
    os.sched_setaffinity(0, {cpu})
    samples = measured(steps, repeat)
    typer.echo(report(samples))
    (folder / "onnx_decode.json").write_text(json.dumps(samples, indent=1) + "\n")


def _step(model: Peer, shape: Shape, folder: Path) -> Step:
    """A decode step of one sequence, run once."""
    module = model.load()
    module.prepare(shape, folder, model.option)
    step = module.open_model(shape, folder, model.option, 1).steps["decode"](1)
    step()
    return step


def measured(steps: Mapping[str, Step], repeat: int) -> Samples:
    """CPU seconds of each step, in turn in every round."""
    samples: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeat):
        for name, step in steps.items():
            samples[name].append(seconds_per_step(step, time.process_time))
    return samples


def report(samples: Samples) -> str:
    """A table: tokens per second, and the speed relative to that of the products."""
    products, rows = samples[PRODUCTS.name], []
    titles = {model.name: model.title for model in MODELS}
    for name, seconds in samples.items():
        ratios = [bare / own for bare, own in zip(products, seconds, strict=True)]
        speed, ratio = 1 / statistics.median(seconds), statistics.median(ratios)
        rows.append((titles[name], number(speed), f"{ratio:.2f}"))
    return table(("model", "tokens per second", "speed relative to products"), rows)


if __name__ == "__main__":
    command.run(main)
