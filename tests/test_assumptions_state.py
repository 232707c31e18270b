"""State in objects that are neither modules nor lists and dicts: seen, refused, put back."""

from __future__ import annotations

import itertools
import random
import warnings
import weakref
from argparse import Namespace
from array import array
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache, partial
from io import BytesIO, StringIO
from queue import LifoQueue, Queue, SimpleQueue
from threading import local
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import mmfree_compiler as mmf
from mmfree_compiler.errors import TraceError
from mmfree_compiler.modes import evaluating
from mmfree_compiler.trace import trace

X = torch.randn(2, 3, 8)


class _Next(nn.Module):
    """Scales by the next number that `held` gives."""

    def __init__(self, held: Any, number: Callable[[Any], Any]) -> None:
        super().__init__()
        self.held, self.number = held, number

    def forward(self, x: Tensor) -> Tensor:
        return x * float(self.number(self.held))


class Slotted:
    __slots__ = ("__private", "empty", "n")

    def __init__(self) -> None:
        self.n = 0
        self.__private = 0

    def count(self) -> int:
        self.__private += 1
        return self.__private

    def first(self) -> int:
        self.empty = 1 + getattr(self, "empty", 0)
        return self.empty

    def taken(self) -> int:
        del self.n
        return 2


class Referred:
    n = 0


KEPT = Referred()


class Derived(Slotted):
    __slots__ = ("own",)


@dataclass(slots=True)
class Record:
    n: int = 0


@dataclass(slots=True, frozen=True)
class Frozen:
    n: int = 0


def _counted() -> Callable[[], int]:
    def count() -> int:
        count.n += 1  # type: ignore[attr-defined]
        return int(count.n)  # type: ignore[attr-defined]

    count.n = 0  # type: ignore[attr-defined]
    return count


def _local() -> Any:
    made = local()
    made.n = 0
    return made


def _queue(kind: type[Queue[int]]) -> Queue[int]:
    made = kind()
    made.put(1)
    made.put(2)
    return made


def _variable() -> ContextVar[int]:
    return ContextVar("n", default=0)


def _more(held: Any) -> int:
    held.n += 1
    return int(held.n)


def _more_of(held: Any) -> int:
    return _more(held())


def _frozen(held: Any) -> int:
    object.__setattr__(held, "n", held.n + 1)
    return int(held.n)


def _item(held: Any) -> Any:
    held[0] += 1
    return held[0]


def _appended(held: Any) -> int:
    held.append(1)
    return len(held)


def _set(held: Any) -> int:
    held.set(held.get() + 1)
    return int(held.get())


def _written(held: Any) -> int:
    held.write(b"12" if isinstance(held, BytesIO) else "12")
    return int(held.tell())


def _objects() -> np.ndarray[Any, Any]:
    made = np.empty(2, dtype=object)
    made[:] = [1, [2]]
    return made


# What is held, and how a forward takes its next number from it.
RESTORED: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "slots": (Slotted, _more),
    "a private slot": (Slotted, lambda held: held.count()),
    "an empty slot": (Slotted, lambda held: held.first() + held.first()),
    "a slot that is emptied": (Slotted, lambda held: held.taken() if hasattr(held, "n") else 3),
    "a slot of a base": (Derived, _more),
    "a dataclass": (Record, _more),
    "a frozen dataclass": (Frozen, _frozen),
    "a NumPy generator": (lambda: np.random.default_rng(1), lambda held: held.random()),
    "a Philox generator": (
        lambda: np.random.Generator(np.random.Philox(1)),
        lambda held: held.normal(),
    ),
    "a NumPy RandomState": (lambda: np.random.RandomState(1), lambda held: held.randn()),
    "a Python generator": (lambda: random.Random(1), lambda held: held.random()),
    "its method": (lambda: random.Random(1).gauss, lambda held: held(0, 1)),
    "a function's attribute": (_counted, lambda held: held()),
    "a thread's attribute": (_local, _more),
    "arguments of a program": (lambda: Namespace(n=0), _more),
    "a queue": (partial(_queue, Queue), lambda held: held.get_nowait()),
    "a stack": (partial(_queue, LifoQueue), lambda held: held.get_nowait()),
    "an array of Python": (lambda: array("d", [1, 2]), _item),
    "an array that grows": (lambda: array("i", [1, 2]), _appended),
    "bytes": (lambda: bytearray(b"ab"), _item),
    "a view": (lambda: memoryview(bytearray(b"ab")), _item),
    "objects in an array": (_objects, _item),
    "a list in an array": (_objects, lambda held: _item(held[1])),
    "a matrix of objects": (lambda: _objects().reshape(1, 2)[0], _item),
    "objects in fields": (
        lambda: np.zeros(2, dtype=[("a", "f4"), ("o", object)]),
        lambda held: _item(held["a"]) + _item(held["o"]),
    ),
    "a context variable": (_variable, _set),
    "bytes in memory": (lambda: BytesIO(b"123"), _written),
    "text in memory": (StringIO, _written),
}


