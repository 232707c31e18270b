"""Registering ops: the decorator of an op's reference, and its checks."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import reduce
from types import MappingProxyType
from typing import Any, TypeVar

import torch
from torch import Tensor

from mmfree_compiler.errors import InputError
from mmfree_compiler.ops.spelling import Spellings
from mmfree_compiler.ops.table import KINDS, OPS, ROLES, Kind, Op, StateRule
from mmfree_compiler.program import Role

Reference = TypeVar("Reference", bound=Callable[..., Any])


def broadcast(*operands: Tensor) -> Tensor:
    """The shape rule of pointwise ops: an fp32 row as wide as the widest operand."""
    return like_first(reduce(torch.add, operands))


def like_first(x: Tensor, *_: object, **__: object) -> Tensor:
    """The shape rule of ops that make an fp32 row as wide as their first operand."""
    return torch.empty_like(x, dtype=torch.float32)


def op(
    kind: Kind,
    fake: Callable[..., Any] = broadcast,
    *,
    roles: Mapping[str, Role] = MappingProxyType({}),
    state: StateRule | None = None,
    aten: Spellings = MappingProxyType({}),
) -> Callable[[Reference], Reference]:
    """Register the decorated reference as `mmfree::<its name>`; `fake` is its shape rule.

    `roles`, `state` and `aten` are the fields of `Op`. Raises InputError on a wrong declaration;
    `_problems` lists the causes.
    """

    def register(reference: Reference) -> Reference:
        new = Op(reference.__name__, kind, reference, roles, state, aten)
        for cause, hint in _problems(new):
            raise InputError(f"op {new.name}", cause, hint)
        name = f"mmfree::{new.name}"
        torch.library.custom_op(name, reference, mutates_args=()).register_fake(fake)
        OPS[new.name] = new
        return reference

    return register


def _problems(new: Op) -> Iterator[tuple[str, str]]:
    """The problems of a declaration, as causes and hints."""
    if new.name in OPS:
        yield "is already declared", "Give the function another name"
    if new.kind not in KINDS:
        yield f"{new.kind!r} is not a kind", f"Known: {', '.join(KINDS)}"
    if new.kind == "scan" and new.state is None:
        yield "is a scan without a state rule", "Pass state=StateRule(shape, after)"
    if new.kind != "scan" and new.state is not None:
        yield f"is a {new.kind} op with a state rule", "Only a scan has a state"
    parameters = inspect.signature(new.reference).parameters
    for parameter, role in new.roles.items():
        if parameter not in parameters:
            yield f"{parameter!r} is not a parameter", f"Known: {', '.join(parameters)}"
        if role not in ROLES:
            yield f"{role!r} is not a role", f"Known: {', '.join(ROLES)}"
    claimed = {overload: other.name for other in OPS.values() for overload in other.aten}
    for overload in new.aten.keys() & claimed:
        yield f"{overload} is a spelling of {claimed[overload]} too", "Name it in one op's file"
