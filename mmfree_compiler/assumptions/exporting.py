"""Exporting: a module that asks whether it is exported is told False, as when it runs by itself."""

from __future__ import annotations

import sys
from typing import Any

from torch import compiler

from mmfree_compiler.origin import in_model

_FLAGS = ("_is_compiling_flag", "_is_exporting_flag")


class _OnlyToTorch:
    """A flag that is set for torch's own code and not for a model's."""

    def __bool__(self) -> bool:
        return not in_model(sys._getframe(1))


class Unaware:
    """Hooks around a forward, within which `torch.compiler.is_exporting()` is False to models."""

    def enter(self, *_: Any) -> None:
        """A forward pre-hook."""
        self._flags = [(name, getattr(compiler, name)) for name in _FLAGS]
        for name, value in self._flags:
            setattr(compiler, name, _OnlyToTorch() if value else value)

    def leave(self, *_: Any) -> None:
        """A forward hook."""
        for name, value in self._flags:
            setattr(compiler, name, value)
