"""What each op computes, in NumPy: rows (M, width) in, rows out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def silu(x: Any) -> Any:
    return x * sigmoid(x)


def rms_norm(x: Any, weight: Any, eps: float) -> Any:
    return x / np.sqrt(np.mean(x * x, -1, keepdims=True) + np.float32(eps)) * weight


def gated_norm(g: Any, h: Any, weight: Any, eps: float) -> Any:
    return rms_norm(g, weight, eps) * silu(h)


def quantize(x: Any, quant_eps: float) -> list[Any]:
    absmax = np.maximum(np.abs(x).max(-1, keepdims=True), np.float32(quant_eps))
    codes = np.clip(np.rint(x * (127 / absmax)), -128, 127)
    return [codes.astype(np.int8), absmax / 127]


def norm_quant(x: Any, outer: Any, *inners: Any, **eps: Any) -> list[Any]:
    u = x if outer is None else rms_norm(x, outer, eps["outer_eps"])
    rows = [rms_norm(u, inner, eps["inner_eps"]) for inner in inners]
    return [made for row in rows for made in quantize(row, eps["quant_eps"])]


def ternary_linear(codes: Any, scale: Any, weight: Any, weight_scale: Any, bias: Any) -> Any:
    # Exact in fp32: sums of a row of codes stay below 2**24.
    total = codes.astype(np.float32) @ weight.astype(np.float32).T
    out = total * (scale * weight_scale)
    return out if bias is None else out + bias


def mlgru_gates(i: Any, f: Any, lower_bound: Any) -> list[Any]:
    forget = sigmoid(f)
    if lower_bound is not None:
        forget = lower_bound + (1 - lower_bound) * forget
    return [silu(i) * (1 - forget), forget]


OPS: dict[str, Callable[..., Any]] = {
    "add": np.add,
    "mul": np.multiply,
    "silu": silu,
    "embedding": lambda ids, table: table[ids],
    "gated_norm": gated_norm,
    "mlgru_gates": mlgru_gates,
    "norm_quant": norm_quant,
    "quantize": quantize,
    "rms_norm": rms_norm,
    "swiglu": lambda gate, up: silu(gate) * up,
    "ternary_linear": ternary_linear,
}


# Ops with a state: one token, and the state of its sequence, which they update in place.
def mlgru_scan(state: Any, c: Any, forget: Any, _: None) -> Any:
    state[:] = forget * state + c
    return state


def short_conv(state: Any, x: Any, weight: Any, bias: Any, _: None) -> Any:
    state[:] = np.concatenate([state[1:], x[None]])
    out = (state * weight.T).sum(0)
    return out if bias is None else out + bias


SCANS: dict[str, Callable[..., Any]] = {"mlgru_scan": mlgru_scan, "short_conv": short_conv}
