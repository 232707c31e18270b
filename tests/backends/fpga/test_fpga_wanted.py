"""What only wanted tokens need: their rows alone, and nothing of it where none is wanted."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from fpga_programs import facts, program
from op_modules import SmallLM, mm
from torch import Tensor, nn

import mmfree_compiler as mmf
from mmfree_compiler.backends.fpga.run.simulator import Simulator
from mmfree_compiler.backends.interface import Batch
from mmfree_compiler.runtime import Session

IDS = (torch.zeros(1, 2, dtype=torch.int64),)
TINY_HEAD = (37, 24)  # of TinyLM, in fpga_programs


class Lookup(nn.Module):
    """Logits are the rows of a table."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.rand(37, 37, generator=torch.Generator().manual_seed(2))

    def forward(self, ids: Tensor) -> Tensor:
        out: Tensor = mm.embedding(ids, self.table)
        return out


class Skip(Lookup):
    """The logits alone read an embedding, beside what the states need."""

    def forward(self, ids: Tensor) -> Tensor:
        x = mm.embedding(ids, self.table)
        h = mm.mlgru_scan(x, mm.sigmoid(x))
        out: Tensor = mm.add(h, mm.embedding(ids, self.table[:, :1] * self.table))
        return out


def both(model: nn.Module) -> list[Session]:
    return [
        mmf.compile(model, target, example_inputs=IDS, check=False).session
        for target in ("fpga:ecp5-85", "reference")
    ]


@pytest.mark.parametrize("wanted", [[2], [0, 3], []])
@pytest.mark.parametrize("model", [Lookup, Skip, SmallLM])
def test_rows_of_wanted_tokens(model: type[nn.Module], wanted: list[int]) -> None:
    ids, slots = np.array([5, 9, 3, 30]), np.array([0, 1, 1, 0], np.int32)
    batch = Batch((ids,), slots, np.array([0, 0, 1, 1]), np.array(wanted, np.intp))
    made: list[Any] = []
    for session in both(model()):
        states = session.zero_state(2).states
        made.append((session.launcher.run(batch, states)[0], states.export()))
    (rows, after), (expected, theirs) = made
    assert np.array_equal(rows, expected)
    for name, array in theirs.items():
        assert np.array_equal(after[name], array)


def streamed(role: str) -> int:
    (stream,) = (i for i in program(role) if i.opcode.name == "stream")
    return stream.get("length")


def test_states_alone_need_no_head() -> None:
    """The norm in front of the head, its scale and its weight."""
    products = {role: _count(role, "product") for role in ("forward", "advance", "decode")}
    assert products == {"forward": 8, "advance": 7, "decode": 8}
    head = 1 + facts().layout.lines(TINY_HEAD)
    assert streamed("forward") - streamed("advance") > head
    assert streamed("decode") == streamed("forward")


def _count(role: str, name: str) -> int:
    return sum(i.opcode.name == name for i in program(role))


def test_chunks_of_a_prompt() -> None:
    """All but the last one run without the head."""
    ours, theirs = both(SmallLM())
    prompt = np.arange(150) % 37
    with mock.patch.object(Simulator, "run", autospec=True, side_effect=Simulator.run) as run:
        token = next(ours.generate(prompt, temperature=0))
    assert token == next(theirs.generate(prompt, temperature=0))
    programs = [call.args[1].tobytes() for call in run.call_args_list]
    assert len(programs) > 2
    assert len(set(programs[:-1])) == 1
    assert programs[-1] != programs[0]
    a, b = (each.prefill(prompt).export() for each in (ours, theirs))
    assert all(np.array_equal(a[name], b[name]) for name in b)
