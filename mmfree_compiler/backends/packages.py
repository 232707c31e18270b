"""Checks of installed packages, for `mmfree doctor`."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass

from mmfree_compiler.backends.interface import Check


@dataclass(frozen=True)
class Package:
    """A distribution, its purpose, and the extra that installs it ("": the base install)."""

    name: str
    purpose: str
    extra: str

    def check(self) -> Check:
        """Whether it is installed: "failed" without one of the base install, else "missing"."""
        try:
            found = importlib.metadata.version(self.name)
        except importlib.metadata.PackageNotFoundError:
            cause = f"not installed ({self.purpose})"
            if not self.extra:
                return Check(self.name, "failed", cause, f"pip install '{self.name}'")
            wanted = f"mmfree-compiler[{self.extra}]"
            return Check(self.name, "missing", cause, f"pip install '{wanted}'")
        return Check(self.name, "ok", f"{found} ({self.purpose})")
