"""Equality of modules and of their calls: one trace serves equal ones.

Modules are equal when they have the same class, equal plain attributes, parameters of equal shapes
and strides, equal submodules, and no hooks. Calls are equal when their arguments agree in
structure, symbolic shapes and plain values. Values that are neither tensors nor plain never count
as equal, nor do arguments that a forward may change.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from contextlib import suppress
from functools import partial
from types import BuiltinFunctionType, FunctionType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from mmfree_compiler.origin import may_be_models_class

# Plain values without parts, which nothing can change; floats are compared separately.
ATOMS = {bool, int, complex, str, bytes, type(None), torch.dtype, torch.device}
# Attributes of these types, or that are classes, are compared by identity.
_CODE = {FunctionType, BuiltinFunctionType}
_SEQUENCES = {list, set, frozenset}
_MAPPINGS = {dict, OrderedDict}
# Attributes with a module's tensors and submodules, which are compared separately.
_CONTAINERS = ("_parameters", "_buffers", "_modules")


class Unshared(Exception):  # noqa: N818 - not an error: a reason to trace without sharing
    """Two things may not be equal, or a copy would not be exact."""


def signature(module: nn.Module) -> Hashable:
    """A value that equal modules have in common. Raises Unshared when there is none."""
    return _module(module, {})


def _module(module: nn.Module | None, tensors: dict[int, int]) -> Hashable:
    """`tensors` numbers the tensors as they appear: equal modules share them in equal places."""
    if module is None:
        return None
    attributes = {k: v for k, v in vars(module).items() if k not in _CONTAINERS}
    hooks = [name for name, value in attributes.items() if name.endswith("_hooks") and value]
    if hooks or "forward" in attributes:
        raise Unshared(f"{type(module).__name__} has hooks or an instance attribute `forward`")
    held = {**module._parameters, **module._buffers}
    return (
        type(module),
        _plain(attributes, ()),
        tuple((name, _held(x, tensors)) for name, x in held.items()),
        tuple((name, _module(part, tensors)) for name, part in module._modules.items()),
    )


def _held(x: Tensor | None, tensors: dict[int, int]) -> Hashable:
    """A parameter or buffer of a module."""
    if x is None:
        return None
    return type(x), _tensor(x), x.requires_grad, tensors.setdefault(id(x), len(tensors))


def _tensor(x: Tensor) -> Hashable:
    if x.layout is not torch.strided:
        raise Unshared(f"a tensor of layout {x.layout}")
    sizes = (*x.shape, *x.stride())
    return x.dtype, x.device, tuple(s if isinstance(s, int) else s.node.expr for s in sizes)


def _plain(value: Any, around: tuple[int, ...]) -> Hashable:
    """A hashable form of a plain attribute; `around` are the ids of what holds it."""
    with suppress(Unshared):
        return _atom(value)
    kind, inner = type(value), partial(_plain, around=(*around, id(value)))
    if kind in _CODE or isinstance(value, type):
        return kind, value
    if id(value) in around or isinstance(value, Tensor | nn.Module):
        raise Unshared(f"an attribute of type {kind.__name__}")
    if kind in _MAPPINGS:
        return kind, tuple((inner(k), inner(v)) for k, v in value.items())
    if kind in _SEQUENCES or isinstance(value, tuple):
        return kind, tuple(map(inner, value))  # sets with their order, which a loop would see
    if isinstance(value, SimpleNamespace) or _is_configuration(value):
        return kind, id(value), inner(vars(value))
    raise Unshared(f"an attribute of type {kind.__name__}")


def _is_configuration(value: Any) -> bool:
    """Whether it is an object of a model's class; `assumptions.memory` sees when it changes."""
    kind = type(value)
    return bool(kind.__dictoffset__) and may_be_models_class(kind) and not callable(value)


def _atom(value: Any) -> Hashable:
    if type(value) is float:
        return float, repr(value)  # unlike ==, -0.0 differs from 0.0 and NaN equals NaN
    if type(value) in ATOMS:
        return type(value), value
    raise Unshared(f"a value of type {type(value).__name__}")


def argument(leaf: Any) -> Hashable:
    """A value that equal arguments of calls have in common. Raises Unshared when there is none.

    A tensor's offset in its storage is left out: marks pass on new tensors.
    """
    return (type(leaf), _tensor(leaf)) if isinstance(leaf, Tensor) else _atom(leaf)


def modes() -> Hashable:
    """Global settings that a forward may depend on, besides its module and its arguments."""
    return (
        torch.is_grad_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.get_autocast_dtype("cpu"),
        torch.get_default_dtype(),
    )
