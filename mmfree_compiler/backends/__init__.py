"""The table of backends. Each is imported on first use; other packages can add their own.

A package adds a backend with an entry point in the group "mmfree_compiler.backends", whose name is
the kind of target. See docs/extending.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import cast

from mmfree_compiler.backends.interface import Backend, Compiler, Launcher, Spec
from mmfree_compiler.errors import TargetError, ToolchainError
from mmfree_compiler.target import Target

# kind -> the package that defines its BACKEND
BUILT_IN = {
    "cpu": "mmfree_compiler.backends.cpu",
    "cuda": "mmfree_compiler.backends.cuda",
    "fpga": "mmfree_compiler.backends.fpga",
    "onnx": "mmfree_compiler.backends.onnx",
    "reference": "mmfree_compiler.backends.reference",
}
GROUP = "mmfree_compiler.backends"


def kinds() -> tuple[str, ...]:
    """All kinds of target, the built-in ones first."""
    return (*BUILT_IN, *sorted(_installed().keys() - BUILT_IN.keys()))


def get(kind: str) -> Backend:
    """The backend of a kind of target.

    Raises TargetError when there is none, ToolchainError when an installed one does not load.
    """
    if kind in BUILT_IN:
        return cast(Backend, import_module(BUILT_IN[kind]).BACKEND)
    installed = _installed()
    if kind not in installed:
        raise TargetError(f"target {kind!r}", "is unknown", f"Known: {', '.join(kinds())}")
    try:
        return cast(Backend, installed[kind].load())
    except Exception as error:  # a third party's module may raise anything
        hint = f"Upgrade or remove the package that declares {installed[kind].value}"
        raise ToolchainError(f"target {kind!r}", f"does not load: {error}", hint) from error


def of(target: str | Target) -> tuple[Backend, Spec]:
    """A target's backend, and the Spec of its options. Raises TargetError."""
    goal = Target.parse(target)
    backend = get(goal.kind)
    return backend, backend.parse(goal.options)


def compiler(backend: Backend) -> Compiler:
    """The half that compiles. Raises ToolchainError when its packages do not load."""
    with installed_for(backend, "compiling", backend.extra):
        return backend.compiler()


def launcher(backend: Backend) -> type[Launcher]:
    """The half that runs. Raises ToolchainError when its packages do not load."""
    with installed_for(backend, "running", backend.extra.partition("[")[0]):
        return backend.launcher()


@contextmanager
def installed_for(backend: Backend, what: str, distribution: str) -> Iterator[None]:
    """Raise ToolchainError when the block imports something that is not installed or broken."""
    try:
        yield
    except ImportError as error:
        cause = f"{what} for it fails: {error}"
        if isinstance(error, ModuleNotFoundError):
            cause = f"{what} needs {error.name}, which is not installed"
        hint = f"pip install '{distribution}'"
        raise ToolchainError(f"target {backend.kind}", cause, hint) from error


def _installed() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}
