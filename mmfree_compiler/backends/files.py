"""Files of compiled models: model.mmfree, and the forms that backends have of their own."""

from __future__ import annotations

from collections.abc import Iterable
from os import PathLike

from mmfree_compiler import backends
from mmfree_compiler.artifact import Artifact, Key, as_path, read_artifact
from mmfree_compiler.artifact import sign as artifact_sign
from mmfree_compiler.backends.own_files import Imported, OthersEngine, OwnFiles
from mmfree_compiler.errors import ArtifactError, InputError, TargetError
from mmfree_compiler.target import DEFAULT_TARGET, Target

COMMON = ".mmfree"  # and every suffix that no backend has


def check_savable(targets: Iterable[str | Target], path: str | PathLike[str]) -> None:
    """Raise TargetError if models compiled for `targets` cannot be saved to a file called so."""
    suffix = as_path(path).suffix
    own = _owner(suffix)
    for target in map(Target.parse, targets):
        formats = backends.get(target.kind).formats
        if not formats:
            cause = "runs in the process that compiled it and cannot be saved"
            raise TargetError(f"target {target}", cause, f'Compile for target "{DEFAULT_TARGET}"')
        if (suffix if own else COMMON) not in formats:
            hint = f"Name the file model{COMMON}"
            raise TargetError(f"target {target}", f"is not saved as {suffix}", hint)


def write(artifact: Artifact, path: str | PathLike[str]) -> None:
    """Write an artifact, completely or not at all. Raises TargetError, ArtifactError."""
    check_savable([entry.target for entry in artifact.manifest.targets], path)
    own = _owner(as_path(path).suffix)
    if own is None:
        artifact.save(path)
    else:
        own.write(artifact, as_path(path))


def read(
    path: str | PathLike[str], verify: bool = False, require_signature: Key | None = None
) -> Artifact:
    """The artifact in a file of any form; the arguments are those of `artifact.read_artifact`."""
    own = _owner(as_path(path).suffix)
    if own is None:
        return read_artifact(path, verify, require_signature)
    if require_signature is not None:
        raise _unsigned(path, "is not signed")
    return own.read(as_path(path), verify)


def sign(path: str | PathLike[str], key: Key) -> str:
    """Sign a file in place, as `artifact.sign` does. Raises ArtifactError if its form cannot be."""
    if _owner(as_path(path).suffix) is not None:
        raise _unsigned(path, "cannot be signed")
    return artifact_sign(path, key)


def _unsigned(path: str | PathLike[str], cause: str) -> ArtifactError:
    suffix = as_path(path).suffix
    hint = f"Save the model as {COMMON}, and sign that"
    return ArtifactError(str(path), f"{cause}: {suffix} files have no signatures", hint)


def imported(path: str | PathLike[str]) -> Imported | None:
    """A file of a form that a backend reads, to be compiled; None for everything else.

    Raises CheckpointError, ToolchainError.
    """
    own = _owner(as_path(path).suffix)
    if own is None:
        return None
    with backends.installed_for(own, "reading", own.extra):
        return own.imported(as_path(path))


def _owner(suffix: str) -> OwnFiles | None:
    """The backend whose own files have this suffix."""
    if suffix in ("", COMMON):
        return None
    found = (backends.get(kind) for kind in backends.kinds())
    owners = (b for b in found if isinstance(b, OwnFiles) and suffix in b.formats)
    return next(owners, None)


def target_of_engine(engine: str) -> str:
    """The target whose models run in this engine. Raises InputError when there is none."""
    found = [backends.get(kind) for kind in backends.kinds()]
    engines = {b.engine: b.kind for b in found if isinstance(b, OthersEngine)}
    if engine not in engines:
        raise InputError(f"engine {engine!r}", "is unknown", f"Known: {', '.join(engines)}")
    return engines[engine]
