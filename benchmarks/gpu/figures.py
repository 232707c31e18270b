"""The document's groups, and the arithmetic on them."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from benchmarks.gpu.document import Document
from benchmarks.gpu.peers import DRAM, OURS
from benchmarks.gpu.tasks import TASKS
from benchmarks.shapes import Shape
from benchmarks.tasks import Task


@dataclass(frozen=True)
class Group:
    """The figures of a shape and a task, by peer."""

    shape: Shape
    task: Task
    figures: dict[str, dict[str, Any]]

    @classmethod
    def of(cls, document: Document) -> list[Group]:
        """All groups of a document, the smallest shape first."""
        return [
            cls(Shape.of(group["shape"]), TASKS[group["task"]], group["figures"])
            for group in document["groups"]
        ]

    def seconds(self, peer: str) -> float:
        """The median seconds per call."""
        return float(self.figures[peer]["seconds"]["median"])

    def times(self, peer: str) -> float:
        """How many times as long as ours a peer takes."""
        return self.seconds(peer) / self.seconds(OURS)

    def together(self, peer: str) -> bool:
        """Whether its figure and ours are of the same rounds."""
        return bool(self.figures[peer]["time"] == self.figures[OURS]["time"])

    def tokens_per_second(self, peer: str) -> float:
        """Tokens of all sequences."""
        return self.task.size / self.seconds(peer)

    def operations_per_second(self, peer: str) -> float:
        """Multiplications and additions of the model's products, each one operation."""
        return 2 * self.task.multiply_adds(self.shape) / self.seconds(peer)

    def read_rate(self, peer: str) -> float:
        """Bytes of weights per second."""
        return float(self.figures[peer]["weight_bytes"]) / self.seconds(peer)


def dram_rate(groups: Iterable[Group]) -> float | None:
    """The median of all measured rates of reading memory: bytes per second."""
    rates = [group.read_rate(DRAM) for group in groups if DRAM in group.figures]
    return statistics.median(rates) if rates else None


@dataclass(frozen=True)
class Fit:
    """Least squares over shapes: seconds = `start` + bytes of weights / `rate`."""

    start: float
    rate: float

    @classmethod
    def of(cls, points: Iterable[tuple[float, float]]) -> Fit | None:
        """The fit of (bytes, seconds); None with fewer than two sizes."""
        pairs = list(points)
        if len({nbytes for nbytes, _ in pairs}) < 2:
            return None
        slope, start = statistics.linear_regression(*zip(*pairs, strict=True))
        return cls(start, 1 / slope if slope else float("inf"))
