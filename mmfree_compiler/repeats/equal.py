"""When two modules, and two calls of them, are equal: tracing one of them is tracing both.

Modules are equal when they have one class, equal plain attributes, parameters of equal shapes and
strides, equal submodules, and no hooks. Calls are equal when their arguments agree in structure,
symbolic shapes and plain values. What is neither a tensor nor plain is never known to be equal.
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import partial
from types import BuiltinFunctionType, FunctionType
from typing import Any

import torch
from torch import Tensor, nn

ATOMS = (
    *(bool, int, float, complex, str, bytes, type, type(None)),
    *(torch.dtype, torch.device, FunctionType, BuiltinFunctionType),
)


class Unshared(Exception):  # noqa: N818 - no error: a reason to trace without sharing
    """Something that cannot be known to be equal, or whose copy would not be exact."""


def signature(module: nn.Module) -> Hashable:
    """What equal modules share. Raises Unshared when it cannot be known."""
    return _module(module, {})


def _module(module: nn.Module, tensors: dict[int, int]) -> Hashable:
    """`tensors` numbers the parameters as they appear: modules tie theirs in the same places."""
    own = {
        k: v for k, v in vars(module).items() if k not in ("_parameters", "_buffers", "_modules")
    }
    if "forward" in own or any(value for name, value in own.items() if name.endswith("_hooks")):
        raise Unshared(f"{type(module).__name__} has hooks or a forward of its own")
    held = {**module._parameters, **module._buffers}
    return (
        type(module),
        _plain(own, ()),
        tuple((k, x if x is None else _held(x, tensors)) for k, x in held.items()),
        tuple((k, m if m is None else _module(m, tensors)) for k, m in module._modules.items()),
    )


def _held(x: Tensor, tensors: dict[int, int]) -> Hashable:
    return type(x), _tensor(x), x.requires_grad, tensors.setdefault(id(x), len(tensors))


def _tensor(x: Tensor) -> Hashable:
    if x.layout is not torch.strided:
        raise Unshared(f"a tensor of layout {x.layout}")
    sizes = (*x.shape, *x.stride())
    return x.dtype, x.device, tuple(s if isinstance(s, int) else s.node.expr for s in sizes)


def _plain(value: Any, around: tuple[int, ...]) -> Hashable:
    """A value that is equal for equal plain values; `around` are the containers that hold it."""
    if isinstance(value, ATOMS):
        return type(value), repr(value) if isinstance(value, float) else value
    inner = partial(_plain, around=(*around, id(value)))
    if id(value) in around or isinstance(value, Tensor | nn.Module):
        raise Unshared(f"an attribute of type {type(value).__name__}")
    if isinstance(value, dict):
        return type(value), tuple((inner(k), inner(v)) for k, v in value.items())
    if isinstance(value, list | tuple):
        return type(value), tuple(map(inner, value))
    if isinstance(value, set | frozenset):
        return type(value), frozenset(map(inner, value))
    if hasattr(value, "__dict__") and not callable(value):  # such as a configuration
        return type(value), id(value), inner(vars(value))
    raise Unshared(f"an attribute of type {type(value).__name__}")


def argument(leaf: Any) -> Hashable:
    """What equal arguments share. Raises Unshared.

    Where a tensor lies in its storage is left out: a mark passes on one of its own.
    """
    return _tensor(leaf) if isinstance(leaf, Tensor) else _plain(leaf, ())


def modes() -> Hashable:
    """What a forward may read besides its module and its arguments."""
    return (
        torch.is_grad_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.get_autocast_dtype("cpu"),
        torch.get_default_dtype(),
    )
