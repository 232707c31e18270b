"""ROW: norms and quantizers, which need a whole row, and the choice of the next token."""

from __future__ import annotations

import numpy as np

from mmfree_compiler.backends.fpga.isa import arithmetic as f
from mmfree_compiler.backends.fpga.isa import steps
from mmfree_compiler.backends.fpga.isa.machine import Machine
from mmfree_compiler.backends.fpga.isa.opcode import Instruction, Opcode, Operand
from mmfree_compiler.backends.fpga.isa.word import COUNTS

# What precedes the quantizer: nothing, a norm with the weight c, a norm with b and one with c.
NORMS = ("plain", "norm", "norms")
# The numbers of quant's line of constants. The last is 127 / quant_eps, rounded once.
CONSTANTS = ("outer_eps", "inner_eps", "quant_eps", "per_unit")

_WIDTH, _A = Operand("n", "n", least=1), Operand("a", "a", "rows")
_DST = Operand("dst", "dst", "rows", "write")


def _norm(machine: Machine, i: Instruction, _: int) -> None:
    rows = machine.counts[i.rows]
    x, weight = machine.rows(i.a, rows, i.n), machine.rows(i.b, 1, i.n)
    r = f.rstd(f.mean_square(x), machine.number(i.c))
    machine.rows(i.dst, rows, i.n)[:] = x * r * weight


def _center(machine: Machine, i: Instruction, _: int) -> None:
    rows = machine.counts[i.rows]
    x = machine.rows(i.a, rows, i.n)
    deviations = x - f.mean(x)
    machine.rows(i.dst, rows, i.n)[:] = deviations - f.mean(deviations)


def _quant(machine: Machine, i: Instruction, _: int) -> None:
    rows, norms = machine.counts[i.rows], NORMS[i.mode]
    x = machine.rows(i.a, rows, i.n)
    outer, inner, quant, per_unit = (machine.number(i.m, k) for k in range(4))
    v, r = x, np.ones((rows, 1), np.float32)
    if norms == "norm":
        r = f.rstd(f.mean_square(x), inner)
    elif norms == "norms":
        v = x * machine.rows(i.b, 1, i.n)
        r = f.rstd_of_both(f.mean_square(x), f.mean_square(v), outer, inner)
    if norms != "plain":
        v = v * machine.rows(i.c, 1, i.n)
    codes, scales = machine.code_rows(i.dst, rows, i.n)
    codes[:], scales[:] = f.quantized(v, r, quant, per_unit)


def _argmax(machine: Machine, i: Instruction, _: int) -> None:
    logits = machine.rows(i.a, machine.counts[COUNTS.index("wanted")], i.n)
    if not i.mode:
        machine.read = 0
    best = np.argmax(logits, axis=1)  # the first NaN, if there is one
    for w, (token, id_) in enumerate(zip(machine.run.wanted, best, strict=True)):
        peak, before = logits[w, id_], machine.peaks[w]
        if not i.mode or peak > before or (np.isnan(peak) and not np.isnan(before)):
            machine.peaks[w], machine.ids[token] = peak, machine.read + id_
    machine.read += i.n


_NORM_STEPS = ("mul", *steps.RSTD)

ROW = (
    Opcode(
        "norm",
        0x20,
        "row",
        (_DST, _A, Operand("weight", "b", "row"), Operand("eps", "c", "number"), _WIDTH),
        "dst = (a * r) * weight, r = 1 / sqrt(mean_square(a) + eps)",
        _norm,
        passes=3,
        steps=("compare", *_NORM_STEPS, "mul", "mul"),
    ),
    Opcode(
        "center",
        0x21,
        "row",
        (_DST, _A, _WIDTH),
        "d = a - mean(a); dst = d - mean(d)",
        _center,
        passes=5,
        steps=("compare", *steps.MEAN, "add", "compare", *steps.MEAN, "add", "add"),
    ),
    Opcode(
        "quant",
        0x22,
        "row",
        (
            Operand("dst", "dst", "codes", "write"),
            _A,
            Operand("outer", "b", "row", modes=("norms",)),
            Operand("inner", "c", "row", modes=("norm", "norms")),
            Operand("constants", "m", "number"),
            _WIDTH,
        ),
        "codes and scale of v with the factor r (docs/arithmetic.md, Activation codes). plain: v ="
        " a, r = 1. norm: v = a * inner, r = rstd(mean_square(a), inner_eps). norms: u = a * outer,"
        " v = u * inner, and r of a norm after a norm. constants: outer_eps, inner_eps, quant_eps,"
        " 127 / quant_eps",
        _quant,
        NORMS,
        passes=2,
        steps=("compare", "mul", *_NORM_STEPS, "mul", "mul", "add", "sqrt", "div", "mul", "div"),
    ),
    Opcode(
        "argmax",
        0x23,
        "row",
        (Operand("a", "a", "rows", count="wanted"), _WIDTH),
        "for each wanted token w, id[wanted[w]] = the number of the largest value, the first of"
        " equals; NaN is above all. more: the row goes on where the argmax before it ended",
        _argmax,
        ("first", "more"),
        counted=False,
        registers=(("ids", "update"),),
        steps=("compare",),
    ),
)
