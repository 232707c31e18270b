"""The op table: every mmfree op declared once. Its reference in plain torch is its meaning.

All values are rows: shape `(..., width)`, a row a token; leading dimensions are batch and time.
The references follow the numerics contract in docs/numerics.md, whose sections the comments cite.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# How an op constrains a schedule:
#   pointwise  column n of the output needs column n of the inputs, of the same token
#   scan       pointwise in columns, sequential in time, carries a state
#   row        needs the token's whole row
#   linear     needs the whole row of codes, makes any column on its own
#   gather     reads a row of a constant table
#   compound   must be rewritten by a pass before any backend sees it
KINDS = ("pointwise", "scan", "row", "linear", "gather", "compound")


@dataclass(frozen=True)
class Op:
    """One row of the table. `state_width(*constant shapes)` is set for scans only (see `SCANS`)."""

    name: str
    kind: str
    reference: Callable[..., Any]
    overload: Any  # torch.ops.mmfree.<name>.default

    def __str__(self) -> str:
        return f"mmfree.{self.name}"


OPS: dict[str, Op] = {}


def _op(kind: str, fake: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the decorated reference as `mmfree::<its name>`; `fake` is its shape rule."""

    def register(reference: Callable[..., Any]) -> Callable[..., Any]:
        name = reference.__name__
        torch.library.custom_op(f"mmfree::{name}", reference, mutates_args=()).register_fake(fake)
        OPS[name] = Op(name, kind, reference, getattr(torch.ops.mmfree, name).default)
        return reference

    return register


def _like_first(x: Tensor, *_: object, **__: object) -> Tensor:
    return torch.empty_like(x, dtype=torch.float32)


def _broadcast(x: Tensor, y: Tensor) -> Tensor:
    return (x + y).float()


# --- reading a table -------------------------------------------------------------------------


@_op(
    "gather", lambda ids, table: table.new_empty((*ids.shape, table.shape[1]), dtype=torch.float32)
)
def embedding(ids: Tensor, table: Tensor) -> Tensor:
    """`table[ids]` widened to fp32: ids (...) int64, table (V, D) of any float dtype."""
    return F.embedding(ids, table).float()


# --- rows: norms and the activation quantizer (numerics 3 and 5) -----------------------------


@_op("row", _like_first)
def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`x / sqrt(mean(x^2) + eps) * weight`."""
    return x / torch.sqrt(x.square().mean(-1, keepdim=True) + eps) * weight


def _gated_norm_fake(g: Tensor, h: Tensor, weight: Tensor, eps: float) -> Tensor:
    return _like_first(g)


@_op("row", _gated_norm_fake)
def gated_norm(g: Tensor, h: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`rms_norm(g, weight, eps) * h * sigmoid(h)`: norm on g, swish on h (numerics 7)."""
    normed: Tensor = rms_norm(g, weight, eps)
    return normed * F.silu(h)


def _codes_like(x: Tensor) -> list[Tensor]:
    scale = x.new_empty((*x.shape[:-1], 1), dtype=torch.float32)
    return [torch.empty_like(x, dtype=torch.int8), scale]


@_op("row", lambda x, quant_eps: _codes_like(x))
def quantize(x: Tensor, quant_eps: float) -> list[Tensor]:
    """Per-token absmax int8: [codes (..., K) int8, scale (..., 1) fp32], `x ~ codes * scale`.

    With `a = 127 / max(max|x|, quant_eps)`: codes are `clamp(round_half_even(x * a), -128, 127)`,
    the scale is `1 / a`.
    """
    absmax = x.abs().amax(-1, keepdim=True).clamp(min=quant_eps)
    return [(x * (127 / absmax)).round().clamp(-128, 127).to(torch.int8), absmax / 127]


def _norm_quant_fake(
    x: Tensor,
    outer: Tensor | None,
    outer_eps: float,
    inners: list[Tensor],
    inner_eps: float,
    quant_eps: float,
) -> list[Tensor]:
    return [tensor for _ in inners for tensor in _codes_like(x)]


