"""VEC: functions of columns, one after the other, and the scans."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mmfree_compiler.backends.exp import exp
from mmfree_compiler.backends.fpga.isa import arithmetic as f
from mmfree_compiler.backends.fpga.isa import steps
from mmfree_compiler.backends.fpga.isa.machine import Floats, Machine, MachineError
from mmfree_compiler.backends.fpga.isa.opcode import FORMS, Instruction, Opcode, Operand
from mmfree_compiler.backends.fpga.isa.word import COUNTS

_WIDTH = Operand("n", "n", least=1)
_DST, _A = Operand("dst", "dst", "rows", "write"), Operand("a", "a", "rows")


def _unary(
    name: str, code: int, meaning: str, function: Callable[[Floats], Any], *taken: str
) -> Opcode:
    def run(machine: Machine, i: Instruction, _: int) -> None:
        rows = machine.counts[i.rows]
        machine.rows(i.dst, rows, i.n)[:] = function(machine.rows(i.a, rows, i.n))

    return Opcode(name, code, "vec", (_DST, _A, _WIDTH), f"dst = {meaning}", run, steps=taken)


def _binary(
    name: str, code: int, meaning: str, function: Callable[[Floats, Any], Any], *taken: str
) -> Opcode:
    def run(machine: Machine, i: Instruction, _: int) -> None:
        rows = machine.counts[i.rows]
        a, b = machine.rows(i.a, rows, i.n), _second(machine, i, rows)
        machine.rows(i.dst, rows, i.n)[:] = function(a, b)

    operands = (_DST, _A, Operand("b", "b", "form"), _WIDTH)
    return Opcode(name, code, "vec", operands, f"dst = {meaning}", run, FORMS, steps=taken)


def _second(machine: Machine, i: Instruction, rows: int) -> Any:
    """The operand b: rows, one row for all tokens, or a number."""
    if FORMS[i.mode] == "number":
        return machine.number(i.b)
    return machine.rows(i.b, rows if FORMS[i.mode] == "rows" else 1, i.n)


def _select(machine: Machine, i: Instruction, _: int) -> None:
    found = machine.rows(i.a, machine.counts[COUNTS.index("tokens")], i.n)[machine.run.wanted]
    machine.rows(i.dst, machine.counts[COUNTS.index("wanted")], i.n)[:] = found


def _scan(machine: Machine, i: Instruction, _: int) -> None:
    tokens, sequences = _tokens(machine, i)
    out, c, forget = (machine.rows(line, tokens, i.n) for line in (i.dst, i.a, i.b))
    states = machine.rows(i.c, sequences, i.n)
    for t, sequence in enumerate(machine.run.sequence):
        states[sequence] = forget[t] * states[sequence] + c[t]
        out[t] = states[sequence]


def _conv(machine: Machine, i: Instruction, _: int) -> None:
    tokens, sequences = _tokens(machine, i)
    out, x = machine.rows(i.dst, tokens, i.n), machine.rows(i.a, tokens, i.n)
    taps = machine.rows(i.b, i.m, i.n)
    states = machine.rows(i.c, sequences * i.m, i.n).reshape(sequences, i.m, i.n)
    for t, sequence in enumerate(machine.run.sequence):
        state = states[sequence]
        state[:-1], state[-1] = state[1:].copy(), x[t]
        total = taps[0] * state[0]
        for tap in range(1, i.m):
            total = total + taps[tap] * state[tap]
        out[t] = total


def _tokens(machine: Machine, i: Instruction) -> tuple[int, int]:
    """The number of tokens, and of their sequences. Raises MachineError on other rows."""
    if COUNTS[i.rows] != "tokens":
        raise MachineError(f"{i.opcode.name}", f"runs on rows={COUNTS[i.rows]}, not on tokens")
    return machine.counts[i.rows], machine.counts[COUNTS.index("sequences")]


VEC = (
    _unary("copy", 0x40, "a", lambda a: a),
    _unary("neg", 0x41, "-a", np.negative, "compare"),
    _unary("abs", 0x42, "|a|", np.abs, "compare"),
    _unary("relu", 0x43, "0 if a < 0, else a", f.relu, "compare"),
    _unary("square", 0x44, "a * a", lambda a: a * a, "mul"),
    _unary("sqrt", 0x45, "square root of a", np.sqrt, "sqrt"),
    _unary("recip", 0x46, "1 / a", lambda a: f.ONE / a, "div"),
    _unary("exp", 0x47, "exp(a)", exp, *steps.EXP),
    _unary("sigmoid", 0x48, "sigmoid(a)", f.sigmoid, *steps.SIGMOID),
    _unary("silu", 0x49, "silu(a)", f.silu, *steps.SILU),
    _unary("tanh", 0x4A, "tanh(a)", f.tanh, *steps.TANH),
    _binary("add", 0x50, "a + b", np.add, "add"),
    _binary("sub", 0x51, "a - b", np.subtract, "add"),
    _binary("mul", 0x52, "a * b", np.multiply, "mul"),
    _binary("div", 0x53, "a / b", np.divide, "div"),
    _binary("rdiv", 0x54, "b / a", lambda a, b: b / a, "div"),
    _binary("max", 0x55, "max(a, b)", f.maximum, "compare"),
    _binary("min", 0x56, "min(a, b)", f.minimum, "compare"),
    _binary("swiglu", 0x57, "silu(a) * b", lambda a, b: f.silu(a) * b, *steps.SILU, "mul"),
    _binary(
        "forget",
        0x58,
        "b + (1 - b) * sigmoid(a)",
        lambda a, b: b + (f.ONE - b) * f.sigmoid(a),
        *steps.FORGET,
    ),
    _binary(
        "input", 0x59, "silu(a) * (1 - b)", lambda a, b: f.silu(a) * (f.ONE - b), *steps.SILU, "mul"
    ),
    Opcode(
        "select",
        0x60,
        "vec",
        (
            Operand("dst", "dst", "rows", "write", count="wanted"),
            Operand("a", "a", "rows", count="tokens"),
            _WIDTH,
        ),
        "row w of dst = row wanted[w] of a",
        _select,
        counted=False,
    ),
    Opcode(
        "scan",
        0x61,
        "vec",
        (
            *(_DST, Operand("c", "a", "rows"), Operand("forget", "b", "rows")),
            *(Operand("state", "c", "state", "update"), _WIDTH),
        ),
        "for each token in order: row s of state = (forget * row s) + c, with s the token's"
        " sequence; dst = row s",
        _scan,
        steps=("mul", "add"),
    ),
    Opcode(
        "conv",
        0x62,
        "vec",
        (
            *(_DST, _A, Operand("weight", "b", "taps")),
            *(Operand("state", "c", "states", "update"), _WIDTH, Operand("taps", "m", least=1)),
        ),
        "for each token in order: the m rows of its sequence's state move up by one, a becomes the"
        " last; dst = weight[0] * state[0] + weight[1] * state[1] + ..., from left to right",
        _conv,
        steps=("mul", "add"),
    ),
)
