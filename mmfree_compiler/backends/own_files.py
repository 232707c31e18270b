"""The interface of backends whose models are also files of another form, such as .onnx."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from mmfree_compiler.artifact import Artifact
from mmfree_compiler.backends.interface import Backend


@dataclass(frozen=True)
class Imported:
    """A model that was read to be compiled: a `module` of torch, and `examples` of its inputs.

    The module raises CheckpointError where the file contradicts itself, and InputError on another
    number of inputs.

    The rest goes into the artifact: see sources.Source.
    """

    module: Any
    examples: tuple[Any, ...]
    model: Mapping[str, Any] = field(default_factory=dict)
    quantization: Mapping[str, str] = field(default_factory=dict)
    tokenizer: bytes | None = None


@runtime_checkable
class OwnFiles(Backend, Protocol):
    """A backend whose models are also saved in a form that other programs read and write."""

    def write(self, artifact: Artifact, path: Path) -> None:
        """Write an artifact of this target alone, completely or not at all.

        Raises ArtifactError if `path` cannot be written.
        """

    def read(self, path: Path, verify: bool) -> Artifact:
        """The artifact in a file that `write` wrote. Raises ArtifactError on any other.

        `verify` reads all weights to check their hashes.
        """

    def imported(self, path: Path) -> Imported:
        """A file of others, or one that `write` wrote, to be compiled for any target.

        Raises CheckpointError, and ImportError if `extra` is not installed.
        """


@runtime_checkable
class OthersEngine(Backend, Protocol):
    """A backend whose models run in an engine of somebody else: a second opinion."""

    @property
    def engine(self) -> str:
        """What it is called, such as the package that it comes in."""
