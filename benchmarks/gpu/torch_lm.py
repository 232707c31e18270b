"""The MatMul-free LM in torch as a GPU runs it best: static shapes, weights quantized beforehand.

Products are of int8 codes in bf16 with ternary weights in bf16, so they are exact but for their
sums; scales are applied afterwards. Tokens and states are buffers that a call advances in place,
so that a recorded call needs no copies.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.gpu.recurrence import recurrence
from benchmarks.shapes import Shape
from mmfree_compiler.models.config import NORM_EPS
from mmfree_compiler.models.modules import QUANT_EPS

SCALE = 0.02  # of every ternary weight


class Norm(nn.Module):
    """An RMSNorm of width K."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, NORM_EPS)


class Ternary(nn.Module):
    """A BitLinear (..., K) -> (..., N) with the codes {-1, 0, 1} as its weight."""

    def __init__(self, columns: int, rows: int) -> None:
        super().__init__()
        self.norm = Norm(columns)
        codes = torch.randint(-1, 2, (rows, columns), dtype=torch.int8)
        self.weight = nn.Parameter(codes.to(torch.get_default_dtype()), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        peak = y.abs().amax(-1, keepdim=True).clamp(min=QUANT_EPS)
        codes = (y * (127 / peak)).round().clamp(-128, 127)
        out: Tensor = F.linear(codes, self.weight) * (peak * (SCALE / 127))
        return out


class Layer(nn.Module):
    """One layer and its state (B, D)."""

    state: Tensor

    def __init__(self, shape: Shape, batch: int) -> None:
        super().__init__()
        d, ff = shape.hidden, shape.intermediate
        self.attn_norm, self.mlp_norm, self.g_norm = Norm(d), Norm(d), Norm(d)
        self.i, self.f, self.g, self.o = (Ternary(d, d) for _ in range(4))
        self.up, self.down = Ternary(d, 2 * ff), Ternary(ff, d)
        self.bound = nn.Parameter(torch.full((d,), 0.5))
        self.register_buffer("state", torch.zeros(batch, d))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self._mixed(self.attn_norm(x))
        gate, up = self.up(self.mlp_norm(x)).chunk(2, -1)
        out: Tensor = x + self.down(F.silu(gate) * up)
        return out

    def _mixed(self, x: Tensor) -> Tensor:
        i, f, g = self.i(x).float(), self.f(x).float(), self.g(x)
        forget = self.bound + (1 - self.bound) * torch.sigmoid(f)
        h = self._advanced(F.silu(i) * (1 - forget), forget)
        mixed: Tensor = self.o(self.g_norm(g) * F.silu(h))
        return mixed

    def _advanced(self, c: Tensor, forget: Tensor) -> Tensor:
        """Every h of c, forget (B, T, D); the last becomes the state."""
        if c.shape[1] == 1:
            h = (forget[:, 0] * self.state + c[:, 0]).to(self.state.dtype)[:, None]
        else:
            h = recurrence(c, forget, self.state)
        self.state.copy_(h[:, -1])
        return h


class TorchLM(nn.Module):
    """A model of a shape with random weights, for calls of `batch` x `length` tokens.

    Weights and rows have torch's default dtype and device at the time it is made.
    """

    tokens: Tensor

    def __init__(self, shape: Shape, batch: int, length: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(shape.vocabulary, shape.hidden))
        self.layers = nn.ModuleList(Layer(shape, batch) for _ in range(shape.layers))
        self.norm, self.head = Norm(shape.hidden), Ternary(shape.hidden, shape.vocabulary)
        ids = torch.arange(batch * length) % shape.vocabulary
        self.register_buffer("tokens", ids.reshape(batch, length))

    def forward(self) -> Tensor:
        """The logits (B, V) after the tokens; in decoding, the likeliest become the next tokens."""
        x = F.embedding(self.tokens, self.table)
        for layer in self.layers:
            x = layer(x)
        logits: Tensor = self.head(self.norm(x[:, -1]))
        if self.tokens.shape[1] == 1:
            self.tokens.copy_(logits.argmax(-1, keepdim=True))
        return logits

    @property
    def weight_bytes(self) -> int:
        """Bytes of all parameters but the embedding, of which a call reads some rows."""
        sizes = {name: p.numel() * p.itemsize for name, p in self.named_parameters()}
        return sum(size for name, size in sizes.items() if name != "table")
