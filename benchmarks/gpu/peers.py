"""The table of what is measured side by side on a GPU, this project first.

A peer's module has `open_model(job)`, which returns an Opened, and where the peer reads files,
`prepare(job)`, which makes them and returns facts about them. Both run in child processes.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, Self, cast

from benchmarks.gpu.tasks import TASKS
from benchmarks.shapes import Shape
from benchmarks.tasks import Task


@dataclass(frozen=True)
class GpuJob:
    """What a worker is started for; without a task it prepares files only.

    Files are in `folder`; `compiled` has those that models.py made elsewhere, if any.
    """

    peer: str
    shape: Shape
    folder: Path
    compiled: Path | None = None
    task: Task | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """The inverse of `text`."""
        keys = json.loads(text)
        folder, compiled = Path(keys["folder"]), keys["compiled"] and Path(keys["compiled"])
        task = keys["task"] and TASKS[keys["task"]]
        return cls(keys["peer"], Shape(**keys["shape"]), folder, compiled, task)

    @property
    def text(self) -> str:
        names = {"task": self.task.name if self.task else None}
        return json.dumps(asdict(self) | names, default=str)


@dataclass(frozen=True)
class Opened:
    """A model that is ready, and warm.

    `facts` go into the document beside the figure: `weight_bytes` are the bytes of weights that a
    call reads. `sample` measures once: seconds per call of the job's task.
    """

    sample: Callable[[], float]
    facts: Mapping[str, int] = field(default_factory=dict)


class Module(Protocol):
    """The functions of a peer's module."""

    def prepare(self, job: GpuJob) -> dict[str, Any]: ...
    def open_model(self, job: GpuJob) -> Opened: ...


@dataclass(frozen=True)
class GpuPeer:
    """`name` on the command line, `title` in tables, the distributions that it needs, its `tasks`.

    One with `files` is prepared first. One that is `slow` to open is opened for all tasks of a
    shape at once.
    """

    name: str
    title: str
    module: str
    packages: tuple[str, ...]
    tasks: frozenset[str]
    option: str = ""
    files: bool = False
    slow: bool = False

    @property
    def missing(self) -> str:
        """Why it cannot run here; empty when it can."""
        absent = [name for name in self.packages if name not in self.versions]
        return f"not installed: {', '.join(absent)}" if absent else ""

    @property
    def versions(self) -> dict[str, str]:
        """Distribution -> version, for those that are installed."""
        found = {}
        for name in self.packages:
            try:
                found[name] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                continue
        return found

    def load(self) -> Module:
        """Import its module."""
        return cast(Module, import_module(f"benchmarks.gpu.{self.module}"))


OURS, CPU, DRAM = "mmfree", "cpu", "dram"
_TORCH = ("torch", "triton")
_ALL = frozenset(TASKS)
_RUNNING = _ALL - {"load"}
# Batch 8 is there for the CPU's matrix units, and compiling for it would take another minute.
_PEERS = _RUNNING - {"decode-8"}
_TABLE = (
    GpuPeer(OURS, "mmfree", "ours", ("cuda-bindings",), _ALL, "cuda", files=True),
    GpuPeer("eager", "torch eager", "torch_peer", _TORCH, _PEERS, "eager"),
    GpuPeer("graph", "torch eager in a CUDA graph", "torch_peer", _TORCH, _PEERS, "graph"),
    GpuPeer("compile", "torch.compile", "torch_peer", _TORCH, _PEERS, "compile", slow=True),
    GpuPeer("cublas", "cuBLAS bf16 products alone", "products", ("torch",), _PEERS, "bfloat16"),
    GpuPeer(
        "int_mm",
        "torch._int_mm products alone",
        "products",
        ("torch",),
        frozenset({"decode-64", "decode-256", "prefill-512", "prefill-2048"}),
        "int8",
    ),
    GpuPeer(DRAM, "DRAM read", "dram", ("torch",), _RUNNING),
    GpuPeer(
        CPU,
        "mmfree, target cpu",
        "ours",
        (),
        _ALL - {"decode-64", "decode-256"},
        "cpu",
        files=True,
    ),
)
PEERS = {peer.name: peer for peer in _TABLE}
