"""A run of a compiled model as a custom op of torch."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from mmfree_compiler.backends.device_interface import Kernels, Tensors
from mmfree_compiler.errors import InputError

_NUMBERS = itertools.count()


@dataclass(eq=False)
class Runnable:
    """What a module runs; ops take numbers, not objects, so it has a `number` while it lives.

    `widths` are those of the outputs.
    """

    kernels: Kernels
    widths: tuple[int, ...]
    number: int = field(default_factory=lambda: next(_NUMBERS))

    def __post_init__(self) -> None:
        _ALL[self.number] = self

    def made(self, x: Tensor) -> list[Tensor]:
        """New outputs for an input (B, T) or (B, T, width)."""
        leading = x.shape[:2]
        return [x.new_empty((*leading, n), dtype=torch.float32) for n in self.widths]


_ALL: WeakValueDictionary[int, Runnable] = WeakValueDictionary()


def _runnable(number: int) -> Runnable:
    if number not in _ALL:
        raise InputError("a compiled module", "is gone", "Keep it while something runs it")
    return _ALL[number]


@torch.library.custom_op("mmfree::run_compiled", mutates_args=())
def run_compiled(weights: Tensor, inputs: list[Tensor], state: Tensor, number: int) -> list[Tensor]:
    """Run the Runnable of a number on inputs (B, T) int64 or (B, T, width) float32.

    Returns outputs (B, T, width) float32 and the state (B, numbers) float32 after them.
    """
    runnable = _runnable(number)
    kernels, (batch, time) = runnable.kernels, inputs[0].shape[:2]
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
    number: int,
) -> list[Tensor]:
    return [*_runnable(number).made(inputs[0]), state.new_empty(state.shape)]


def _check_prepared(kernels: Kernels, batch: int, time: int) -> None:
    """Raise InputError where a graph is captured that the kernels cannot be captured in yet."""
    captured = torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()
    if captured and not kernels.is_prepared(batch, time):
        cause = f"has not run {batch} x {time} tokens before this capture"
        hint = "Call it once with inputs of these sizes first"
        raise InputError("a compiled module", cause, hint)
