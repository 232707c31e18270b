"""TMM: ternary products, and all else that comes out of the stream of weights."""

from __future__ import annotations

import numpy as np

from mmfree_compiler.backends.fpga.isa.machine import Floats, Machine
from mmfree_compiler.backends.fpga.isa.opcode import Instruction, Opcode, Operand
from mmfree_compiler.backends.fpga.strides import packed_lines

FORMATS = {"float32": 4, "bfloat16": 2, "float16": 2}  # bytes of a value


def widened(data: np.ndarray, format_: str) -> Floats:
    """fp32 values (M, n) of bytes (M, n * size), which is exact."""
    if format_ == "bfloat16":
        return (data.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return data.view(format_).astype(np.float32)


def _product(machine: Machine, i: Instruction, _: int) -> None:
    layout, rows = machine.sizes.layout, machine.counts[i.rows]
    first = machine.pop(1 + layout.lines((i.n, i.m)))
    key = first, i.n, i.m
    if key not in machine.weights:
        machine.weights[key] = _weight(machine, *key)
    weight_scale, weight = machine.weights[key]
    codes, scales = machine.code_rows(i.a, rows, i.m)
    # Exact in fp32 up to 2^24; a row of up to 65,535 codes stays below.
    total = codes.astype(np.float32) @ weight.T
    machine.rows(i.dst, rows, i.n)[:] = total * (scales * weight_scale)


def _weight(machine: Machine, first: int, n: int, k: int) -> tuple[np.float32, Floats]:
    """A weight's scale, and its codes (N, K) as fp32: unpacked once."""
    layout = machine.sizes.layout
    lines = machine.memory.lines(first, 1 + layout.lines((n, k)))
    scale: np.float32 = lines[0, :4].view(np.float32)[0]
    return scale, layout.unpack(lines[1:], (n, k)).astype(np.float32)


def _params(machine: Machine, i: Instruction, _: int) -> None:
    format_ = i.opcode.modes[i.mode]
    size = FORMATS[format_]
    count = packed_lines(i.n, size)
    data = machine.memory.lines(machine.pop(count), count).reshape(1, -1)
    machine.rows(i.dst, 1, i.n)[:] = widened(data[:, : i.n * size], format_)


TMM = (
    Opcode(
        "product",
        0x30,
        "tmm",
        (
            Operand("dst", "dst", "rows", "write"),
            Operand("a", "a", "codes", width="m"),
            Operand("n", "n", least=1),
            Operand("k", "m", least=1),
        ),
        "takes a line from the stream, whose first number is weight_scale, and then the lines of a"
        " weight (n, k). dst = float32(sum of codes * weight) * (scale * weight_scale)",
        _product,
        steps=("sum", "convert", "mul"),
    ),
    Opcode(
        "params",
        0x31,
        "tmm",
        (Operand("dst", "dst", "row", "write"), Operand("n", "n", least=1)),
        "dst = n values from the stream, which fill whole lines there, as fp32",
        _params,
        tuple(FORMATS),
        counted=False,
    ),
)
