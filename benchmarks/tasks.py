"""What is measured: tasks, and the work that one call of each does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from benchmarks.shapes import Shape

Kind = Literal["decode", "prefill", "load"]


@dataclass(frozen=True)
class Task:
    """`decode`: one token for each of `size` sequences; `prefill`: `size` tokens of one sequence,
    and the logits of the last; `load`: open the model.
    """

    kind: Kind
    size: int = 0

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.size}" if self.size else self.kind

    @property
    def label(self) -> str:
        """Its name in tables."""
        return LABELS[self.kind].format(self.size)

    def multiply_adds(self, shape: Shape) -> int:
        """Multiply-adds of one call; the head runs once per sequence."""
        sequences = self.size if self.kind == "decode" else 1
        return self.size * shape.body_weights + sequences * shape.head_weights


LABELS = {"decode": "decode, batch {}", "prefill": "prefill, {} tokens", "load": "load"}
TASKS = {
    task.name: task
    for task in (
        Task("decode", 1),
        Task("decode", 8),
        Task("prefill", 128),
        Task("prefill", 512),
        Task("load"),
    )
}
