"""The keyword arguments of `compile`, checked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import TypedDict

from torch import Tensor

from mmfree_compiler import passes
from mmfree_compiler.checking import CHECKS, Check
from mmfree_compiler.errors import InputError
from mmfree_compiler.threads import resolve_threads


@dataclass(frozen=True)
class Options:
    """The keyword arguments of `compile`, which documents them."""

    example_inputs: tuple[Tensor, ...] | None = None
    check: Check = "module"
    observers: Iterable[passes.Observer] = ()
    threads: int | None = None

    @classmethod
    def of(cls, keywords: Keywords, function: str) -> Options:
        """Raises TypeError on an unknown keyword, as a function of this name does."""
        for name in keywords.keys() - {known.name for known in fields(cls)}:
            raise TypeError(f"{function}() got an unexpected keyword argument {name!r}")
        return cls(**keywords)

    def __post_init__(self) -> None:
        if not isinstance(self.observers, Iterable):
            raise InputError("observers", f"are {self.observers!r}", "Pass a list of functions")
        object.__setattr__(self, "observers", tuple(self.observers))  # read more than once
        for observer in self.observers:
            if not callable(observer):
                hint = "Pass functions of (name, subject, seconds)"
                raise InputError(f"observer {observer!r}", "is not a function", hint)
        resolve_threads(self.threads)
        named = isinstance(self.check, str) and self.check in CHECKS
        if not named and self.check is not False:  # 0 == False, and does not mean it
            known = ", ".join(map(repr, CHECKS))
            raise InputError(f"check {self.check!r}", "is unknown", f"Known: {known}")


class Keywords(TypedDict, total=False):
    """The types of Options, for the callers of `compile`."""

    example_inputs: tuple[Tensor, ...] | None
    check: Check
    observers: Iterable[passes.Observer]
    threads: int | None
