"""The table of engines that are measured side by side, this project first.

A peer's module has `prepare(shape, folder, option)`, which makes the file that the peer reads and
returns facts about it, and `open_model(shape, folder, option, threads)`, which returns a Model.
Both run in child processes, so that only those import the peer's packages.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

from benchmarks.shapes import Shape

Step = Callable[[], Any]
MIB = 1 << 20


class Model(Protocol):
    """An opened model. What prepares a step, such as the state of a prompt, is not measured.

    `weight_bytes` are the bytes of weights that a decode step reads. `steps` maps a task's kind to
    a function that takes the task's size and returns the step to measure.
    """

    @property
    def weight_bytes(self) -> int: ...
    @property
    def steps(self) -> dict[str, Callable[[int], Step]]: ...


class Module(Protocol):
    """The functions of a peer's module."""

    def prepare(self, shape: Shape, folder: Path, option: str) -> dict[str, Any]: ...
    def open_model(self, shape: Shape, folder: Path, option: str, threads: int) -> Model: ...


@dataclass(frozen=True)
class Peer:
    """An engine: its `name` on the command line, its `title` in tables.

    `packages` are the distributions that it needs, `kinds` the tasks that it can do,
    `bytes_per_weight` roughly what it keeps in memory for each weight.
    """

    name: str
    title: str
    module: str
    packages: tuple[str, ...]
    bytes_per_weight: float
    option: str = ""
    kinds: tuple[str, ...] = ("decode", "prefill")

    def missing(self, shape: Shape, free_bytes: int) -> str:
        """Why it cannot run `shape` here; empty when it can."""
        absent = [package for package in self.packages if _version(package) is None]
        if absent:
            return f"not installed: {', '.join(absent)}"
        needed = int(self.bytes_per_weight * shape.parameters)
        if needed > free_bytes:
            return f"needs {needed / MIB:,.0f} MiB of memory, {free_bytes / MIB:,.0f} are free"
        return ""

    def versions(self) -> dict[str, str]:
        """Distribution -> version, for those that are installed."""
        found = {package: _version(package) for package in self.packages}
        return {package: version for package, version in found.items() if version}

    def load(self) -> Module:
        """Import its module."""
        return cast(Module, import_module(f"benchmarks.peers.{self.module}"))


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


OURS = "mmfree"
_LLAMA = ("llama-cpp-python", "gguf")
_TABLE = (
    Peer(OURS, "mmfree", "mmfree", ("mmfree-compiler",), 0.5, kinds=("decode", "prefill", "load")),
    Peer("llama-tq2_0", "llama.cpp TQ2_0", "llama", _LLAMA, 0.6, "TQ2_0"),
    Peer("llama-tq1_0", "llama.cpp TQ1_0", "llama", _LLAMA, 0.6, "TQ1_0"),
    Peer("onnxruntime", "ONNX Runtime 2-bit", "ort", ("onnxruntime", "onnx"), 1.0),
    Peer("torch", "torch eager fp32", "torch_model", ("torch",), 5.0, "eager"),
    Peer("torch-compile", "torch.compile fp32", "torch_model", ("torch",), 5.0, "compile"),
)
PEERS = {peer.name: peer for peer in _TABLE}
