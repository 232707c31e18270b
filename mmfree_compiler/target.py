"""Targets, parsed once: "cpu", "cpu:x86-64-v3", "reference". The runtime reads it too."""

from __future__ import annotations

from dataclasses import dataclass

from mmfree_compiler.errors import TargetError

# kind -> the variants that may follow the colon. The first line of docs/targets says what each is.
KINDS: dict[str, tuple[str, ...]] = {
    "cpu": ("x86-64-avx512vnni", "x86-64-v3", "portable"),
    "reference": (),
}


@dataclass(frozen=True)
class Target:
    """What to compile for: a backend's `kind` and the instruction-set `variants` to put in."""

    kind: str
    variants: tuple[str, ...]

    def __str__(self) -> str:
        chosen = "" if self.variants == KINDS[self.kind] else ":" + ",".join(self.variants)
        return self.kind + chosen

    @classmethod
    def parse(cls, text: str | Target) -> Target:
        """Read "kind" or "kind:variant,variant"; without variants, all of the kind's.

        Raises TargetError on an unknown kind or variant, listing those there are.
        """
        if isinstance(text, Target):
            return text
        kind, separator, rest = text.partition(":")
        if kind not in KINDS:
            raise TargetError(f"target {text!r}", "unknown", f"Known: {', '.join(KINDS)}")
        variants = tuple(dict.fromkeys(rest.split(","))) if separator else KINDS[kind]
        unknown = [variant for variant in variants if variant not in KINDS[kind]]
        if unknown:
            known = ", ".join(KINDS[kind]) or "none"
            raise TargetError(
                f"target {text!r}", f"unknown variant {', '.join(unknown)!r}", f"Known: {known}"
            )
        return cls(kind, variants)
