"""Loading what a command needs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmfree_compiler.errors import InputError

if TYPE_CHECKING:
    from mmfree_compiler.runtime import Session


def load_language_model(path: Path, threads: int | None = None, **options: Any) -> Session:
    """A session, as `runtime.load` makes it. Raises InputError on a module that reads no text."""
    from mmfree_compiler.runtime import load

    session = load(path, threads, **options)
    manifest = session.artifact.manifest
    if manifest.kind != "lm":
        cause = f"is a compiled module, not a language model: it takes {manifest.signature}"
        hint = f"Run it in Python: mmfree_compiler.load({str(path)!r})(arrays)"
        raise InputError(str(path), cause, hint)
    return session
