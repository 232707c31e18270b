"""The table of backends, each imported when first asked for: their compilers are extras."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Literal

from mmfree_compiler.artifact import Artifact
from mmfree_compiler.errors import ToolchainError
from mmfree_compiler.program import Program
from mmfree_compiler.runtime.launcher import Launcher
from mmfree_compiler.target import Target

Density = float | Literal["auto"]  # bits a packed weight


@dataclass(frozen=True)
class Details:
    """What an artifact tells beside its program: see the fields of the same names in Manifest."""

    model: Mapping[str, object]
    quantization: Mapping[str, str]
    passes: tuple[str, ...]
    notes: tuple[tuple[str, str, str], ...]
    tokenizer: bytes | None = None


@dataclass(frozen=True)
class Choice:
    """A name of `layouts.LAYOUTS` (None: weights stay codes), and why it was chosen."""

    layout: str | None
    reason: str


@dataclass(frozen=True)
class Backend:
    """One way to run a Program.

    `lowered` are the ops it has a lowering for; `layout` chooses how ternary weights are packed,
    and raises InputError when it cannot have the density. `emit` makes the artifact. `launcher` is
    set when a program can only run in the process that compiled it: such an artifact is not saved.
    """

    name: str
    lowered: frozenset[str]
    layout: Callable[[Program, Target, Density], Choice]
    emit: Callable[[Program, Target, Details], Artifact]
    launcher: Callable[[Program], Launcher] | None = None


_MODULES = {
    "cpu": ("mmfree_compiler.backends.cpu", "mmfree-compiler[cpu]"),
    "reference": ("mmfree_compiler.backends.reference", "mmfree-compiler[compile]"),
}


def get(kind: str) -> Backend:
    """The backend of a target's kind. Raises ToolchainError when its compiler is not installed."""
    module, extra = _MODULES[kind]
    try:
        backend: Backend = import_module(module).BACKEND
    except ImportError as error:
        raise ToolchainError(
            f"target {kind}", f"{error.name} is not installed", f"pip install '{extra}'"
        ) from error
    return backend