def _numbers() -> Iterator[int]:
    n = 0
    while True:
        n += 1
        yield n


def _same_place() -> Iterator[int]:
    for _ in [1, 1, 1]:
        yield 1


SEEN: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "count": (itertools.count, next),
    "cycle": (lambda: itertools.cycle([1, 2, 3]), next),
    "list": (lambda: iter([1, 2, 3]), next),
    "dict": (lambda: iter({1: 1, 2: 2}), next),
    "set": (lambda: iter({1, 2}), next),
    "range": (lambda: iter(range(3)), next),
    "map": (lambda: map(float, [1, 2]), next),
    "zip": (lambda: zip([1, 2], [3, 4], strict=True), lambda held: next(held)[0]),
    "enumerate": (lambda: enumerate("ab", 1), lambda held: next(held)[0]),
    "islice of count": (lambda: itertools.islice(itertools.count(1), 9), next),
    "chain": (lambda: itertools.chain([1, 2], [3]), next),
    "generator": (_numbers, next),
    "generator of equal numbers": (_same_place, next),
    "generator expression": (lambda: (k for k in (1, 1, 1)), next),
    "generator in a map": (lambda: map(float, _same_place()), next),
    "SimpleQueue": (SimpleQueue, lambda held: (held.put(1), held.qsize())[1]),
    "weak reference": (lambda: weakref.ref(KEPT), _more_of),
    "seeds": (lambda: np.random.SeedSequence(1), lambda held: held.spawn(1)[0].entropy),
}


@pytest.mark.parametrize("name", RESTORED | SEEN)
def test_taking_the_next_number_is_refused_with_its_line(name: str) -> None:
    make, number = (RESTORED | SEEN)[name]
    with pytest.raises(TraceError, match=rf"{__name__}.py:\d+: \S.* changes "):
        trace(_Next(make(), number), (X,))


@pytest.mark.parametrize("name", RESTORED)
def test_what_was_traced_starts_as_if_it_had_not_been(name: str) -> None:
    make, number = RESTORED[name]
    module = _Next(make(), number).eval()
    with pytest.raises(TraceError):
        trace(module, (X,))
    with evaluating(module):
        module(X)
    assert number(module.held) == number(make())
    assert number(module.held) is not None


@pytest.mark.parametrize(
    "name", ["slots", "a NumPy generator", "a function's attribute", "a queue"]
)
def test_the_eager_fallback_starts_where_the_module_does(name: str) -> None:
    make, number = RESTORED[name]
    with warnings.catch_warnings(action="ignore"):
        model = mmf.compile(
            _Next(make(), number), target="reference", example_inputs=(X,), fallback="eager"
        )
    expected = _Next(make(), number)
    for _ in range(2):
        assert torch.equal(model(X), expected(X))


@cache
def _square(n: int) -> int:
    return n * n


def _exhausted() -> Iterator[int]:
    made = iter([1])
    next(made)
    assert next(made, None) is None
    return made


def _closed() -> BytesIO:
    made = BytesIO()
    made.close()
    return made


UNCHANGED: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "a cache that fills": (lambda: _square, lambda held: held(2)),
    "an exhausted iterator": (_exhausted, lambda held: next(held, 4)),
    "iterators that end": (lambda: [1, 3], lambda held: sum(k for k in map(int, held))),
    "a generator": (_numbers, lambda _: 4),
    "an iterator": (lambda: itertools.cycle([1, 2]), lambda _: 4),
    "a weak reference": (lambda: weakref.ref(_numbers), lambda _: 4),
    "a system's random numbers": (random.SystemRandom, lambda _: 4),
    "a read-only array": (lambda: np.broadcast_to(np.zeros(1), 3), lambda held: held[0] + 4),
    "a closed stream": (_closed, lambda _: 4),
    "a set variable": (_variable, lambda held: held.get() + 4),
}


@pytest.mark.parametrize("name", UNCHANGED)
def test_what_stays_as_it_was_is_traced(name: str) -> None:
    gm = trace(_Next(*((make := UNCHANGED[name])[0](), make[1])), (X,))
    assert torch.equal(gm(X), X * 4)