@_op("row", _norm_quant_fake)
def norm_quant(
    x: Tensor,
    outer: Tensor | None,
    outer_eps: float,
    inners: list[Tensor],
    inner_eps: float,
    quant_eps: float,
) -> list[Tensor]:
    """Norm, norm and quantize for several consumers: [codes, scale] for each of `inners`.

    `u = rms_norm(x, outer, outer_eps)` (or x when `outer` is None), then for each inner weight
    `quantize(rms_norm(u, inner, inner_eps), quant_eps)`. Backends may use one reduction for all.
    """
    u = x if outer is None else rms_norm(x, outer, outer_eps)
    return [t for w in inners for t in quantize(rms_norm(u, w, inner_eps), quant_eps)]


# --- linear ----------------------------------------------------------------------------------


def _bit_linear_fake(x: Tensor, weight: Tensor, bias: Tensor | None, quant_eps: float) -> Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[0]), dtype=torch.float32)


@_op("compound", _bit_linear_fake)
def bit_linear(x: Tensor, weight: Tensor, bias: Tensor | None, quant_eps: float) -> Tensor:
    """Fake-quantized x times a dequantized ternary weight (N, K). `ternarize` takes it apart."""
    codes, scale = quantize(x, quant_eps)
    return F.linear(codes * scale, weight.float(), bias)


def _ternary_linear_fake(
    codes: Tensor, scale: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor | None
) -> Tensor:
    return codes.new_empty((*codes.shape[:-1], weight.shape[0]), dtype=torch.float32)


@_op("linear", _ternary_linear_fake)
def ternary_linear(
    codes: Tensor, scale: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor | None
) -> Tensor:
    """`sum_k codes_k * weight_nk` as an exact integer, times `scale * weight_scale`, plus bias.

    codes (..., K) int8, scale (..., 1), weight (N, K) int8 in {-1, 0, 1}, weight_scale (1,) fp32.
    fp32 holds the sum exactly for K <= 65536 (numerics 5); float64 is used to hold it for any K.
    """
    total = F.linear(codes.double(), weight.double()).float()
    out = total * (scale * weight_scale)
    return out if bias is None else out + bias


# --- pointwise -------------------------------------------------------------------------------


@_op("pointwise", _like_first)
def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """`silu(gate) * up`."""
    return F.silu(gate) * up


def _mlgru_gates_fake(i: Tensor, f: Tensor, lower_bound: Tensor | None) -> list[Tensor]:
    return [_like_first(i), _like_first(i)]


@_op("pointwise", _mlgru_gates_fake)
def mlgru_gates(i: Tensor, f: Tensor, lower_bound: Tensor | None) -> list[Tensor]:
    """[c, forget] (numerics 7): `forget = LB + (1 - LB) * sigmoid(f)`, `c = silu(i) (1 - forget)`."""
    forget = torch.sigmoid(f)
    if lower_bound is not None:
        forget = lower_bound + (1 - lower_bound) * forget
    return [F.silu(i) * (1 - forget), forget]


POINTWISE_UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda x: x,
    "silu": F.silu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "exp": torch.exp,
    "neg": torch.neg,
    "abs": torch.abs,
    "sqrt": torch.sqrt,
    "square": torch.square,
    "reciprocal": torch.reciprocal,
}
# The second operand is a row of the same width or a constant of width 1 or `width`.
POINTWISE_BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": torch.div,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
}


def _register_pointwise() -> None:
    for name, function in POINTWISE_UNARY.items():

        def unary(x: Tensor, function: Callable[[Tensor], Tensor] = function) -> Tensor:
            return function(x.float()).clone()

        _declare(name, "(Tensor x) -> Tensor", unary, _like_first)
    for name, binary_function in POINTWISE_BINARY.items():

        def binary(
            x: Tensor, y: Tensor, function: Callable[[Tensor, Tensor], Tensor] = binary_function
        ) -> Tensor:
            return function(x.float(), y.float())

        _declare(name, "(Tensor x, Tensor y) -> Tensor", binary, _broadcast)


