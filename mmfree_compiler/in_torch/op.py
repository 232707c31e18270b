"""A run of a compiled model as a custom op of torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from uuid import uuid4
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from mmfree_compiler.artifact import Port
from mmfree_compiler.backends.device_interface import Kernels, Tensors
from mmfree_compiler.errors import InputError

Sizes = tuple[int, ...]  # of a tensor


@dataclass(eq=False)
class Runnable:
    """What a module runs; ops take strings, not objects, so it has a `key` while it lives.

    Keys are random, so those that a traced copy took to another process name nothing there. Its
    weights are `weight_bytes` on `device`.
    """

    kernels: Kernels
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    device: torch.device
    weight_bytes: int
    key: str = field(default_factory=lambda: uuid4().hex)

    def __post_init__(self) -> None:
        _ALL[self.key] = self

    def made(self, x: Tensor) -> list[Tensor]:
        """New outputs for an input (B, T) or (B, T, width)."""
        leading = x.shape[:2]
        return [x.new_empty((*leading, port.width), dtype=torch.float32) for port in self.outputs]

    def taken(self, batch: int, time: int) -> Iterator[tuple[Sizes, torch.dtype, torch.device]]:
        """Weights, inputs and state of a run."""
        yield (self.weight_bytes,), torch.uint8, self.device
        for port in self.inputs:
            ids = port.dtype == "int64"
            dtype = torch.int64 if ids else torch.float32
            yield (batch, time) if ids else (batch, time, port.width), dtype, self.device
        yield (batch, self.kernels.state_width), torch.float32, self.device


_ALL: WeakValueDictionary[str, Runnable] = WeakValueDictionary()


def _runnable(key: str) -> Runnable:
    runnable = _ALL.get(key)
    if runnable is None:
        hint = "Keep it while something runs it, and save its artifact instead of a traced copy"
        raise InputError("a compiled module", "is gone", hint)
    return runnable


@torch.library.custom_op("mmfree::run_compiled", mutates_args=())
def run_compiled(weights: Tensor, inputs: list[Tensor], state: Tensor, key: str) -> list[Tensor]:
    """Run the Runnable of a key on inputs (B, T) int64 or (B, T, width) float32.

    Returns outputs (B, T, width) float32 and the state (B, numbers) float32 after them. Raises
    InputError.
    """
    runnable = _runnable(key)
    batch, time = _sizes(runnable, weights, inputs, state)
    kernels = runnable.kernels
    _check_prepared(kernels, batch, time)
    given, made = [x.contiguous() for x in inputs], runnable.made(inputs[0])
    after = state.clone(memory_format=torch.contiguous_format)
    scratch = weights.new_empty(kernels.scratch)
    tensors = Tensors(
        weights.data_ptr(),
        scratch.data_ptr(),
        after.data_ptr(),
        tuple(x.data_ptr() for x in given),
        tuple(x.data_ptr() for x in made),
    )
    stream = torch.cuda.current_stream(weights.device).cuda_stream if weights.is_cuda else 0
    kernels.launch(tensors, batch, time, stream)
    return [*made, after]


@run_compiled.register_fake
def _(
    weights: Tensor,  # noqa: ARG001 - the op's
    inputs: list[Tensor],
    state: Tensor,
    key: str,
) -> list[Tensor]:
    return [*_runnable(key).made(inputs[0]), state.new_empty(state.shape)]


def _sizes(
    runnable: Runnable, weights: Tensor, inputs: list[Tensor], state: Tensor
) -> tuple[int, int]:
    """Sequences and tokens of a run. Raises InputError where kernels would leave a tensor's memory.

    A module has checked its own arguments; a traced copy of it passes what it is given.
    """
    batch, time = (*inputs[0].shape, 0, 0)[:2]
    found = [(tuple(x.shape), x.dtype, x.device) for x in (weights, *inputs, state)]
    if not batch * time or found != list(runnable.taken(batch, time)):
        cause = "was called with tensors of other sizes, dtypes or devices than its own"
        hint = "Call the module itself, not a traced or exported copy"
        raise InputError("a compiled module", cause, hint)
    return batch, time


def _check_prepared(kernels: Kernels, batch: int, time: int) -> None:
    """Raise InputError where a graph is captured that the kernels cannot be captured in yet."""
    captured = torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()
    if captured and not kernels.is_prepared(batch, time):
        cause = f"has not run {batch} x {time} tokens before this capture"
        hint = "Call it once with inputs of these sizes first"
        raise InputError("a compiled module", cause, hint)
