"""Fragments of modules that should compile: layers and ops that the compiler lowers.

What it may refuse is in the tables of rare ones: a module with it tells little about the rest.
"""

from __future__ import annotations

from fuzz.builder import Builder, Lines
from fuzz.quantizers import quantized_layer

POINTWISE = {
    "silu": "F.silu(x)",
    "x * sigmoid": "x * torch.sigmoid(x)",
    "tanh": "torch.tanh(x)",
    "relu": "torch.relu(x)",
    "relu_": "(x * 1.5).relu_()",
    "exp": "torch.exp(x.clamp(max=3.0))",
    "abs": "x.abs()",
    "neg": "-x",
    "square": "x.square().clamp(max=9.0)",
    "sqrt": "torch.sqrt(x.abs() + 0.1)",
    "reciprocal": "1 / (x.abs() + 0.5)",
    "clamp": "x.clamp(-1.5, 2.0)",
    "maximum": "torch.maximum(x, -x * 0.3)",
    "minimum": "torch.minimum(x, x * x)",
    "affine": "x * 1.7 + 0.3",
    "divide": "x / 3",
    "subtract": "0.5 - x",
    "constant row": "x * torch.linspace(-1, 1, $W)",
    "scalar parameter": "x * self.scalar$N",
    "row parameter": "x + self.row$N",
    "relu squared": "torch.relu(x).pow(2)",
}
RARE_POINTWISE = {
    "gelu": "F.gelu(x)",
    "gelu tanh": "F.gelu(x, approximate='tanh')",
    "softplus": "F.softplus(x)",
    "leaky relu": "F.leaky_relu(x, 0.1)",
    "hardswish": "F.hardswish(x)",
}
_ROWS = (
    "self.scalar$N = nn.Parameter(torch.tensor(0.7))\nself.row$N = nn.Parameter(torch.randn($W))"
)
NORMS = {
    "RMSNorm": "self.norm$N = RMSNorm($W)",
    "nn.RMSNorm": "self.norm$N = nn.RMSNorm($W, eps=1e-6)",
    "nn.RMSNorm default": "self.norm$N = nn.RMSNorm($W)",
}
RARE_NORMS = {
    "nn.LayerNorm": "self.norm$N = nn.LayerNorm($W)",
}
REPEATS = {
    "repeated": "nn.ModuleList({layer}($W, $W) for _ in range(3))",
    "shared": "nn.ModuleList([{layer}($W, $W)] * 2)",
    "nested": "nn.ModuleList(nn.Sequential({layer}($W, $W), nn.SiLU()) for _ in range(2))",
}
GATES = {
    "glu chunk": "gate, up = x.chunk(2, -1)",
    "glu split": "gate, up = x.split($W, dim=-1)",
    "glu slices": "gate, up = x[..., :$W], x[..., $W:]",
    "glu swapped": "up, gate = x.chunk(2, -1)",
}
RARE_GATES = {
    "glu unbind": "gate, up = x.unflatten(-1, (2, $W)).unbind(-2)",
}
UNITS = {
    "swiglu": "F.silu(gate) * up",
    "glu": "torch.sigmoid(gate) * up",
    "glu tanh": "torch.tanh(gate) * up",
}
RARE_UNITS = {
    "geglu": "F.gelu(gate) * up",
}
SCANS = {
    "mlgru": "torch.ops.mmfree.mlgru_scan(F.silu(i) * (1 - f), f, None)",
    "mlgru zeros": "torch.ops.mmfree.mlgru_scan(i * (1 - f), f, torch.zeros_like(i[:, 0]))",
}
RARE_SCANS = {
    "mlgru loop": "scanned(i * (1 - f), f)",
    "mlgru state": "torch.ops.mmfree.mlgru_scan(i * (1 - f), f, torch.ones_like(i[:, 0]))",
}
BOUNDS = {
    "no bound": "f",
    "bound": "self.bound$N + (1 - self.bound$N) * f",
    "bound number": "0.3 + 0.7 * f",
}
RARE_BOUNDS = {
    "bound max": "f.clamp(min=0.2)",
}
CONVOLUTIONS = {
    "conv op": "torch.ops.mmfree.short_conv(x, self.taps$N, None, None)",
    "conv bias": "torch.ops.mmfree.short_conv(x, self.taps$N, self.row$N, None)",
}
RARE_CONVOLUTIONS = {
    "conv1d": "F.conv1d(F.pad(x.mT, (3, 0)), self.taps$N[:, None], groups=$W).mT",
    "conv1d padding": "F.conv1d(x.mT, self.taps$N[:, None], None, 1, 3, 1, $W).mT[:, : x.shape[1]]",
    "conv1d ahead": "F.conv1d(F.pad(x.mT, (1, 2)), self.taps$N[:, None], groups=$W).mT",
}
SCANNED = """\
def scanned(c, f):
    h, out = torch.zeros_like(c[:, 0]), []
    for t in range(c.shape[1]):
        h = f[:, t] * h + c[:, t]
        out.append(h)
    return torch.stack(out, 1)"""


