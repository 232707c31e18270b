"""Targets as text: KIND or KIND:OPTIONS, such as "reference"."""

from __future__ import annotations

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
