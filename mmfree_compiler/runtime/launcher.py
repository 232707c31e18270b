"""Opening the launcher of an artifact's target, and what takes its place when it is closed."""

from __future__ import annotations

from typing import Any, cast

from mmfree_compiler import backends
from mmfree_compiler.artifact import Artifact
from mmfree_compiler.backends.interface import Launcher
from mmfree_compiler.errors import InputError
from mmfree_compiler.target import Target


def open_launcher(artifact: Artifact, **options: Any) -> Launcher:
    """The launcher that runs `artifact` on this machine; options that are None are not passed on.

    Raises TargetError when the target is unknown or this machine cannot run it, ArtifactError, and
    InputError on an option that the target does not take.
    """
    backend = backends.get(Target.parse(artifact.manifest.target).kind)
    given = {name: value for name, value in options.items() if value is not None}
    for name in given.keys() - set(backend.options):
        known = ", ".join(backend.options) or "none"
        cause = f"is not an option of target {backend.kind}"
        raise InputError(f"option {name!r}", cause, f"Known: {known}")
    return backends.launcher(backend).open(artifact, **given)


class _Closed:
    def close(self) -> None:
        """Nothing is left to release."""

    def __getattr__(self, name: str) -> Any:
        raise InputError("session", "is closed", "Load the model again")


# Whatever is asked of a session after `close` raises InputError.
CLOSED = cast(Launcher, _Closed())
