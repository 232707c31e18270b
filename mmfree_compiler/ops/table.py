"""The op table and how an op enters it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# How an op constrains a schedule:
#   pointwise  column n of the output needs column n of the inputs, of the same token
#   scan       pointwise in columns, sequential in time, carries a state
#   row        needs the token's whole row
#   linear     needs the whole row of codes, makes any column on its own
#   gather     reads a row of a constant table
#   compound   must be rewritten by a pass before any backend sees it
KINDS = ("pointwise", "scan", "row", "linear", "gather", "compound")


@dataclass(frozen=True)
class Op:
    """One row of the table: `overload` is torch.ops.mmfree.<name>.default."""

    name: str
    kind: str
    reference: Callable[..., Any]
    overload: Any

    def __str__(self) -> str:
        return f"mmfree.{self.name}"


OPS: dict[str, Op] = {}


def op(kind: str, fake: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the decorated reference as `mmfree::<its name>`; `fake` is its shape rule."""

    def register(reference: Callable[..., Any]) -> Callable[..., Any]:
        name = reference.__name__
        torch.library.custom_op(f"mmfree::{name}", reference, mutates_args=()).register_fake(fake)
        OPS[name] = Op(name, kind, reference, getattr(torch.ops.mmfree, name).default)
        return reference

    return register


def like_first(x: Tensor, *_: object, **__: object) -> Tensor:
    return torch.empty_like(x, dtype=torch.float32)
