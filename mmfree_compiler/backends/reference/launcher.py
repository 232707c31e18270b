"""Interpret a Program with the references of the op table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmfree_compiler.ops import OPS, Parameter
from mmfree_compiler.program import Array, Constant, Loop, Node, Program, Stage, StateSlot


@dataclass(frozen=True)
class ReferenceLauncher:
    """The Launcher protocol (runtime/launcher.py) over an unpacked program."""

    program: Program

    def run(
        self,
        inputs: tuple[Array, ...],
        slots: NDArray[np.int32],
        state: NDArray[np.float32],
        first: int,
        outputs: tuple[Array, ...],
    ) -> None:
        """Values are (1, M, width) tensors: every op's reference then sees batch, time, width."""
        call = _Call(self.program, {}, slots, state)
        for name, rows in zip(self.program.inputs, inputs, strict=True):
            value = self.program.values[name]
            tensor = torch.from_numpy(np.ascontiguousarray(rows))
            call.values[name] = (
                tensor[None] if value.dtype == "int64" else tensor[None, :, : value.width]
            )
        for step in self.program.body:
            call.loop(step) if isinstance(step, Loop) else call.stage(step, 0)
        for name, rows in zip(self.program.outputs, outputs, strict=True):
            width = self.program.values[name].width
            rows[:, :width] = call.values[name][0, first:].numpy()


@dataclass(frozen=True)
class _Call:
    program: Program
    values: dict[str, Tensor]
    slots: NDArray[np.int32]
    state: NDArray[np.float32]

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
            made = self._scan(node, layer) if node.state else self._apply(node, layer)
            outputs = made if isinstance(made, list) else [made]
            self.values.update(zip(node.outputs, outputs, strict=True))

    def _operand(self, name: str | None, layer: int) -> Tensor | None:
        if name is None or name in self.values:
            return None if name is None else self.values[name]
        constant = self.program.constants[name]
        return _tensor(constant, layer if len(constant.parts) > 1 else 0)

    def _apply(self, node: Node, layer: int) -> Any:
        return OPS[node.op].overload(*self._arguments(node, layer))

    def _arguments(self, node: Node, layer: int) -> list[Any]:
        """Operands and attributes back in the order of the op's schema."""
        operands = iter([self._operand(name, layer) for name in node.inputs])
        return [_argument(p, operands, node.attrs) for p in OPS[node.op].parameters]

    def _scan(self, node: Node, layer: int) -> Tensor:
        """Sequence by sequence, from and to the sequence's state."""
        op = OPS[node.op]
        assert node.state is not None
        assert op.state is not None
        slot = self.program.state(node.state)
        offset = self.program.state_offset(node.state) + layer * slot.stride
        arguments = self._arguments(node, layer)[:-1]
        out = torch.empty_like(arguments[0])
        for sequence in np.unique(self.slots):
            at = torch.from_numpy(np.flatnonzero(self.slots == sequence))
            part = self.state[sequence, offset : offset + slot.stride]
            rows = [x[:, at] if _is_row(x, arguments[0]) else x for x in arguments]
            rows.append(_read(slot, part))
            out[:, at] = op.overload(*rows)
            _write(slot, part, op.state.after(out[:, at], *rows))
        return out


def _is_row(x: Any, like: Tensor) -> bool:
    return isinstance(x, Tensor) and x.shape == like.shape


def _argument(parameter: Parameter, operands: Any, attrs: Mapping[str, Any]) -> Any:
    if parameter.form == "tensors":
        return [next(operands) for _ in range(attrs["groups"])]
    return next(operands) if parameter.form == "tensor" else attrs[parameter.name]


def _tensor(constant: Constant, part: int) -> Tensor:
    array = constant.parts[part]
    if constant.dtype == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _read(slot: StateSlot, part: NDArray[np.float32]) -> Tensor:
    """A state's (1, *shape), copied out of its padded rows."""
    rows = part.reshape(*slot.shape[:-1], slot.row_stride)[..., : slot.shape[-1]]
    return torch.from_numpy(rows.copy())[None]


def _write(slot: StateSlot, part: NDArray[np.float32], value: Tensor) -> None:
    """Writes a state's (1, *shape) to its padded rows."""
    part.reshape(*slot.shape[:-1], slot.row_stride)[..., : slot.shape[-1]] = value[0].numpy()
