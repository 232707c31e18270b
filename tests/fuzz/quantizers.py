"""Ways to write a quantized linear layer, and layers that are nearly one."""

from __future__ import annotations

from fuzz.builder import Builder

NORMS = {
    "no norm": "x",
    "norm rsqrt": "x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.gain",
    "norm sqrt": "x / torch.sqrt(x.square().mean(-1, keepdim=True) + 1e-5) * self.gain",
    "norm F": "F.rms_norm(x, (x.shape[-1],), self.gain, 1e-6)",
    "norm sum": "x / ((x * x).sum(-1, keepdim=True) / x.shape[-1] + 1e-6).sqrt() * self.gain",
    "norm without weight": "x * torch.rsqrt(x.pow(2).mean(-1, True) + 1e-6)",
}
NEAR_NORMS = {
    "norm eps outside": "x / (torch.sqrt(x.pow(2).mean(-1, True)) + 1e-6) * self.gain",
    "norm large eps": "x * torch.rsqrt(x.pow(2).mean(-1, True) + 0.5) * self.gain",
    "norm no eps": "x * torch.rsqrt(x.pow(2).mean(-1, True)) * self.gain",
    "norm l2": "x / (x.pow(2).sum(-1, True) + 1e-6).sqrt() * self.gain",
    "norm F.normalize": "F.normalize(x, dim=-1) * self.gain",
    "norm clamp": "x * torch.rsqrt(x.pow(2).mean(-1, True).clamp(min=1e-4)) * self.gain",
    "norm std": "x / (x.std(-1, keepdim=True) + 1e-6) * self.gain",
    "norm over time": "x * torch.rsqrt(x.pow(2).mean(-2, True) + 1e-6) * self.gain",
    "norm 1 + weight": "x * torch.rsqrt(x.pow(2).mean(-1, True) + 1e-6) * (1 + self.gain)",
    "norm in half": "F.rms_norm(x.half(), (x.shape[-1],)).float() * self.gain",
    "norm layer": "F.layer_norm(x, (x.shape[-1],), self.gain)",
    "norm bias": "F.rms_norm(x, (x.shape[-1],), self.gain, 1e-6) + 0.1",
    "norm capped": "x * torch.rsqrt(x.pow(2).mean(-1, True).clamp(1e-6, 10.0)) * self.gain",
    "norm default eps": "F.rms_norm(x, (x.shape[-1],), self.gain)",
}
# The scale `s` of the rows.
SCALES = {
    "scale amax": "127 / y.abs().amax(-1, keepdim=True).clamp(min=1e-5)",
    "scale max": "127.0 / y.abs().max(dim=-1, keepdim=True).values.clamp_(min=1e-5)",
    "scale reciprocal": "127 * y.abs().amax(-1, True).clamp_min(1e-8).reciprocal()",
    "scale of max/127": "1 / (y.abs().amax(-1, True) / 127).clamp(min=1e-7)",
    "scale norm": "127 / torch.linalg.vector_norm(y, float('inf'), -1, True).clamp(min=1e-5)",
    "scale detached": "127 / y.detach().abs().amax(-1, keepdim=True).clamp(min=1e-5)",
}
NEAR_SCALES = {
    "scale capped": "127 / y.abs().amax(-1, keepdim=True).clamp(1e-5, 100.0)",
    "scale capped far": "127 / y.abs().amax(-1, keepdim=True).clamp(1e-5, 3000.0)",
    "scale floor": "127 / y.abs().amax(-1, keepdim=True).clamp(min=0.5)",
    "scale 126": "126 / y.abs().amax(-1, keepdim=True).clamp(min=1e-5)",
    "scale 127.5": "127.5 / y.abs().amax(-1, keepdim=True).clamp(min=1e-5)",
    "scale 128": "128 / y.abs().amax(-1, keepdim=True).clamp(min=1e-5)",
    "scale + eps": "127 / (y.abs().amax(-1, keepdim=True) + 1e-5)",
    "scale max not abs": "127 / y.amax(-1, keepdim=True).clamp(min=1e-5)",
    "scale of tensor": "127 / y.abs().max().clamp(min=1e-5)",
    "scale over time": "127 / y.abs().amax(-2, keepdim=True).clamp(min=1e-5)",
    "scale mean": "127 / (3 * y.abs().mean(-1, keepdim=True)).clamp(min=1e-5)",
    "scale power of two": "2.0 ** (127 / y.abs().amax(-1, True).clamp(min=1e-5)).log2().floor()",
    "scale in half": "127 / y.abs().amax(-1, True).half().float().clamp(min=1e-5)",
    "scale fixed": "16.0",
    "scale capped itself": "(127 / y.abs().amax(-1, True).clamp(min=1e-5)).clamp(max=1e4)",
    "scale of half the row": "127 / y[..., ::2].abs().amax(-1, keepdim=True).clamp(min=1e-5)",
    "scale none": "127 / y.abs().amax(-1, keepdim=True)",
}
CODES = {
    "codes round": "(y * s).round().clamp(-128, 127)",
    "codes int8": "torch.clamp(torch.round(y * s), -127, 127).to(torch.int8).to(y.dtype)",
    "codes unclamped": "torch.round(y * s)",
    "codes in place": "(y * s).round_().clamp_(-128, 127)",
}
NEAR_CODES = {
    "codes floor": "(y * s).floor().clamp(-128, 127)",
    "codes half up": "(y * s + 0.5).floor().clamp(-128, 127)",
    "codes trunc": "(y * s).trunc().clamp(-128, 127)",
    "codes int": "(y * s).int().clamp(-128, 127).float()",
    "codes positive": "(y * s).round().clamp(0, 127)",
    "codes 126": "(y * s).round().clamp(-126, 126)",
    "codes decimals": "torch.round(y * s, decimals=1).clamp(-128, 127)",
    "codes wrap": "(y * s * 2).round().to(torch.int8).float()",
    "codes uint8": "(y * s).round().to(torch.uint8).float()",
    "codes clamp first": "(y * s).clamp(-100, 100).round()",
    "codes in bf16": "(y * s).bfloat16().round().clamp(-128, 127).float()",
    "codes shifted": "(y * s + 0.25).round().clamp(-128, 127)",
}
ROWS = {
    "rows / s": "q / s",
    "rows * 1/s": "q * (1 / s)",
    "rows through": "y + (q / s - y).detach()",
}
NEAR_ROWS = {
    "rows 1.01": "q / s * 1.01",
    "rows / (s + 1)": "q / (s + 1)",
    "rows half through": "y + 0.5 * (q / s - y).detach()",
    "rows cast": "(q / s).bfloat16().float()",
    "rows max of s": "q / s.amax()",
}
WEIGHTS = {
    "weight mean": "(w / t).round().clamp(-1, 1) * t | w.abs().mean().clamp(min=1e-5)",
    "weight amax": "(w / t).round().clamp(-1, 1) * t | w.abs().amax().clamp(min=1e-5)",
    "weight through": "w + ((w / t).round().clamp(-1, 1) * t - w).detach() | w.abs().mean()",
    "weight sign": "w.sign() * t | w.abs().mean()",
    "weight threshold": "(w.abs() > 0.7 * t) * w.sign() * t | w.abs().mean()",
}
NEAR_WEIGHTS = {
    "weight rows": "(w / t).round().clamp(-1, 1) * t | w.abs().mean(-1, keepdim=True)",
    "weight float": "w * t | 1.0",
    "weight two bits": "(w / t).round().clamp(-2, 1) * t | w.abs().mean()",
    "weight shifted": "(w / t).round().clamp(-1, 1) * t + 1e-3 | w.abs().mean()",
    "weight binary": "torch.where(w > 0, 1.0, -1.0) * t | w.abs().mean()",
    "weight asymmetric": "torch.where(w > t, 0.5, torch.where(w < -t, -1.0, 0.0)) | w.abs().mean()",
    "weight half": "((w / t).round().clamp(-1, 1) * t).half().float() | w.abs().mean()",
}
PRODUCTS = {
    "product linear": "F.linear(y, w)",
    "product bias": "F.linear(y, w, self.bias)",
    "product @": "y @ w.t()",
    "product matmul": "torch.matmul(y, w.T) + self.bias",
}
NEAR_PRODUCTS = {
    "product einsum": "torch.einsum('...k,nk->...n', y, w)",
    "product sum": "(y.unsqueeze(-2) * w).sum(-1)",
    "product int": "(F.linear(y, w) * 5).int().float()",
    "product half": "F.linear(y, w).half().float()",
    "product double": "F.linear(y.double(), w.double()).float()",
    "product twice": "F.linear(y, w) + F.linear(2 * y, w)",
    "product slice": "F.linear(y[..., 1:], w[:, 1:])",
    "product transposed": "y @ w",
    "product / time": "F.linear(y, w) / y.shape[-2]",
    "product / width": "F.linear(y, w) / y.shape[-1]",
    "product of x too": "F.linear(y, w) + x.mean(-1, keepdim=True)",
    "product rows too": "F.linear(y, w) + y.abs().amax(-1, keepdim=True)",
}
LAYER = """\
class NAME(nn.Module):
    def __init__(self, width, out):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out, width){weight_factor})
        self.gain = nn.Parameter({gain})
        self.bias = nn.Parameter(torch.randn(out))
    def forward(self, x):
        y = {norm}
        s = {scale}
        q = {codes}
        y = {rows}
        w = self.weight
        t = {weight_scale}
        w = {weight}
        return {product}"""