def a_layer(b: Builder, near: bool = False) -> str:
    """The class of a quantized layer: the project's own, or one that is written out."""
    if b.rng.random() < 0.5 and not near:
        b.features.append("BitLinear")
        return "BitLinear"
    return quantized_layer(b, near)


def projected(b: Builder, near: bool = False) -> None:
    """A layer, which may change the width."""
    width = b.rng.choice((b.width, 16, 32, 40))
    b.add(Lines("x = self.proj$N(x)", f"self.proj$N = {a_layer(b, near)}($W, {width})"))
    b.width = width


def residual(b: Builder) -> None:
    b.features.append("residual")
    b.add(Lines("x = x + self.proj$N(x)", f"self.proj$N = {a_layer(b)}($W, $W)"))


def pointwise(b: Builder) -> None:
    made = b.pick(POINTWISE, RARE_POINTWISE)
    b.add(Lines(f"x = {made}", _ROWS if "self." in made else ""))


def normed(b: Builder) -> None:
    b.add(Lines("x = self.norm$N(x)", b.pick(NORMS, RARE_NORMS)))


def repeated(b: Builder) -> None:
    layers = b.pick(REPEATS).format(layer=a_layer(b))
    b.add(Lines("for part in self.parts$N:\n    x = part(x)", f"self.parts$N = {layers}"))


def gated(b: Builder) -> None:
    inner = b.rng.choice((16, 24, 32))
    up, down = a_layer(b), a_layer(b)
    b.add(Lines("x = self.up$N(x)", f"self.up$N = {up}($W, {2 * inner})"))
    width, b.width = b.width, inner
    b.add(Lines(f"{b.pick(GATES, RARE_GATES)}\nx = {b.pick(UNITS, RARE_UNITS)}"))
    b.add(Lines("x = self.down$N(x)", f"self.down$N = {down}($W, {width})"))
    b.width = width


def mixed(b: Builder) -> None:
    """The recurrence; needs rows (B, T, width)."""
    layer, scan = a_layer(b), b.pick(SCANS, RARE_SCANS)
    if "scanned" in scan:
        b.helper(SCANNED)
    init = [f"self.{name}$N = {layer}($W, $W)" for name in ("i", "f")]
    init.append("self.bound$N = nn.Parameter(torch.rand($W))")
    lines = ["i, f = self.i$N(x), torch.sigmoid(self.f$N(x))", f"f = {b.pick(BOUNDS, RARE_BOUNDS)}"]
    b.add(Lines("\n".join([*lines, f"x = {scan}"]), "\n".join(init)))


def convolved(b: Builder) -> None:
    """A causal convolution; needs rows (B, T, width)."""
    taps = "\nself.taps$N = nn.Parameter(torch.randn($W, 4))"
    b.add(Lines(f"x = {b.pick(CONVOLUTIONS, RARE_CONVOLUTIONS)}", _ROWS + taps))


ANY_RANK = (projected, residual, pointwise, normed, repeated, gated)
SEQUENCES = (mixed, convolved)
