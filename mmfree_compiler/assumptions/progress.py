"""How far an iterator has come: it can be seen, and cannot be put back."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator
from types import GeneratorType
from typing import Any

# Values that hold nothing and never change.
ATOMS = (bool, int, float, complex, str, bytes, type(None))
_MODULES = ("builtins", "itertools")  # other iterators are objects, whose attributes are read


def progress(iterator: Any) -> dict[str, str]:
    """A text under "" that another `next` changes; nothing for iterators of other modules."""
    return {"": _text(iterator)} if type(iterator).__module__ in _MODULES else {}


def sources(iterator: Any) -> tuple[Any, ...]:
    """What an iterator reads: other iterators, containers, functions."""
    if isinstance(iterator, GeneratorType):
        return tuple(gc.get_referents(iterator))
    return tuple(_reduced(iterator)[:1]) if type(iterator).__module__ in _MODULES else ()


def _text(value: Any) -> str:
    if isinstance(value, ATOMS):
        return repr(value)
    if isinstance(value, tuple):
        return f"({', '.join(map(_text, value))})"
    if isinstance(value, GeneratorType):
        return f"{value.gi_frame and value.gi_frame.f_lasti} {_text(sources(value))}"
    if isinstance(value, Iterator) and type(value).__module__ in _MODULES:
        return f"{type(value).__name__} {_text(_reduced(value)) or repr(value)}"
    return f"{type(value).__name__} {len(value) if isinstance(value, list | dict | set) else ''}"


def _reduced(iterator: Any) -> tuple[Any, ...]:
    """What pickle would make it from; of itertools only before Python 3.14."""
    try:
        with warnings.catch_warnings(action="ignore"):  # itertools since Python 3.12
            return tuple(iterator.__reduce__()[1:])
    except (TypeError, RuntimeError):  # cannot be pickled; what it reads has changed
        return ()
