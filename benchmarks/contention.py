"""Decode beside other busy processes: `python benchmarks/contention.py model.mmfree --threads 1,2`.

Endless loops keep no CPU, then one, then every CPU busy; each loop is as heavy as one thread of a
session. Scenes and numbers of threads alternate within a round, so that a slow drift of the machine
affects all of them alike.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from mmfree_compiler.cli.measure import Spread
from mmfree_compiler.runtime import Session, load
from mmfree_compiler.wording import counted

LOOP = "while True: pass"
CPUS = sorted(os.sched_getaffinity(0))
# The CPUs that each loop may use. A single loop runs where the kernel puts it.
SCENES: dict[str, list[list[int]]] = {
    "idle": [],
    "one CPU busy": [CPUS],
    "all CPUs busy": [[cpu] for cpu in CPUS],
}


def main(
    models: list[Path],
    threads: Annotated[str, typer.Option()] = "1,2",
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    seconds: Annotated[float, typer.Option(help="Length of each measurement.")] = 1.0,
    output: Annotated[Path, typer.Option()] = Path("build/bench/contention.json"),
) -> None:
    """Print tokens/s in every scene and its fraction of the idle speed; write them as JSON."""
    table = Table("model", "threads", "scene", "tok/s", "lowest", "highest", "of idle", box=None)
    found = {}
    for path in models:
        sessions = {int(count): load(path, int(count)) for count in threads.split(",")}
        spreads = _measure(sessions, rounds, seconds)
        for (count, scene), spread in spreads.items():
            ratio = spread.median / spreads[count, "idle"].median
            figures = (spread.median, spread.low, spread.high)
            table.add_row(
                path.stem, str(count), scene, *(f"{x:,.1f}" for x in figures), f"{ratio:.0%}"
            )
            place = f"{path.stem}, {counted(count, 'thread')}, {scene}"
            found[place] = asdict(spread) | {"of_idle": ratio}
    Console().print(table)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(found, indent=1) + "\n")


def _measure(
    sessions: dict[int, Session], rounds: int, seconds: float
) -> dict[tuple[int, str], Spread]:
    samples: dict[tuple[int, str], list[float]] = {
        (count, scene): [] for count in sessions for scene in SCENES
    }
    for _ in range(rounds):
        for scene, loops in SCENES.items():
            with _busy(loops):
                for count, session in sessions.items():
                    _tokens_per_second(session, seconds)  # until the session has settled
                    samples[count, scene].append(_tokens_per_second(session, seconds))
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


def _tokens_per_second(session: Session, seconds: float) -> float:
    generation = session.generate([0], max_new_tokens=1 << 30, temperature=0, stop_tokens=())
    next(generation)
    begin = time.perf_counter()
    while (elapsed := time.perf_counter() - begin) < seconds:
        next(generation)
    return (len(generation.tokens) - 1) / elapsed


if __name__ == "__main__":
    typer.run(main)
