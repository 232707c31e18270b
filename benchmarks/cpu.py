"""Measure compiled models on this CPU, beside its limits and other engines.

`python benchmarks/cpu.py --shapes 370M,1.3B --threads 1,2` compiles random checkpoints of the
published shapes, runs every installed peer, interleaved, each in its own process, and writes JSON,
the tables of docs/benchmarks.md and plots. Results of other shapes, thread counts and tasks stay in
the JSON, so a long benchmark can be run in pieces.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmarks import command, plots, report
from benchmarks.ceilings import Ceilings
from benchmarks.peers import OURS, PEERS
from benchmarks.processes import ROOT, Worker, WorkerError, prepare
from benchmarks.rounds import measure
from benchmarks.shapes import Shape
from benchmarks.tasks import TASKS
from benchmarks.worker import Job
from mmfree_compiler.backends.cpu.features import processor
from mmfree_compiler.cli.bench import thread_counts
from mmfree_compiler.doctor import examine
from mmfree_compiler.errors import InputError
from mmfree_compiler.wording import counted

PAGE = ROOT / "docs" / "benchmarks.md"
PICTURES = ROOT / "docs" / "images"
progress = Console(stderr=True, highlight=False)


def main(
    shapes: Annotated[str, typer.Option(help="Some of 370M, 1.3B, 2.7B.")] = "370M,1.3B",
    threads: Annotated[str, typer.Option(help="Thread counts.")] = "1,2",
    peers: Annotated[str, typer.Option(help=f"Some of {', '.join(PEERS)}.")] = ",".join(PEERS),
    tasks: Annotated[str, typer.Option(help=f"Some of {', '.join(TASKS)}.")] = ",".join(TASKS),
    repeat: Annotated[int, typer.Option(help="Rounds.", min=5)] = 5,
    fresh: Annotated[bool, typer.Option(help="Compile again, or use what is there.")] = True,
    folder: Annotated[Path, typer.Option(help="Where files are kept.")] = ROOT / "build" / "bench",
    publish: Annotated[bool, typer.Option(help="Write docs/benchmarks.md and plots.")] = True,
) -> None:
    """Measure, write cpu.json into the folder, and publish."""
    folder.mkdir(parents=True, exist_ok=True)
    run = Run(folder, _chosen(peers, PEERS, "peers"), _chosen(tasks, TASKS, "tasks"), repeat)
    counts = thread_counts(threads)
    for shape in map(Shape.of, shapes.split(",")):
        run.prepare(shape, fresh)
        for count in counts:
            run.measure(shape, count)
            run.save()
    if publish:
        report.publish(run.document, PAGE)
        plots.draw(run.document, PICTURES)


def _chosen(listed: str, known: Mapping[str, object], what: str) -> list[str]:
    """In the order of the table: decoding comes first, so that its peak memory is its own."""
    names = listed.split(",")
    if unknown := [name for name in names if name not in known]:
        raise InputError(what, f"unknown: {', '.join(unknown)}", f"Known: {', '.join(known)}")
    return [name for name in known if name in names]


class Run:
    """A run of the benchmark over its document, build/bench/cpu.json."""

    def __init__(self, folder: Path, peers: list[str], tasks: list[str], repeat: int) -> None:
        self.folder, self.peers, self.tasks, self.repeat = folder, peers, tasks, repeat
        self.path = folder / "cpu.json"
        before = json.loads(self.path.read_text()) if self.path.exists() else {}
        self.document = {"shapes": {}, "groups": []} | before | {"machine": machine()}
        self.ceilings = Ceilings(folder)
        self.skipped: dict[str, str] = {}

    def prepare(self, shape: Shape, fresh: bool) -> None:
        """Let every peer that can run the shape write its files."""
        facts = self.document["shapes"].setdefault(shape.name, {})
        facts["shape"] = asdict(shape)
        self.skipped = {}
        for name in self.peers:
            try:
                if reason := PEERS[name].missing(shape, _free_bytes()):
                    raise WorkerError(reason)
                if name != OURS or fresh or OURS not in facts:
                    progress.print(f"{shape.name}: prepare {name}")
                    facts[name] = prepare(self._job(name, shape, None), self._log(name))
            except WorkerError as error:
                self._skip(name, str(error), self.skipped)

    def measure(self, shape: Shape, threads: int) -> None:
        """All tasks, all peers interleaved."""
        with ExitStack() as stack:
            skipped = dict(self.skipped)
            workers = dict(self._open(shape, threads, stack, skipped))
            for name in self.tasks:
                progress.print(f"{shape.name}, {counted(threads, 'thread')}: {name}")
                task = TASKS[name]
                able = {p: w for p, w in workers.items() if task.kind in PEERS[p].kinds}
                group = measure(task, able, lambda: self.ceilings.measure(threads), self.repeat)
                skipped |= group["skipped"]
                workers = {peer: w for peer, w in workers.items() if peer not in skipped}
                place = {"shape": shape.name, "threads": threads, "skipped": dict(skipped)}
                self._keep(group | place)

    def save(self) -> None:
        """Write the document."""
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps(self.document, indent=1) + "\n")
        partial.replace(self.path)

    def _open(
        self, shape: Shape, threads: int, stack: ExitStack, skipped: dict[str, str]
    ) -> Iterator[tuple[str, Worker]]:
        """Open the peers one after another; those that fail are added to `skipped`."""
        for name in (peer for peer in self.peers if peer not in skipped):
            progress.print(f"{shape.name}, {counted(threads, 'thread')}: open {name}")
            try:
                if reason := PEERS[name].missing(shape, _free_bytes()):
                    raise WorkerError(reason)
                job = self._job(name, shape, threads)
                yield name, stack.enter_context(Worker(job, self._log(name)))
            except WorkerError as error:
                self._skip(name, str(error), skipped)

    def _keep(self, group: dict[str, Any]) -> None:
        """Put the group into the document."""
        versions = {name: PEERS[name].versions() for name in group["figures"]}
        group |= {"time": datetime.now(UTC).isoformat(timespec="seconds"), "versions": versions}
        report.keep(self.document, group)

    def _job(self, peer: str, shape: Shape, threads: int | None) -> Job:
        return Job(peer, shape, self.folder.resolve(), threads)

    def _log(self, peer: str) -> Path:
        return self.folder / f"{peer}.log"

    @staticmethod
    def _skip(peer: str, reason: str, skipped: dict[str, str]) -> None:
        progress.print(f"  without {peer}: {reason}")
        skipped[peer] = reason


def machine() -> dict[str, str]:
    """A description of this machine, as `mmfree doctor` sees it."""
    found = {check.name: check.found for check in examine()}
    return {"system": platform.platform(), "processor": processor(), **found}


def _free_bytes() -> int:
    """Memory that a new process may use, by Linux's estimate."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    kib = next(line.split()[1] for line in lines if line.startswith("MemAvailable:"))
    return int(kib) * 1024


if __name__ == "__main__":
    command.run(main)