def _declare(
    name: str, schema: str, reference: Callable[..., Any], fake: Callable[..., Any]
) -> None:
    torch.library.custom_op(
        f"mmfree::{name}", reference, mutates_args=(), schema=schema
    ).register_fake(fake)
    OPS[name] = Op(name, "pointwise", reference, getattr(torch.ops.mmfree, name).default)


_register_pointwise()


# --- scans: pointwise in columns, sequential in time, with a state ---------------------------


def _mlgru_scan_fake(c: Tensor, forget: Tensor, h0: Tensor | None = None) -> Tensor:
    return _like_first(c)


@_op("scan", _mlgru_scan_fake)
def mlgru_scan(c: Tensor, forget: Tensor, h0: Tensor | None = None) -> Tensor:
    """`h_t = forget_t * h_{t-1} + c_t` over time: c, forget (B, T, I); h0 (B, I), zero when None.

    Returns every h_t (B, T, I); the state after it is `h[:, -1]`.
    """
    h = torch.empty_like(c)
    last = torch.zeros_like(c[:, 0]) if h0 is None else h0
    for t in range(c.shape[1]):
        last = torch.addcmul(c[:, t], forget[:, t], last, out=h[:, t])
    return h


def _scan_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, forget, h0 = inputs
    ctx.save_for_backward(forget, output)
    ctx.h0 = h0


def _scan_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """dc_t = dh_t + forget_{t+1} * dc_{t+1}; dforget_t = dc_t * h_{t-1}."""
    forget, h = ctx.saved_tensors
    dc = torch.empty_like(h)
    dc[:, -1] = grad[:, -1]
    for t in range(h.shape[1] - 2, -1, -1):
        torch.addcmul(grad[:, t], forget[:, t + 1], dc[:, t + 1], out=dc[:, t])
    first = torch.zeros_like(h[:, 0]) if ctx.h0 is None else ctx.h0
    previous = torch.cat([first[:, None], h[:, :-1]], dim=1)
    dh0 = None if ctx.h0 is None else forget[:, 0] * dc[:, 0]
    return dc, dc * previous, dh0


torch.library.register_autograd("mmfree::mlgru_scan", _scan_backward, setup_context=_scan_setup)
# Under autocast only matrix products run in lower precision; the recurrence stays fp32.
torch.library.register_autocast("mmfree::mlgru_scan", "cpu", torch.float32)


def _short_conv_fake(
    x: Tensor, weight: Tensor, bias: Tensor | None, state: Tensor | None = None
) -> Tensor:
    return _like_first(x)


@_op("scan", _short_conv_fake)
def short_conv(
    x: Tensor, weight: Tensor, bias: Tensor | None, state: Tensor | None = None
) -> Tensor:
    """Depthwise causal convolution: x (B, T, D), weight (D, k), state (B, k, D) the last k inputs.

    `y_t = sum_j weight_j * x_{t-k+1+j}` (numerics 10, without its silu). The state after it is the
    last k rows of the state followed by x.
    """
    taps = weight.shape[1]
    before = x.new_zeros(x.shape[0], taps, x.shape[2]) if state is None else state
    padded = torch.cat([before[:, 1:], x], dim=1).transpose(1, 2)
    return F.conv1d(padded, weight[:, None], bias, groups=x.shape[2]).transpose(1, 2).contiguous()


def _conv_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _conv_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """Differentiates the reference itself, run again."""
    operands = [None if t is None else t.detach().requires_grad_() for t in ctx.saved_tensors]
    with torch.enable_grad():
        output = short_conv(*operands)
    found = iter(torch.autograd.grad(output, [t for t in operands if t is not None], grad))
    return tuple(None if t is None else next(found) for t in operands)


torch.library.register_autograd("mmfree::short_conv", _conv_backward, setup_context=_conv_setup)
torch.library.register_autocast("mmfree::short_conv", "cpu", torch.float32)
