"""Names in an ONNX model: of its inputs and outputs, which run/ feeds, and of its functions.

Inputs are the ports, then the states; outputs are the ports, then the states after the call. Token
ids are (batch, time) int64, rows (batch, time, width) float32, a state (batch, count, *shape).
"""

from __future__ import annotations

from typing import NamedTuple

BATCH, TIME = "batch", "time"
# What states are called before and after a call; the first also by a scan's function.
STATE, NEXT = "state", "next"
# What a product calls the columns of codes, and of its weight, that are in no block.
REST, REST_WEIGHT = "rest", "rest_weight"

# The functions of a model: one for each op, and more where bodies differ, by widths for example.
DOMAIN = "mmfree"


def function_name(op: str, version: int) -> str:
    """What a function that computes `op` is called."""
    return f"{op}__{version}" if version else op


def op_of(function: str) -> str:
    """The op that a function of this name computes."""
    return function.partition("__")[0]


class Side(NamedTuple):
    """What ports on one side are called: the `only` one of a language model, others by `prefix`."""

    only: str
    prefix: str


INPUTS, OUTPUTS = Side("tokens", "input"), Side("logits", "output")


def port_names(kind: str, names: tuple[str, ...], side: Side) -> tuple[str, ...]:
    """What the ports of a model of this kind are called that the manifest calls `names`."""
    return (side.only,) if kind == "lm" else tuple(f"{side.prefix}.{name}" for name in names)


def state_names(names: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What states are called as inputs and as outputs."""
    return tuple(f"{STATE}.{name}" for name in names), tuple(f"{NEXT}.{name}" for name in names)
