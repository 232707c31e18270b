"""Targets, parsed once: "cpu", "cpu:x86-64-v3", "reference". The runtime reads it too."""

from __future__ import annotations

import platform
from dataclasses import dataclass

from mmfree_compiler.errors import TargetError

# kind -> the variants that may follow the colon, best first, and the architecture of each as
# platform.machine() spells it. docs/targets says what each is.
KINDS: dict[str, dict[str, str]] = {
    "cpu": {
        "x86-64-amx": "x86_64",
        "x86-64-avx512vbmi": "x86_64",
        "x86-64-avx512vnni": "x86_64",
        "x86-64-avxvnni": "x86_64",
        "x86-64-v3": "x86_64",
        "portable": "x86_64",
        "aarch64-i8mm": "aarch64",
        "aarch64-dotprod": "aarch64",
        "aarch64": "aarch64",
    },
    "reference": {},
}

# Left out unless named: AVX512-VNNI without VBMI is on few CPUs, which AVX2 serves too.
ON_REQUEST = frozenset({"x86-64-avx512vnni"})


def default_variants(kind: str) -> tuple[str, ...]:
    """The variants for this machine's architecture; for all where none is for it."""
    usual = {name: arch for name, arch in KINDS[kind].items() if name not in ON_REQUEST}
    here = tuple(name for name, arch in usual.items() if arch == platform.machine())
    return here or tuple(usual)


@dataclass(frozen=True)
class Target:
    """What to compile for: a backend's `kind` and the instruction-set `variants` to put in."""

    kind: str
    variants: tuple[str, ...]

    def __str__(self) -> str:
        default = self.variants == default_variants(self.kind)
        return self.kind if default else f"{self.kind}:{','.join(self.variants)}"

    @classmethod
    def parse(cls, text: str | Target) -> Target:
        """Read "kind" or "kind:variant,variant"; without variants, those for this machine.

        Raises TargetError on an unknown kind or variant, listing those there are.
        """
        if isinstance(text, Target):
            return text
        if not isinstance(text, str):
            raise TargetError(f"target {text!r}", "no text", f"Known: {', '.join(KINDS)}")
        kind, separator, rest = text.partition(":")
        if kind not in KINDS:
            raise TargetError(f"target {text!r}", "unknown", f"Known: {', '.join(KINDS)}")
        variants = tuple(dict.fromkeys(rest.split(","))) if separator else default_variants(kind)
        unknown = [variant for variant in variants if variant not in KINDS[kind]]
        if unknown:
            known = ", ".join(KINDS[kind]) or "none"
            raise TargetError(
                f"target {text!r}", f"unknown variant {', '.join(unknown)!r}", f"Known: {known}"
            )
        return cls(kind, variants)
