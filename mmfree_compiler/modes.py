"""Running a module so that it computes as in use, and is afterwards as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mmfree_compiler.assumptions.state import State


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """`module` and all its parts are in inference mode; afterwards each is as it was.

    That includes its buffers and other tensors, what its code keeps in Python, and the random
    numbers. Parameters are not copied: a forward that writes into them is the only one that leaves
    a trace.
    """
    state = State.of(module)
    held = filter(_has_values, state.tensors())
    tensors = {id(x): x for x in (*module.buffers(), *held)}
    kept = [(tensor, tensor.clone()) for tensor in tensors.values()]
    try:
        with torch.random.fork_rng(devices=()):
            module.eval()
            yield
    finally:
        state.restore()
        for tensor, before in kept:
            _restore(tensor, before)


@contextmanager
def calling(module: nn.Module) -> Iterator[None]:
    """`module` is called as in use: in inference mode, and it keeps what the call changes."""
    modes = {part: part.training for part in module.modules()}
    try:
        module.eval()
        yield
    finally:
        for part, training in modes.items():
            part.training = training


def _has_values(tensor: Tensor) -> bool:
    """Whether it can be copied and compared: not one that is fake, meta, sparse or freed."""
    is_plain = type(tensor) is Tensor and tensor.layout is torch.strided and not tensor.is_meta
    return is_plain and (not tensor.numel() or bool(tensor.untyped_storage().nbytes()))


@torch.no_grad()
def _restore(tensor: Tensor, before: Tensor) -> None:
    if not torch.equal(tensor, before):
        tensor.copy_(before)
