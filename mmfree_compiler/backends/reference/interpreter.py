"""Interpret a Program with the references of the op table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmfree_compiler.backends.interface import Batch
from mmfree_compiler.ops import OPS
from mmfree_compiler.program import Constant, Loop, Node, Program, Stage

StateArrays = dict[str, NDArray[np.float32]]


def interpret(
    program: Program,
    batch: Batch,
    states: StateArrays,
    before: Callable[[Node], None] = lambda _: None,
) -> tuple[NDArray[np.float32], ...]:
    """Outputs (W, width) of the batch's wanted tokens.

    `states` has (sequences, count, *shape) of each StateSlot by name, and is updated in place.
    `before` is called with each node that runs, in order.
    Constants are unpacked when they are read, so it can run a Program after any backend's passes.
    """
    call = _Call(program, {}, batch.slots, states, before)
    for name, rows in zip(program.inputs, batch.inputs, strict=True):
        call.values[name] = torch.from_numpy(np.array(rows))[None]
    with torch.no_grad():
        for step in program.body:
            if isinstance(step, Loop):
                call.loop(step)
            else:
                call.stage(step, 0)
    wanted = torch.from_numpy(np.asarray(batch.wanted))
    return tuple(call.values[name][0, wanted].numpy() for name in program.outputs)


@dataclass(frozen=True)
class _Call:
    """`values` are (1, M, width): every op's reference then sees batch, time, width."""

    program: Program
    values: dict[str, Tensor]
    slots: NDArray[np.int32]
    states: StateArrays
    before: Callable[[Node], None]

    def loop(self, loop: Loop) -> None:
        for initial, inside in loop.carried:
            self.values[inside] = self.values[initial]
        for layer in range(loop.count):
            for stage in loop.body:
                self.stage(stage, layer)
            updates = [self.values[name] for name in loop.updates]
            for (_, inside), result, update in zip(
                loop.carried, loop.results, updates, strict=True
            ):
                self.values[inside] = self.values[result] = update

    def stage(self, stage: Stage, layer: int) -> None:
        for node in stage.nodes:
            self.before(node)
            made = self._scan(node, layer) if node.state else self._apply(node, layer)
            outputs = made if isinstance(made, list) else [made]
            self.values.update(zip(node.outputs, outputs, strict=True))

    def _apply(self, node: Node, layer: int) -> Any:
        return OPS[node.op].overload(*self._arguments(node, layer))

    def _arguments(self, node: Node, layer: int) -> list[Any]:
        """Operands and attributes back in the order of the op's parameters."""
        operands = iter([self._operand(name, layer) for name in node.inputs])
        return list(_in_order(node, operands))

    def _operand(self, name: str | None, layer: int) -> Tensor | None:
        if name is None:
            return None
        constant = self.program.constants.get(name)
        if constant is None:
            return self.values[name]
        return _tensor(constant, layer if len(constant.parts) > 1 else 0)

    def _scan(self, node: Node, layer: int) -> Tensor:
        """Run a scan for each sequence, from its state, and update the state."""
        op, states = OPS[node.op], self.states[str(node.state)][:, layer]
        assert op.state is not None
        arguments = self._arguments(node, layer)[:-1]
        out = torch.empty_like(arguments[0])
        for sequence in np.unique(self.slots):
            at = torch.from_numpy(np.flatnonzero(self.slots == sequence))
            rows = [x[:, at] if _is_row(x, arguments[0]) else x for x in arguments]
            state = torch.from_numpy(states[sequence].copy())[None]
            out[:, at] = made = op.overload(*rows, state)
            states[sequence][:] = op.state.after(made, *rows, state)[0].numpy()
        return out


def _is_row(x: Any, like: Tensor) -> bool:
    return isinstance(x, Tensor) and x.shape == like.shape


def _in_order(node: Node, operands: Iterator[Tensor | None]) -> Iterator[Any]:
    for parameter in OPS[node.op].parameters:
        if parameter.form == "tensors":
            yield [next(operands) for _ in range(int(str(node.attrs["groups"])))]
        else:
            yield next(operands) if parameter.form == "tensor" else node.attrs[parameter.name]


def _tensor(constant: Constant, part: int) -> Tensor:
    array = np.require(constant.array(part), requirements=["W"])
    if constant.dtype == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)
