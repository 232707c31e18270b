"""Running the peers: each task of each peer in a process of its own, which may fail or hang."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from benchmarks.gpu.peers import PEERS, GpuJob
from benchmarks.gpu.tasks import TASKS
from benchmarks.processes import Limits, Worker, WorkerError
from benchmarks.rounds import measure
from benchmarks.shapes import Shape
from benchmarks.tasks import Task

LIMITS = Limits(opening=400.0, answer=60.0)  # several torch.compile at once take minutes
WORKER = "benchmarks.gpu.worker"


@dataclass
class ShapeRun:
    """The processes of one shape; leaving it ends all of them.

    `skipped` has the reason why a peer has no figures for this shape, `prepared` the facts about
    the files of the others. `say` gets lines about the progress.
    """

    shape: Shape
    folder: Path
    compiled: Path | None
    say: Callable[[str], object]
    worker: str = WORKER
    limits: Limits = LIMITS
    skipped: dict[str, str] = field(default_factory=dict)
    prepared: dict[str, dict[str, Any]] = field(default_factory=dict)
    _workers: list[Worker] = field(default_factory=list)
    _opening: dict[tuple[str, str], Future[Worker]] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self._pool = ThreadPoolExecutor(len(PEERS) * len(TASKS))
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._close(list(self._workers))

    def prepare(self, peers: Iterable[str]) -> None:
        """Let the peers write their files; a peer that fails or is not installed is skipped."""
        self.skipped = {peer: reason for peer in peers if (reason := PEERS[peer].missing)}
        able = [peer for peer in peers if PEERS[peer].files and peer not in self.skipped]
        futures = {peer: self._pool.submit(self._started, peer) for peer in able}
        opened, failed = _results(futures)
        self.prepared = {peer: worker.opened for peer, worker in opened.items()}
        self._close(list(opened.values()))
        self.skipped |= failed

    def open_slow(self, peers: Iterable[str], tasks: Iterable[Task]) -> None:
        """Open those that take long for all tasks at once, and wait for them."""
        slow = [peer for peer in peers if PEERS[peer].slow]
        wait([future for task in tasks for future in self._open(slow, task).values()])

    def measured(self, task: Task, peers: Sequence[str], repeat: int) -> dict[str, Any]:
        """A group of the document: `repeat` rounds of a task, all peers interleaved."""
        able = [peer for peer in peers if task.name in PEERS[peer].tasks]
        workers, failed = _results(self._open(able, task))
        group = measure(task, workers, dict, repeat)
        self._close(list(workers.values()))
        time = datetime.now(UTC).isoformat(timespec="seconds")
        for peer, figure in group["figures"].items():
            figure |= {"time": time, "versions": PEERS[peer].versions}
        reasons = {peer: reason for peer, reason in self.skipped.items() if peer in able}
        group["skipped"] |= reasons | failed
        for peer, reason in group["skipped"].items():
            self.say(f"{self.shape.name}, {task.name}: without {peer}: {reason}")
        return group | {"shape": self.shape.name}

    def _open(self, peers: Iterable[str], task: Task) -> dict[str, Future[Worker]]:
        """Start those that are not started; a peer that is skipped is left out."""
        found = {}
        for peer in peers:
            key = peer, task.name
            if task.name in PEERS[peer].tasks and peer not in self.skipped:
                if key not in self._opening:
                    self._opening[key] = self._pool.submit(self._started, peer, task)
                found[peer] = self._opening[key]
        return found

    def _started(self, peer: str, task: Task | None = None) -> Worker:
        compiled = self.compiled and self.compiled.resolve()
        job = GpuJob(peer, self.shape, self.folder.resolve(), compiled, task)
        log = self.folder / f"{peer}-{task.name if task else 'prepare'}.log"
        worker = Worker(job, log, self.worker, limits=self.limits)
        self._workers.append(worker)
        return worker

    def _close(self, workers: Iterable[Worker]) -> None:
        for worker in workers:
            self._workers.remove(worker)
            worker.close()


def _results(futures: dict[str, Future[Worker]]) -> tuple[dict[str, Worker], dict[str, str]]:
    """The workers that opened, and why others did not."""
    workers, failed = {}, {}
    for peer, future in futures.items():
        try:
            workers[peer] = future.result()
        except WorkerError as error:
            failed[peer] = str(error)
    return workers, failed
