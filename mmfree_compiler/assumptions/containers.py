"""How to read what each kind of container holds, and how to put it back."""

from __future__ import annotations

import pickle
from array import array
from collections.abc import Callable, Iterator, MutableMapping, MutableSequence, MutableSet
from contextlib import suppress
from contextvars import ContextVar
from io import BytesIO, StringIO
from queue import SimpleQueue
from random import Random, SystemRandom
from types import CellType
from typing import Any

import numpy as np

from mmfree_compiler.assumptions.progress import progress
from mmfree_compiler.assumptions.reach import Namespace, Slots

Contents = dict[Any, Any]
Access = tuple[Callable[[Any], Contents], Callable[[Any, Contents], None]]


def access(value: Any) -> Access | None:
    """How to read and to write what `value` holds, None if it is not a container."""
    return next((row for kind, row in _CONTAINERS.items() if isinstance(value, kind)), None)


def _pickled(get: Callable[[Any], Any], put: Callable[[Any, Any], None]) -> Access:
    """Contents that are one value, which can be pickled; it is under ""."""
    return (
        lambda value: {"": pickle.dumps(get(value))},
        lambda value, contents: put(value, pickle.loads(contents[""])),
    )


def _numbered(values: Any) -> Contents:
    return dict(enumerate(values))


def _refill(values: Any, contents: Contents) -> None:
    values.clear()
    values.extend(contents.values())


def _update(values: Any, contents: Contents) -> None:
    values.clear()
    values.update(contents)


def _cell(cell: CellType) -> Contents:
    try:
        return {"": cell.cell_contents}
    except ValueError:  # not assigned yet
        return {}


def _fill_cell(cell: CellType, contents: Contents) -> None:
    if contents:
        cell.cell_contents = contents[""]
    else:
        del cell.cell_contents


def _array(values: np.ndarray[Any, Any]) -> Contents:
    if values.dtype.names and values.dtype.hasobject:
        return {}  # its fields are read
    return _numbered(values.flat) if values.dtype == object else {"": values.tobytes()}


def _fill_array(values: np.ndarray[Any, Any], contents: Contents) -> None:
    if values.dtype == object:
        for k, value in contents.items():
            values[np.unravel_index(k, values.shape)] = value
    elif contents and values.flags.writeable:  # else its fields or its base are written
        values[...] = np.frombuffer(contents[""], values.dtype).reshape(values.shape)


def _fill_numbers(values: array[Any], contents: Contents) -> None:
    values[:] = array(values.typecode, contents[""])


def _fill_bytes(values: bytearray, contents: Contents) -> None:
    values[:] = contents[""]


def _stream(stream: Any) -> Contents:
    return {} if stream.closed else {"": stream.getvalue(), "position": stream.tell()}


def _fill_stream(stream: Any, contents: Contents) -> None:
    if contents and not stream.closed:
        stream.seek(0)
        stream.truncate()
        stream.write(contents[""])
        stream.seek(contents["position"])


def _variable(variable: ContextVar[Any]) -> Contents:
    with suppress(LookupError):
        return {"": variable.get()}
    return {}


def _set_variable(variable: ContextVar[Any], contents: Contents) -> None:
    if contents:
        variable.set(contents[""])


def _leave(_value: Any, _contents: Contents) -> None:
    """For what cannot be put back, or needs not."""


# The first row that fits counts. A tuple's items may have contents.
_CONTAINERS: dict[type, Access] = {
    array: (lambda values: {"": values.tobytes()}, _fill_numbers),
    bytearray: (lambda values: {"": bytes(values)}, _fill_bytes),
    MutableMapping: (dict, _update),
    MutableSequence: (_numbered, _refill),
    MutableSet: (dict.fromkeys, _update),
    tuple: (_numbered, _leave),
    CellType: (_cell, _fill_cell),
    np.ndarray: (_array, _fill_array),
    Namespace: (Namespace.read, Namespace.write),
    Slots: (Slots.read, Slots.write),
    SystemRandom: (lambda _: {}, _leave),
    Random: _pickled(Random.getstate, Random.setstate),
    np.random.RandomState: _pickled(
        lambda numbers: numbers.get_state(legacy=False), np.random.RandomState.set_state
    ),
    np.random.BitGenerator: _pickled(
        lambda numbers: numbers.state, lambda numbers, state: setattr(numbers, "state", state)
    ),
    np.random.SeedSequence: (lambda seeds: {"": seeds.n_children_spawned}, _leave),
    BytesIO: (_stream, _fill_stream),
    StringIO: (_stream, _fill_stream),
    ContextVar: (_variable, _set_variable),
    SimpleQueue: (lambda queue: {"": queue.qsize()}, _leave),
    Iterator: (progress, _leave),
}
