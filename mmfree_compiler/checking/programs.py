"""Running a Program with the reference ops, from zero states."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from mmfree_compiler.backends.interface import Batch
from mmfree_compiler.backends.numpy_states import NumpyStates
from mmfree_compiler.backends.reference.interpreter import interpret
from mmfree_compiler.checking.cases import Case
from mmfree_compiler.program import Array, Node, Program, Value


def run_cases(
    program: Program, cases: Sequence[Case], before: Callable[[Node], None]
) -> list[list[Tensor]]:
    """The outputs (*leading, width) of each case; `before` is called with each node that runs.

    All cases are one batch, so that every weight is unpacked once.
    """
    batch = _batch(program, cases)
    states = NumpyStates.zero(program.states, int(batch.slots[-1]) + 1)
    outputs = map(torch.from_numpy, interpret(program, batch, states.arrays, before))
    tokens = [case.tokens for case in cases]
    of_cases = zip(*(torch.split(output, tokens) for output in outputs), strict=True)
    return [
        [rows.reshape(*case.leading, rows.shape[-1]) for rows in found]
        for case, found in zip(cases, of_cases, strict=True)
    ]


def run_program(program: Program, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """The outputs (M, width) for inputs with equal leading dimensions."""
    (outputs,) = run_cases(program, [Case(inputs)], lambda _: None)
    return [rows.flatten(0, -2) for rows in outputs]


def _batch(program: Program, cases: Sequence[Case]) -> Batch:
    values = [program.values[name] for name in program.inputs]
    parts = [Batch.whole(tuple(map(_rows, case.inputs, values)), case.leading) for case in cases]
    slots: list[Array] = []
    for part in parts:
        slots.append(part.slots + (slots[-1][-1] + 1 if slots else 0))
    return Batch(
        tuple(np.concatenate(rows) for rows in zip(*(part.inputs for part in parts), strict=True)),
        np.concatenate(slots).astype(np.int32),
        np.concatenate([part.positions for part in parts]),
        np.arange(sum(case.tokens for case in cases)),
    )


def _rows(x: Tensor, value: Value) -> Array:
    array: Array = x.detach().contiguous().resolve_neg().numpy()
    if value.dtype == "int64":
        return array.reshape(-1).astype(np.int64)
    return array.reshape(-1, value.width)
