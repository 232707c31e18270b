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

    That includes its buffers, what its code keeps in Python, and the random numbers. Parameters
    are not copied: a forward that writes into them is the only one that leaves a trace.
    """
    state = State.of(module)
    buffers = [(buffer, buffer.clone()) for buffer in module.buffers()]
    try:
        with torch.random.fork_rng(devices=()):
            module.eval()
            yield
    finally:
        state.restore()
        for buffer, before in buffers:
            _restore(buffer, before)


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


@torch.no_grad()
def _restore(buffer: Tensor, before: Tensor) -> None:
    if not torch.equal(buffer, before):
        buffer.copy_(before)
