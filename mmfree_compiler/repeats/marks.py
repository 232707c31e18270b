"""Operators that mark, while a graph is traced, where a module begins, ends, and repeats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def _like(x: Tensor) -> Tensor:
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=x.device)


# Shape rules take the arguments of their operators.
def _pass_on(tensors: Sequence[Tensor], leader: int) -> list[Tensor]:  # noqa: ARG001
    return [_like(x) for x in tensors]


def _repeat(tensors: Sequence[Tensor], leader: int, index: int) -> list[Tensor]:  # noqa: ARG001
    return [_like(x) for x in OUTPUTS[leader]]


def _mark(name: str, numbers: str, fake: Any) -> Any:
    """An operator that occurs in traced graphs only: it has a shape rule and no kernel."""
    torch.library.define(f"mmfree_trace::{name}", f"(Tensor[] tensors, {numbers}) -> Tensor[]")
    torch.library.register_fake(f"mmfree_trace::{name}", fake)
    return getattr(torch.ops.mmfree_trace, name).default


ENTER = _mark("enter", "int leader", _pass_on)
LEAVE = _mark("leave", "int leader", _pass_on)
REPEAT = _mark("repeat", "int leader, int index", _repeat)
MARKS = (ENTER, LEAVE, REPEAT)
OUTPUTS: dict[int, list[Tensor]] = {}  # leader's number -> its fake results, while tracing
