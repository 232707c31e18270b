"""Decode beside other busy processes: `python benchmarks/contention.py model.mmfree --threads 1,2`.

With `--train CORPUS` it measures the first steps of `mmfree train` too. Endless loops keep no CPU,
then one, then every CPU busy; each loop is as heavy as one thread. Scenes and numbers of threads
alternate within a round, so that a slow drift of the machine affects all of them alike.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from mmfree_compiler.cli.measure import Spread
from mmfree_compiler.runtime import Session, load
from mmfree_compiler.wording import counted

LOOP = "while True: pass"
TRAIN_STEPS = 8
CPUS = sorted(os.sched_getaffinity(0))
# The CPUs that each loop may use. A single loop runs where the kernel puts it.
SCENES: dict[str, list[list[int]]] = {
    "idle": [],
    "one CPU busy": [CPUS],
    "all CPUs busy": [[cpu] for cpu in CPUS],
}

Meters = dict[int, Callable[[], float]]


def main(
    models: Annotated[list[Path] | None, typer.Argument()] = None,
    threads: Annotated[str, typer.Option()] = "1,2",
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    seconds: Annotated[float, typer.Option(help="Length of each measurement.")] = 1.0,
    train: Annotated[str | None, typer.Option(help="A corpus: measure training on it.")] = None,
    output: Annotated[Path, typer.Option()] = Path("build/bench/contention.json"),
) -> None:
    """Print tokens/s in every scene and its fraction of the idle speed; write them as JSON."""
    table = Table("model", "threads", "scene", "tok/s", "lowest", "highest", "of idle", box=None)
    found = {}
    counts = [int(count) for count in threads.split(",")]
    for name, meters in _subjects(models or [], train, counts, seconds).items():
        spreads = _measure(meters, rounds)
        for (count, scene), spread in spreads.items():
            ratio = spread.median / spreads[count, "idle"].median
            figures = (spread.median, spread.low, spread.high)
            table.add_row(name, str(count), scene, *(f"{x:,.1f}" for x in figures), f"{ratio:.0%}")
            place = f"{name}, {counted(count, 'thread')}, {scene}"
            found[place] = asdict(spread) | {"of_idle": ratio}
    Console().print(table)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(found, indent=1) + "\n")


def _subjects(
    models: list[Path], corpus: str | None, counts: list[int], seconds: float
) -> dict[str, Meters]:
    """By name: what returns tokens per second, for each number of threads."""
    found: dict[str, Meters] = {}
    for path in models:
        sessions = {count: load(path, count) for count in counts}
        found[path.stem] = {n: partial(_decode, s, seconds) for n, s in sessions.items()}
    if corpus is not None:
        found["training"] = {count: partial(_train, corpus, count) for count in counts}
    return found


def _measure(meters: Meters, rounds: int) -> dict[tuple[int, str], Spread]:
    samples: dict[tuple[int, str], list[float]] = {
        (count, scene): [] for count in meters for scene in SCENES
    }
    for _ in range(rounds):
        for scene, loops in SCENES.items():
            with _busy(loops):
                for count, meter in meters.items():
                    samples[count, scene].append(meter())
    return {key: Spread.of(speeds) for key, speeds in samples.items()}


@contextmanager
def _busy(loops: list[list[int]]) -> Iterator[None]:
    """Endless loops, each on its CPUs, while the body runs."""
    with ExitStack() as stack:
        for cpus in loops:
            process = stack.enter_context(subprocess.Popen([sys.executable, "-c", LOOP]))
            stack.callback(process.kill)
            os.sched_setaffinity(process.pid, cpus)
        time.sleep(0.2 if loops else 0)  # until they run
        yield


def _decode(session: Session, seconds: float) -> float:
    _tokens_per_second(session, seconds)  # until the session has settled
    return _tokens_per_second(session, seconds)


def _tokens_per_second(session: Session, seconds: float) -> float:
    generation = session.generate([0], max_new_tokens=1 << 30, temperature=0, stop_tokens=())
    next(generation)
    begin = time.perf_counter()
    while (elapsed := time.perf_counter() - begin) < seconds:
        next(generation)
    return (len(generation.tokens) - 1) / elapsed


def _train(corpus: str, threads: int) -> float:
    """The first steps of the default model, as a user starts it."""
    with tempfile.TemporaryDirectory() as folder:
        options = ("--output", f"{folder}/run", "--threads", str(threads), "--json")
        command = [sys.executable, "-m", "mmfree_compiler", "train", corpus, *options]
        done = subprocess.run(
            [*command, "--steps", str(TRAIN_STEPS)], capture_output=True, text=True, check=True
        )
    speed: float = json.loads(done.stdout)["tokens_per_second"]
    return speed


if __name__ == "__main__":
    typer.run(main)
