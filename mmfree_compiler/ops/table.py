"""The table of ops. A row has an op's kind, operand roles, state rule and spellings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeVar, get_args

import torch
from torch import Tensor

from mmfree_compiler.ops.spelling import Spellings
from mmfree_compiler.program import Role

# How an op constrains a schedule:
#   pointwise  column n of the output needs column n of the operands, of the same token
#   scan       pointwise in columns, sequential in time, carries a state
#   row        needs the token's whole row
#   linear     needs the whole row of codes, makes any column on its own
#   gather     reads a row of a constant table
#   compound   must be rewritten by a pass before any backend sees it
Kind = Literal["pointwise", "scan", "row", "linear", "gather", "compound"]
KINDS: tuple[Kind, ...] = get_args(Kind)

ROLES: tuple[Role, ...] = get_args(Role)

Form = Literal["tensor", "tensors", "scalar"]  # "tensors" is a list of them
_FORMS: dict[str, Form] = {
    "Tensor": "tensor",
    "Optional[Tensor]": "tensor",
    "List[Tensor]": "tensors",
}

T = TypeVar("T")


@dataclass(frozen=True)
class Parameter:
    """A parameter of an op; an optional tensor is a "tensor" too."""

    name: str
    form: Form


@dataclass(frozen=True)
class StateRule:
    """The state that a scan carries from one call to the next; it is the scan's last parameter.

    `shape` maps the shape of each argument (None if absent) to the shape of the state of one
    sequence; only the last dimension of rows counts. `after` maps the output and all arguments, of
    which the last is the state before the call, to the state after the call. Both states have a
    leading batch dimension; a sequence starts with zeros.
    """

    shape: Callable[..., tuple[int, ...]]
    after: Callable[..., Tensor]


@dataclass(frozen=True)
class Op:
    """One row of the table. `roles` has the parameters whose role is not "row"."""

    name: str
    kind: Kind
    reference: Callable[..., Any]
    roles: Mapping[str, Role]
    state: StateRule | None
    aten: Spellings

    def __str__(self) -> str:
        return f"mmfree.{self.name}"

    @property
    def overload(self) -> Any:
        """`torch.ops.mmfree.<name>.default`."""
        return getattr(torch.ops.mmfree, self.name).default

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        """In the order of the signature."""
        arguments = self.overload._schema.arguments
        return tuple(Parameter(a.name, _FORMS.get(str(a.type), "scalar")) for a in arguments)

    def role(self, parameter: str) -> Role:
        """What a constant operand for `parameter` holds."""
        return self.roles.get(parameter, "row")

    def roles_of(self, inputs: Sequence[T]) -> list[tuple[T, Role]]:
        """Each input of a Program's Node with its role; the items of a list are consecutive."""
        tensors = [p for p in self.parameters if p.form != "scalar"]
        items = len(inputs) - len(tensors) + 1  # no op has more than one list
        count = {"tensor": 1, "tensors": items}
        roles = [self.role(p.name) for p in tensors for _ in range(count[p.form])]
        return list(zip(inputs, roles, strict=True))


OPS: dict[str, Op] = {}
