"""The pipeline steps of the units, and how many cycles each takes.

One divider and one square root: both are pipelined, and take a bit of the result in a cycle. The
cycles are those of common fp32 cores at 300 MHz, and those that units of these depths need.
"""

from __future__ import annotations

CYCLES = {
    "add": 7,  # and subtract
    "mul": 4,
    "div": 28,
    "sqrt": 28,
    "compare": 2,  # max, min, abs, neg, select
    "convert": 4,  # between fp32 and integers, with rounding
    "sum": 12,  # of the lanes' integers: a tree of adders
}
_HORNER = ("mul", "add") * 4
EXP = (
    *("compare", "mul", "convert"),
    *("mul", "add", "mul", "add"),
    *(*_HORNER, "mul", "add", "add", "mul", "mul"),
)
SIGMOID = ("compare", *EXP, "add", "div")
SILU = (*SIGMOID, "mul")
FORGET = (*SIGMOID, "mul", "add")
TANH = ("mul", *_HORNER, "mul", "mul", "add", *EXP, "add", "div", "add", "compare")
MEAN = ("convert", "sum", "convert", "mul", "mul", "div")
RSTD = (*MEAN, "add", "sqrt", "div")


def latency(steps: tuple[str, ...]) -> int:
    """Cycles from the last element that goes into a pipeline to the result."""
    return sum(CYCLES[step] for step in steps)