# What a layer's parameters hold.
VALUES = {
    "usual": ("", "1 + 0.2 * torch.randn(width)"),
    "tiny weights": (" * 1e-7", "torch.ones(width)"),
    "zero weights": (" * 0", "torch.ones(width)"),
    "zero gain": ("", "torch.zeros(width)"),
    "negative gain": ("", "torch.randn(width)"),
    "large gain": ("", "1e4 * torch.rand(width)"),
    "NaN gain": ("", "torch.full((width,), torch.nan)"),
    "infinite weight": (" * torch.inf", "torch.ones(width)"),
}
_PARTS = {
    "norm": (NORMS, NEAR_NORMS),
    "scale": (SCALES, NEAR_SCALES),
    "codes": (CODES, NEAR_CODES),
    "rows": (ROWS, NEAR_ROWS),
    "weight": (WEIGHTS, NEAR_WEIGHTS),
    "product": (PRODUCTS, NEAR_PRODUCTS),
}


def quantized_layer(b: Builder, near: bool) -> str:
    """The class of a layer (width, out); `near` makes one part of it, at least, an odd one."""
    odd = {b.rng.choice(list(_PARTS))} if near else set()
    parts = {part: b.pick(tables[part in odd]) for part, tables in _PARTS.items()}
    parts["weight"], parts["weight_scale"] = parts["weight"].split(" | ")
    values = "usual" if not near or b.rng.random() < 0.8 else b.rng.choice(list(VALUES))
    b.features.append(f"values {values}")
    parts["weight_factor"], parts["gain"] = VALUES[values]
    return b.helper(LAYER.format(**parts))
