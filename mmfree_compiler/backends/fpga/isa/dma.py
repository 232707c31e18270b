"""DMA: rows between the device's memory and the scratch memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmfree_compiler.backends.fpga.isa.machine import Floats, Machine, MachineError
from mmfree_compiler.backends.fpga.isa.opcode import Instruction, Opcode, Operand
from mmfree_compiler.backends.fpga.isa.tmm import FORMATS, widened
from mmfree_compiler.backends.fpga.strides import FLOATS, packed_lines, row_lines

_WIDTH, _ADDRESS = Operand("n", "n", least=1), Operand("address", "address")
_DST = Operand("dst", "dst", "rows", "write")
_SOURCE, _STEP = Operand("a", "dst", "rows"), Operand("step", "m")
_STRIDE = Operand("stride", "c")


def _gather(machine: Machine, i: Instruction, iteration: int) -> None:
    format_ = i.opcode.modes[i.mode]
    size, ids = FORMATS[format_], _ids(machine, i)
    lines = packed_lines(i.n, size)
    first = i.address + iteration * i.m * lines
    out = machine.rows(i.dst, len(ids), i.n)
    for t, id_ in enumerate(ids.tolist()):
        row = machine.memory.lines(first + id_ * lines, lines).reshape(1, -1)
        out[t] = widened(row[:, : i.n * size], format_)


def _load(machine: Machine, i: Instruction, iteration: int) -> None:
    for row, lines in _rows(machine, i, iteration, write=False):
        row[:] = lines


def _store(machine: Machine, i: Instruction, iteration: int) -> None:
    for row, lines in _rows(machine, i, iteration, write=True):
        lines[:] = row


def _rows(
    machine: Machine, i: Instruction, iteration: int, write: bool
) -> list[tuple[Floats, Floats]]:
    """Each row in the scratch memory, and its lines in the device's memory."""
    lines = row_lines(i.n)
    first = i.address + iteration * i.m
    rows = machine.rows(i.dst, machine.counts[i.rows], lines * FLOATS)
    return [
        (row, machine.memory.lines(first + r * i.c, lines, write).view(np.float32).reshape(-1))
        for r, row in enumerate(rows)
    ]


def _store_ids(machine: Machine, i: Instruction, iteration: int) -> None:
    ids = _ids(machine, i)
    count = packed_lines(len(ids), 8)
    lines = machine.memory.lines(i.address + iteration * count, count, write=True)
    lines.view(np.int64).reshape(-1)[: len(ids)] = ids


def _ids(machine: Machine, i: Instruction) -> NDArray[np.int64]:
    """Those of the first tokens. Raises MachineError when there are fewer."""
    rows = machine.counts[i.rows]
    if rows > len(machine.ids):
        cause = f"runs on {rows} rows, and there are {len(machine.ids)} tokens"
        raise MachineError(i.opcode.name, cause)
    return machine.ids[:rows]


DMA = (
    Opcode(
        "gather",
        0x10,
        "dma",
        (_DST, _ADDRESS, _WIDTH, Operand("table", "m")),
        "row t of dst = row id[t], as fp32, of the table at address. In a loop, the table is m rows"
        " further on in each iteration",
        _gather,
        tuple(FORMATS),
        registers=(("ids", "read"),),
    ),
    Opcode(
        "load",
        0x11,
        "dma",
        (_DST, _ADDRESS, _WIDTH, _STEP, _STRIDE),
        "row r of dst = the lines at address + r * stride + iteration * step",
        _load,
    ),
    Opcode(
        "store",
        0x12,
        "dma",
        (_SOURCE, _ADDRESS, _WIDTH, _STEP, _STRIDE),
        "the lines at address + r * stride + iteration * step = row r of a",
        _store,
    ),
    Opcode(
        "store_ids",
        0x13,
        "dma",
        (_ADDRESS,),
        "line after line, from address on, id[0], id[1], ... of 8 bytes each; in each iteration"
        " those behind the last",
        _store_ids,
        registers=(("ids", "read"),),
    ),
)
