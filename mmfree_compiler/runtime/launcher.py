"""Opening the launcher of a target of an artifact, and what takes its place when it is closed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from mmfree_compiler import backends
from mmfree_compiler.artifact import Artifact
from mmfree_compiler.backends.interface import Launcher
from mmfree_compiler.errors import (
    DeviceError,
    InputError,
    MmfreeError,
    TargetError,
    ToolchainError,
)


@dataclass(frozen=True)
class Opened:
    """A `launcher`, and the artifact as its target sees it.

    `refused` are the targets that come before it, and why this machine does not run them.
    """

    launcher: Launcher
    artifact: Artifact
    refused: Mapping[str, MmfreeError]


def open_launcher(artifact: Artifact, target: str | None = None, **options: Any) -> Opened:
    """Open the first target of `artifact` that this machine runs, or the one called `target`.

    Options that are None are not passed on, nor are those that only other targets take. Raises
    TargetError when no target runs here, DeviceError, ArtifactError, and InputError on an option
    that no target takes.
    """
    given = {name: value for name, value in options.items() if value is not None}
    _check_options(artifact, given)
    refused: dict[str, MmfreeError] = {}
    for view in _called(artifact, target):
        try:
            return Opened(_open(view, given), view, refused)
        except DeviceError:
            raise
        except (TargetError, ToolchainError) as error:
            refused[view.entry.target] = error
    raise _refusal(artifact, refused)


def _called(artifact: Artifact, target: str | None) -> tuple[Artifact, ...]:
    """The targets to try. Raises TargetError when there is none of that kind, or in full."""
    if target is None:
        return artifact.targets
    found = [view for view in artifact.targets if target in (view.entry.kind, view.entry.target)]
    if not found:
        known = ", ".join(entry.target for entry in artifact.manifest.targets)
        raise TargetError(f"target {target!r}", "is not in the model", f"It has: {known}")
    return tuple(found)


def _check_options(artifact: Artifact, given: Mapping[str, Any]) -> None:
    """Raise InputError on an option that no target takes, as far as their backends are known."""
    kinds = [entry.kind for entry in artifact.manifest.targets]
    try:
        taken = list(dict.fromkeys(name for kind in kinds for name in backends.get(kind).options))
    except (TargetError, ToolchainError):
        return
    for name in given.keys() - set(taken):
        cause = f"is not an option of target {' or '.join(kinds)}"
        raise InputError(f"option {name!r}", cause, f"Known: {', '.join(taken) or 'none'}")


def _open(view: Artifact, given: Mapping[str, Any]) -> Launcher:
    backend = backends.get(view.entry.kind)
    own = {name: value for name, value in given.items() if name in backend.options}
    return backends.launcher(backend).open(view, **own)


def _refusal(artifact: Artifact, refused: Mapping[str, MmfreeError]) -> MmfreeError:
    """The error when no target runs here: that of the only one, or one that has all causes."""
    if len(refused) == 1:
        return next(iter(refused.values()))
    causes = "; ".join(f"{target}: {error.fault}" for target, error in refused.items())
    hint = "`mmfree doctor` shows which targets do"
    return TargetError(artifact.title, f"no target of it runs here: {causes}", hint)


class _Closed:
    def close(self) -> None:
        """Nothing is left to release."""

    def __getattr__(self, name: str) -> Any:
        raise InputError("session", "is closed", "Load the model again")


# Whatever is asked of a session after `close` raises InputError.
CLOSED = cast(Launcher, _Closed())
