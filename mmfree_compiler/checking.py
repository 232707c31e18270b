"""Comparing a compiled Program with its module: both run in torch on the same inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from mmfree_compiler.adapters import adapted
from mmfree_compiler.backends.interface import Batch
from mmfree_compiler.backends.numpy_states import NumpyStates
from mmfree_compiler.backends.reference.interpreter import interpret
from mmfree_compiler.errors import TraceError
from mmfree_compiler.modes import evaluating
from mmfree_compiler.passes import NumericCheck, Observer, Tolerance, compare, relative_error
from mmfree_compiler.program import Program

# "module" compares the final Program with the module; "passes" also compares after every pass.
Check = Literal["module", "passes", False]
CHECKS: tuple[Check, ...] = ("module", "passes", False)
NUDGE = 1e-6  # relative: what fp32 sums of a thousand terms in another order differ by


@dataclass(frozen=True)
class Checker:
    """Compares compiled forms of a module with the module's own outputs for `inputs`."""

    module: nn.Module = field(repr=False)
    inputs: tuple[Tensor, ...] = field(repr=False)
    expected: list[Tensor] | None = field(repr=False)
    check: Check

    @classmethod
    def of(cls, module: nn.Module, inputs: tuple[Tensor, ...], check: Check) -> Checker:
        """Runs the module now."""
        return cls(module, inputs, _outputs(module, inputs) if check else None, check)

    @property
    def observers(self) -> tuple[Observer, ...]:
        """What is to look at every pass."""
        if self.check != "passes":
            return ()
        return (NumericCheck(self._run, self.expected, self._tolerance),)

    def final(self, made: Any) -> None:
        """Raise MmfreeError if the outputs of `made`, a Program or a function, differ."""
        if self.expected is not None:
            hint = 'This is a bug of the compiler: check="passes" finds the pass'
            compare(self._run(made), self.expected, self._tolerance, "the compiled model", hint)

    @cached_property
    def _tolerance(self) -> Tolerance:
        """One for all comparisons, so that the noise is measured once at most."""
        return Tolerance(noise=cache(self._noise))

    def _noise(self) -> float:
        """How far the module's outputs move when its norms and inputs are off by rounding."""
        assert self.expected is not None
        nudged = _outputs(_Nudged(self.module), tuple(map(_nudge, self.inputs)))
        pairs = zip(nudged, self.expected, strict=True)
        return max((relative_error(new, old) for new, old in pairs), default=0.0)

    def _run(self, subject: Any) -> list[Tensor]:
        if isinstance(subject, Program):
            return run_program(subject, self.inputs)
        return _call(subject, self.inputs)


class _Nudged(nn.Module):
    """The same module, its vectors of parameters (norms, biases) off by rounding."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Tensor) -> Any:
        vectors = {name: p for name, p in self.module.named_parameters() if p.dim() == 1}
        nudged = {name: _nudge(p.float()) for name, p in vectors.items()}
        return torch.func.functional_call(self.module, nudged, inputs)


def _nudge(x: Tensor) -> Tensor:
    if not x.is_floating_point():
        return x
    random = torch.Generator().manual_seed(0)
    return x * (1 + NUDGE * torch.randn(x.shape, generator=random))


def _call(function: Callable[..., Any], inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """The tensors that it returns for copies of `inputs`, since it may write into them."""
    outputs = pytree.tree_leaves(function(*(x.clone() for x in inputs)))
    return [x for x in outputs if isinstance(x, Tensor)]


@torch.no_grad()
def _outputs(module: nn.Module, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """What the module returns in inference mode; with adapters where it does not run here.

    Raises TraceError when it does not run with them either.
    """
    with evaluating(module):
        try:
            return _call(module, inputs)
        except Exception:  # a third party's forward may raise anything
            return _adapted_outputs(module, inputs)


def _adapted_outputs(module: nn.Module, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    try:
        with adapted(module) as plain:
            return _call(plain, inputs)
    except Exception as error:  # a third party's forward may raise anything
        cause = f"does not run on the example inputs: {type(error).__name__}: {error}"
        hint = "Pass inputs that it takes, or check=False"
        raise TraceError(type(module).__name__, cause, hint) from error


def run_program(program: Program, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """Run a Program with the reference ops, from zero states; returns its outputs (M, width)."""
    arrays = [x.detach().contiguous().numpy() for x in inputs]
    values = [program.values[name] for name in program.inputs]
    leading = arrays[0].shape if values[0].dtype == "int64" else arrays[0].shape[:-1]
    rows = tuple(
        x.reshape(-1).astype(np.int64) if v.dtype == "int64" else x.reshape(-1, v.width)
        for x, v in zip(arrays, values, strict=True)
    )
    batch = Batch.whole(rows, leading)
    states = NumpyStates.zero(program.states, int(batch.slots[-1]) + 1)
    return [torch.from_numpy(output) for output in interpret(program, batch, states.arrays)]
