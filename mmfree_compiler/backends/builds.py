"""What launchers check of a build in a manifest: its calling convention, members and facts."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from mmfree_compiler.artifact import Build
from mmfree_compiler.errors import ArtifactError

REMAKE = "Compile the model again"


class Record(BaseModel):
    """Facts: what is not known, or of another type, is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


T = TypeVar("T", bound=Record)


def check_abi(build: Build, supported: int) -> None:
    """Raise ArtifactError unless a build has this number of its calling convention."""
    if build.abi != supported:
        cause = f"uses calling convention {build.abi}, this runtime supports {supported}"
        hint = "Upgrade mmfree-compiler" if build.abi > supported else REMAKE
        raise ArtifactError(f"build {build.name}", cause, hint)


def check_member(build: Build, role: str) -> None:
    """Raise ArtifactError unless a build has a member with this role."""
    if role not in build.members:
        raise ArtifactError(f"build {build.name}", f"has no member {role!r}", REMAKE)


def facts_in(build: Build, kind: type[T]) -> T:
    """The facts of a build. Raises ArtifactError if they are not of this kind."""
    try:
        return kind.model_validate(build.facts)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        cause = f"has invalid facts: {'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise ArtifactError(f"build {build.name}", cause, REMAKE) from error
