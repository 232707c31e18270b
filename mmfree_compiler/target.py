"""Targets as text: KIND or KIND:OPTIONS, such as "reference"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mmfree_compiler.errors import TargetError

DEFAULT_TARGET = "cpu"


@dataclass(frozen=True)
class Target:
    """A compilation target: the `kind` of a backend, and `options` for this backend."""

    kind: str
    options: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.options}" if self.options else self.kind

    @classmethod
    def parse(cls, text: str | Target) -> Target:
        """Split "kind:options" at the colon.

        Neither half is looked up here: `backends.get` knows the kinds, and a backend's `parse` its
        options. Raises TargetError when `text` is not a string or nothing follows the colon.
        """
        if isinstance(text, Target):
            return text
        hint = f"Pass the name of a target, such as {DEFAULT_TARGET!r}"
        if not isinstance(text, str):
            raise TargetError(f"target {text!r}", "is not a string", hint)
        kind, colon, options = text.partition(":")
        if colon and not options:
            raise TargetError(f"target {text!r}", "has nothing after the colon", hint)
        return cls(kind, options)


Targets = str | Target | Sequence[str | Target]


def parse_targets(targets: Targets) -> tuple[Target, ...]:
    """The targets of a list or a tuple, or the one that is given; each kind at most once.

    Raises TargetError as Target.parse does, when there is none, and when two are of one kind.
    """
    found = tuple(map(Target.parse, targets if isinstance(targets, list | tuple) else [targets]))
    if not found:
        raise TargetError("targets", "the list is empty", f"Name one, such as {DEFAULT_TARGET!r}")
    for target in found:
        same = [str(other) for other in found if other.kind == target.kind]
        if len(same) > 1:
            hint = f"Name the options of {target.kind} after one colon, separated by commas"
            raise TargetError(f"targets {' and '.join(same)}", "are of one kind", hint)
    return found
