"""The inputs and outputs of an ONNX model: what compile/ declares and run/ feeds.

Inputs are the ports, then the states; outputs are the ports, then the states after the call. Token
ids are (batch, time) int64, rows (batch, time, width) float32, a state (batch, count, *shape).
"""

from __future__ import annotations

BATCH, TIME = "batch", "time"
# Of a language model; those of other modules are called as the manifest calls them.
TOKENS, LOGITS = "tokens", "logits"


def port_names(kind: str, names: tuple[str, ...], port: str) -> tuple[str, ...]:
    """What the ports of a model of this kind are called: `port` is the one of a language model."""
    return (port,) if kind == "lm" else tuple(f"{port}.{name}" for name in names)


def state_names(names: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What states are called as inputs and as outputs."""
    return tuple(f"state.{name}" for name in names), tuple(f"next.{name}" for name in names)
