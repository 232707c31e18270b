"""What the code of a module can reach from a value, besides the contents of containers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    MethodType,
    ModuleType,
    SimpleNamespace,
)
from typing import Any

from torch import nn

from mmfree_compiler.origin import may_be_model


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


def parts(value: Any) -> Iterator[tuple[str, Any]]:
    """The parts of objects, classes and functions; each has a name, "" where it needs none."""
    inside = next((inside for kind, inside in _PARTS.items() if isinstance(value, kind)), _object)
    yield from inside(value)


def _object(value: Any) -> Iterator[tuple[str, Any]]:
    if type(value).__dictoffset__ and may_be_model(type(value).__module__):
        yield from _module(value)


def _module(value: nn.Module) -> Iterator[tuple[str, Any]]:
    yield "", vars(value)
    yield "", type(value)


def _class(value: type) -> Iterator[tuple[str, Any]]:
    for base in value.__mro__:
        if may_be_model(base.__module__):
            yield "", Namespace(vars(base), partial(setattr, base), partial(delattr, base))


def _function(value: FunctionType) -> Iterator[tuple[str, Any]]:
    if not may_be_model(value.__module__) or "site-packages" in value.__code__.co_filename:
        return  # an installed package has its own caches
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


_PARTS: dict[type, Callable[[Any], Iterator[tuple[str, Any]]]] = {
    nn.Module: _module,
    type: _class,
    SimpleNamespace: lambda value: iter((("", vars(value)),)),
    FunctionType: _function,
    BuiltinFunctionType: lambda method: iter((("", method.__self__),)),
    MethodType: lambda method: iter((("", method.__func__), ("", method.__self__))),
    partial: lambda call: iter((("", call.func), ("", call.args), ("", call.keywords))),
    staticmethod: lambda method: iter((("", method.__func__),)),
    classmethod: lambda method: iter((("", method.__func__),)),
    property: lambda made: iter((("", made.fget), ("", made.fset))),
    ModuleType: lambda _: iter(()),
    Namespace: lambda _: iter(()),
}
