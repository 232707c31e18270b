"""Compiled programs for tests of the machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import torch
from op_modules import TinyLM

import mmfree_compiler as mmf
from mmfree_compiler.artifact import Artifact
from mmfree_compiler.backends.fpga.facts import Facts, read_facts
from mmfree_compiler.backends.fpga.isa.encoding import decode_program
from mmfree_compiler.backends.fpga.isa.machine import Machine, Memory, Run, Sizes
from mmfree_compiler.backends.fpga.isa.opcode import Instruction
from mmfree_compiler.backends.fpga.isa.word import NO_WAIT
from mmfree_compiler.backends.fpga.strides import LINE

IDS = torch.zeros(1, 2, dtype=torch.int64)


@cache
def artifact(board: str = "ecp5-85") -> Artifact:
    """TinyLM for a board: three layers in a loop, widths that fill no line."""
    return mmf.compile(TinyLM(), f"fpga:{board}", example_inputs=(IDS,), check=False).artifact


def facts(board: str = "ecp5-85") -> Facts:
    return read_facts(artifact(board).entry.builds[0])


def program(role: str = "forward", board: str = "ecp5-85") -> list[Instruction]:
    build = artifact(board).entry.builds[0]
    return decode_program(artifact(board).members[build.members[role]])


def memories(board: str = "ecp5-85") -> dict[str, int]:
    """The sizes of the memories that instructions touch, in lines."""
    found = facts(board).board
    return {"scratch": found.scratch_lines, "codes": found.code_lines}


def machine(board: str = "ecp5-85") -> Machine:
    """A machine whose memory holds the weights, and random states."""
    own, weights = facts(board), artifact(board).weights
    lines = np.zeros((own.weights, LINE), np.uint8)
    lines.reshape(-1)[: weights.size] = weights
    rest = np.random.default_rng(0).standard_normal((own.memory, LINE // 4)).astype(np.float32)
    board_ = own.board
    sizes = Sizes(board_.scratch_lines, board_.code_lines, own.memory, own.tokens, own.layout)
    return Machine(sizes, Memory(lines, rest.view(np.uint8)))


def run(tokens: int = 3, sequences: int = 2, steps: int = 1) -> Run:
    """Some tokens of some sequences, all of them wanted."""
    index = np.arange(tokens)
    return Run(index * 5, np.sort(index % sequences), index, sequences, steps)


def without(instruction: Instruction, u: int) -> Instruction:
    """The instruction, without its wait for unit u."""
    waits = list(instruction.waits)
    waits[u] = NO_WAIT
    return replace(instruction, waits=tuple(waits))


def changed(program: Sequence[Instruction], place: int, new: Instruction) -> list[Instruction]:
    return [*program[:place], new, *program[place + 1 :]]
