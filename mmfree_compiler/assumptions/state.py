"""What Python keeps between the calls of a forward: to compare with later, and to restore.

That is whatever the code of a module can reach: attributes of modules, of objects and of classes,
containers in them, variables of closures, globals that are named in functions, and the states of
random number generators. What torch and the standard library keep is left out. The progress of
iterators is compared and cannot be restored. docs/passes.md lists what is not seen.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor, nn

from mmfree_compiler.assumptions.containers import Contents, access
from mmfree_compiler.assumptions.progress import ATOMS
from mmfree_compiler.assumptions.reach import parts

_MISSING: Any = object()
# What functions of these modules draw from, whoever calls them.
_SHARED = (
    ("Python's random numbers", random._inst),
    ("NumPy's random numbers", np.random.mtrand._rand),
)


@dataclass(frozen=True)
class Holder:
    """A thing with contents, called `name`, that a forward may change."""

    name: str
    read: Callable[[], Contents]
    write: Callable[[Contents], None]

    def changed(self, before: Contents) -> str:
        """The name of what is not as it was `before`, "" if all is."""
        now = self.read()
        for key in before | now:
            if not _same(before.get(key, _MISSING), now.get(key, _MISSING)):
                return f"{self.name}.{key}" if key != "" else self.name
        return "" if list(before) == list(now) else self.name  # the same in another order


@dataclass(frozen=True)
class State:
    """What the code of a module can reach, with its contents at one time."""

    held: tuple[tuple[Holder, Contents], ...]

    @classmethod
    def of(cls, module: nn.Module) -> State:
        """The state as it is now."""
        return cls(tuple((holder, holder.read()) for holder in _holders(module)))

    def changed(self) -> tuple[str, Holder] | None:
        """The name and the holder of something that is not as it was, if there is any."""
        found = ((holder.changed(before), holder) for holder, before in self.held)
        return next(((name, holder) for name, holder in found if name), None)

    def tensors(self) -> list[Tensor]:
        """The tensors among the contents, but for parameters."""
        values = (value for _, contents in self.held for value in contents.values())
        found = {id(x): x for x in values if isinstance(x, Tensor)}
        return [x for x in found.values() if not isinstance(x, nn.Parameter)]

    def restore(self) -> None:
        """Put back what was there; values of tensors stay as they are."""
        for holder, before in self.held:
            if holder.changed(before):
                holder.write(before)


def _same(old: Any, new: Any) -> bool:
    """Whether it is the same object, or an equal number or text."""
    if isinstance(old, ATOMS):
        return type(old) is type(new) and repr(old) == repr(new)
    return old is new


def _holders(module: nn.Module) -> Iterator[Holder]:
    """Everything with contents that can be reached from a module."""
    waiting: deque[tuple[str, Any]] = deque([*_SHARED, (type(module).__name__, module)])
    seen: dict[int, Any] = {}
    while waiting:
        name, value = waiting.popleft()
        if id(value) in seen or isinstance(value, ATOMS):
            continue
        seen[id(value)] = value  # kept, so that no other object gets its id
        holder = _holder(name, value)
        if holder:
            yield holder
            waiting.extend((f"{name}.{key}", x) for key, x in holder.read().items())
        waiting.extend((f"{name}.{part}".rstrip("."), x) for part, x in parts(value))


def _holder(name: str, value: Any) -> Holder | None:
    found = access(value)
    return Holder(name, partial(found[0], value), partial(found[1], value)) if found else None
