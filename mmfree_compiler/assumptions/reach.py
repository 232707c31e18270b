"""What the code of a module can reach from a value, besides the contents of containers."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from itertools import chain
from queue import Queue
from threading import local
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
    SimpleNamespace,
)
from typing import Any
from weakref import ref

import numpy as np
from torch import nn

from mmfree_compiler.assumptions.progress import sources
from mmfree_compiler.origin import may_be_model, may_be_models_class


@dataclass(frozen=True, eq=False)
class Namespace:
    """Variables of a Python module or of a class; all of them, or those in `names`."""

    variables: Mapping[str, Any]
    put: Callable[[str, Any], None]
    drop: Callable[[str], None]
    names: frozenset[str] | None = None

    def read(self) -> dict[str, Any]:
        names = self.variables if self.names is None else sorted(self.names)
        return {name: self.variables[name] for name in names if name in self.variables}

    def write(self, contents: dict[str, Any]) -> None:
        now = self.read()
        for name in now.keys() - contents.keys():
            self.drop(name)
        for name, value in contents.items():
            if now.get(name, self) is not value:
                self.put(name, value)


@dataclass(frozen=True, eq=False)
class Slots:
    """Attributes of an object whose class, or a base of it, has `__slots__`."""

    value: Any

    def read(self) -> dict[str, Any]:
        contents = {}
        for name, member in self._members().items():
            with suppress(AttributeError):  # not assigned yet
                contents[name] = member.__get__(self.value)
        return contents

    def write(self, contents: dict[str, Any]) -> None:
        members = self._members()
        for name in self.read().keys() - contents.keys():
            members[name].__delete__(self.value)
        for name, value in contents.items():
            members[name].__set__(self.value, value)  # also of a frozen dataclass

    def _members(self) -> dict[str, MemberDescriptorType]:
        """By name, which is mangled where it is private; a class hides those of its bases."""
        bases = [vars(base) for base in reversed(type(self.value).__mro__)]
        found = (item for base in bases if "__slots__" in base for item in base.items())
        return {name: x for name, x in found if isinstance(x, MemberDescriptorType)}


def parts(value: Any) -> Iterator[tuple[str, Any]]:
    """The parts of objects, classes and functions; each has a name, "" where it needs none."""
    inside = next((inside for kind, inside in _PARTS.items() if isinstance(value, kind)), _object)
    yield from inside(value)


def _object(value: Any) -> Iterator[tuple[str, Any]]:
    if may_be_models_class(type(value)):
        yield from _module(value)


def _module(value: Any) -> Iterator[tuple[str, Any]]:
    if type(value).__dictoffset__:
        yield "", vars(value)
    yield "", Slots(value)
    yield "", type(value)


def _class(value: type) -> Iterator[tuple[str, Any]]:
    for base in value.__mro__:
        if may_be_models_class(base):
            yield "", Namespace(vars(base), partial(setattr, base), partial(delattr, base))


def _function(value: FunctionType) -> Iterator[tuple[str, Any]]:
    if not may_be_model(value.__module__) or "site-packages" in value.__code__.co_filename:
        return  # an installed package has its own caches
    yield "", vars(value)
    yield "", (value.__defaults__, *(value.__kwdefaults__ or {}).values())
    yield from zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)
    names = frozenset(_names(value.__code__))
    named = _globals(value.__globals__, names)
    yield "", named
    for name, module in named.read().items():
        if isinstance(module, ModuleType) and may_be_model(module.__name__):
            yield name, _globals(vars(module), names)


def _globals(variables: dict[str, Any], names: frozenset[str]) -> Namespace:
    return Namespace(variables, variables.__setitem__, variables.__delitem__, names)


def _names(code: CodeType) -> Iterator[str]:
    """The globals and attributes named in a function and in those within it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _array(value: np.ndarray[Any, Any]) -> tuple[Any, ...]:
    """What it is a view of, and views of its fields where those may be objects."""
    fields = value.dtype.names or () if value.dtype.hasobject else ()
    return (value.base, *(value[name] for name in fields))


def _attributes(*names: str) -> Callable[[Any], Iterator[tuple[str, Any]]]:
    return _and_object(lambda value: tuple(getattr(value, name, None) for name in names))


def _and_object(inside: Callable[[Any], tuple[Any, ...]]) -> Callable[..., Iterator[Any]]:
    """Also the attributes that a class of a model adds."""
    return lambda value: chain((("", x) for x in inside(value)), _object(value))


_PARTS: dict[type, Callable[[Any], Iterator[tuple[str, Any]]]] = {
    nn.Module: _module,
    type: _class,
    FunctionType: _function,
    BuiltinFunctionType: _attributes("__self__"),
    MethodType: _attributes("__func__", "__self__"),
    partial: _attributes("func", "args", "keywords"),
    type(lru_cache(str)): _attributes("__wrapped__"),  # not its cache, which may fill
    cached_property: _attributes("func"),
    staticmethod: _attributes("__func__"),
    classmethod: _attributes("__func__"),
    property: _attributes("fget", "fset", "fdel"),
    ref: _and_object(lambda value: (value(),)),
    memoryview: _attributes("obj"),
    np.ndarray: _and_object(_array),
    np.random.Generator: _attributes("bit_generator"),
    np.random.BitGenerator: _attributes("seed_seq"),
    ModuleType: lambda _: iter(()),
    Namespace: lambda _: iter(()),
    Slots: lambda _: iter(()),
    Iterator: _and_object(sources),
}
# Objects of the standard library that a model keeps its own things in.
_PARTS |= dict.fromkeys(
    (SimpleNamespace, argparse.Namespace, Queue, local), _attributes("__dict__")
)
