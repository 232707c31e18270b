"""What Python keeps between the calls of a forward: to compare with later, and to restore.

That is whatever the code of a module can reach: attributes of modules, of objects and of classes,
containers in them, variables of closures, globals that are named in functions, and the states of
`random` and NumPy's random numbers. What torch and the standard library keep is left out.
"""

from __future__ import annotations

import pickle
import random
from collections import deque
from collections.abc import Callable, Iterator, MutableMapping, MutableSequence, MutableSet
from dataclasses import dataclass
from functools import partial
from types import CellType
from typing import Any

import numpy as np
from torch import nn

from mmfree_compiler.assumptions.reach import Namespace, parts

_ATOMS = (bool, int, float, complex, str, bytes, type(None))
_MISSING: Any = object()
_Contents = dict[Any, Any]


@dataclass(frozen=True)
class Holder:
    """A thing with contents, called `name`, that a forward may change."""

    name: str
    read: Callable[[], _Contents]
    write: Callable[[_Contents], None]

    def changed(self, before: _Contents) -> str:
        """The name of what is not as it was `before`, "" if all is."""
        now = self.read()
        for key in before | now:
            if not _same(before.get(key, _MISSING), now.get(key, _MISSING)):
                return f"{self.name}.{key}" if key != "" else self.name
        return "" if list(before) == list(now) else self.name  # the same in another order


@dataclass(frozen=True)
class State:
    """What the code of a module can reach, with its contents at one time."""

    held: tuple[tuple[Holder, _Contents], ...]

    @classmethod
    def of(cls, module: nn.Module) -> State:
        """The state as it is now."""
        return cls(tuple((holder, holder.read()) for holder in _holders(module)))

    def changed(self) -> tuple[str, Holder] | None:
        """The name and the holder of something that is not as it was, if there is any."""
        found = ((holder.changed(before), holder) for holder, before in self.held)
        return next(((name, holder) for name, holder in found if name), None)

    def restore(self) -> None:
        """Put back what was there."""
        for holder, before in self.held:
            if holder.changed(before):
                holder.write(before)


def _same(old: Any, new: Any) -> bool:
    """Whether it is the same object, or an equal number or text."""
    if isinstance(old, _ATOMS):
        return type(old) is type(new) and repr(old) == repr(new)
    return old is new


def _holders(module: nn.Module) -> Iterator[Holder]:
    """Everything with contents that can be reached from a module."""
    yield from _RANDOM
    waiting: deque[tuple[str, Any]] = deque([(type(module).__name__, module)])
    seen: dict[int, Any] = {}
    while waiting:
        name, value = waiting.popleft()
        if id(value) in seen or isinstance(value, _ATOMS):
            continue
        seen[id(value)] = value  # kept, so that no other object gets its id
        holder = _holder(name, value)
        if holder:
            yield holder
            waiting.extend((f"{name}.{key}", x) for key, x in holder.read().items())
        waiting.extend((f"{name}.{part}".rstrip("."), x) for part, x in parts(value))


def _holder(name: str, value: Any) -> Holder | None:
    found = next((access for kind, access in _CONTAINERS.items() if isinstance(value, kind)), None)
    return Holder(name, partial(found[0], value), partial(found[1], value)) if found else None


def _numbered(values: Any) -> _Contents:
    return dict(enumerate(values))


def _refill(values: Any, contents: _Contents) -> None:
    values.clear()
    values.extend(contents.values())


def _update(values: Any, contents: _Contents) -> None:
    values.clear()
    values.update(contents)


def _cell(cell: CellType) -> _Contents:
    try:
        return {"": cell.cell_contents}
    except ValueError:  # not assigned yet
        return {}


def _fill_cell(cell: CellType, contents: _Contents) -> None:
    cell.cell_contents = contents[""]


def _overwrite(array: Any, contents: _Contents) -> None:
    array[...] = np.frombuffer(contents[""], array.dtype).reshape(array.shape)


# How to read and to restore each kind of container; a tuple's items may have contents.
_CONTAINERS: dict[Any, tuple[Callable[[Any], _Contents], Callable[[Any, _Contents], None]]] = {
    MutableMapping: (dict, _update),
    MutableSequence: (_numbered, _refill),
    MutableSet: (dict.fromkeys, _update),
    tuple: (_numbered, lambda _values, _contents: None),
    CellType: (_cell, _fill_cell),
    np.ndarray: (lambda array: {"": array.tobytes()}, _overwrite),
    Namespace: (Namespace.read, Namespace.write),
}
_RANDOM = (
    Holder(
        "Python's random numbers",
        lambda: {"": pickle.dumps(random.getstate())},
        lambda contents: random.setstate(pickle.loads(contents[""])),
    ),
    Holder(
        "NumPy's random numbers",
        lambda: {"": pickle.dumps(np.random.get_state())},
        lambda contents: np.random.set_state(pickle.loads(contents[""])),
    ),
)
