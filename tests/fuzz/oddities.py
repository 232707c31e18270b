"""Fragments that a compiler gets wrong easily: one has to be refused, or computed as torch does."""

from __future__ import annotations

from fuzz.builder import Lines

# Each maps rows x to rows x of the same shape. Those of a dimension -2 are for (B, T, width).
SHAPES = {
    "branch on time": Lines("x = x * 2 if x.shape[1] == 1 else x + 1"),
    "branch on batch": Lines("x = x * 2 if x.shape[0] > 3 else x + 1"),
    "branch on parity": Lines("x = x * 2 if x.shape[-2] % 2 else x + 1"),
    "branch on elements": Lines("x = x * 2 if x.numel() > 500 else x"),
    "branch on sizes": Lines("x = -x if x.shape[0] == x.shape[1] else x"),
    "branch on a long time": Lines("x = x * 2 if x.shape[1] > 6 else x"),
    "branch on width": Lines("x = x * 2 if x.shape[-1] > 8 else x"),
    "first tokens": Lines("x = torch.cat([x[:, :4] * 2, x[:, 4:]], 1)"),
    "last token": Lines("x = x + x[:, -1:]"),
    "every second token": Lines("x = x.clone()\nx[:, ::2] *= 2"),
    "squeeze": Lines("x = x.squeeze(1).unsqueeze(1) if x.shape[1] == 1 else x"),
    "squeeze all": Lines("x = x.squeeze().reshape(x.shape)"),
    "squeeze batch": Lines("y = x.squeeze(0)\nx = x + y.mean(0)"),
    "flatten": Lines("x = x.flatten(0, 1).view(x.shape)"),
    "view rows": Lines("x = (x.reshape(-1, $W) * 2).view(x.shape[0], x.shape[1], -1)"),
    "heads": Lines("y = x.view(x.shape[0], x.shape[1], 4, -1)\nx = torch.tanh(y).flatten(2)"),
    "heads norm": Lines(
        "y = x.view(*x.shape[:-1], 4, -1)\ny = F.rms_norm(y, (y.shape[-1],), None, 1e-6)\n"
        "x = y.flatten(-2)"
    ),
    "heads transposed": Lines(
        "y = x.view(x.shape[0], x.shape[1], 4, -1).transpose(1, 2)\n"
        "x = torch.tanh(y).transpose(1, 2).reshape(x.shape)"
    ),
    "transposed": Lines("x = torch.relu(x.transpose(0, 1)).transpose(0, 1)"),
    "wrong transpose": Lines("x = x.mT.reshape(x.shape)"),
    "divide by time": Lines("x = x / x.shape[1]"),
    "times batch": Lines("x = x * x.shape[0]"),
    "positions": Lines("x = x + torch.arange(x.shape[1]).float()[:, None]"),
    "mean over time": Lines("x = x - x.mean(1, keepdim=True)"),
    "mean of all": Lines("x = x - x.mean()"),
    "sum over time": Lines("x = x + x.cumsum(1)"),
    "maximum over batch": Lines("x = x - x.amax(0)"),
    "flip": Lines("x = x.flip(1)"),
    "flip columns": Lines("x = x.flip(-1)"),
    "roll": Lines("x = torch.roll(x, 1, 1)"),
    "roll columns": Lines("x = torch.roll(x, 1, -1)"),
    "shift": Lines("x = F.pad(x, (0, 0, 1, 0))[:, :-1]"),
    "attention": Lines("x = torch.softmax(x @ x.mT, -1) @ x"),
    "softmax": Lines("x = torch.softmax(x, -1)"),
    "softmax over time": Lines("x = torch.softmax(x, 1)"),
    "repeat": Lines("x = x.repeat(1, 1, 2)[..., :$W]"),
    "repeat time": Lines("x = x.repeat(1, 2, 1)[:, : x.shape[1]]"),
    "repeat interleave": Lines("x = x.repeat_interleave(2, -1)[..., ::2]"),
    "permuted columns": Lines("x = x[..., self.order$N]", "self.order$N = torch.randperm($W)"),
    "sort": Lines("x = x.sort(-1).values"),
    "narrow": Lines("x = torch.cat([x.narrow(-1, 8, $W - 8), x.narrow(-1, 0, 8)], -1)"),
    "strided columns": Lines("x = torch.cat([x[..., ::2], x[..., 1::2]], -1)"),
    "stack": Lines("x = torch.stack([x, x * 2], -1).sum(-1)"),
    "expand": Lines("x = x + x[..., :1].expand(x.shape)"),
    "row sum": Lines("x = x * x.sum(-1, keepdim=True)"),
    "as strided": Lines("x = x.contiguous()\nx = x.as_strided(x.shape, x.stride()) * 2"),
    "loop over time": Lines("x = torch.stack([row * 2 for row in x.unbind(1)], 1)"),
    "loop over shape": Lines("for t in range(x.shape[1]):\n    x = x + 0.1 * t"),
    "outer row": Lines("x = x + torch.ones(x.shape[1], 1)"),
    "new_zeros": Lines("x = x + x.new_ones(x.shape)"),
    "swap when equal": Lines("x = x.transpose(0, 1) if x.shape[0] == x.shape[1] else x"),
}
WRITES = {
    "write input": Lines("x.add_(1)"),
    "write mul_": Lines("x = x * 2\nx.mul_(0.5).add_(0.1)"),
    "write column": Lines("x = x.clone()\nx[..., 0] = 1.0"),
    "write columns": Lines("x = x.clone()\nx[..., : $W // 2] *= 2"),
    "write first token": Lines("x = x.clone()\nx[:, 0] = 0"),
    "write a view": Lines("y = x * 1\nz = y.view(-1)\nz.mul_(2)\nx = x + y"),
    "write chunk": Lines("y = x + 0\na, c = y.chunk(2, -1)\na.neg_()\nx = y"),
    "write then read": Lines("y = x * 1\nz = y[..., 1:]\ny.add_(1)\nx = x + F.pad(z, (1, 0))"),
    "write copy_": Lines("y = torch.empty_like(x)\ny.copy_(x)\nx = y"),
    "write out": Lines("y = torch.empty_like(x)\ntorch.mul(x, 2, out=y)\nx = y"),
    "write masked_fill_": Lines("x = x.clone()\nx.masked_fill_(x < 0, 0.0)"),
    "write clamp_": Lines("y = x\nx = x * 1\nx.clamp_(-1, 1)\nx = x + y"),
    "write transposed": Lines("y = x.clone()\ny.mT.mul_(3)\nx = y"),
    "write contiguous": Lines("y = x.contiguous()\ny.mul_(2)"),
    "write detach": Lines("y = x * 1\ny.detach().mul_(2)\nx = y"),
    "write zero_": Lines("y = x * 1\ny[..., :1].zero_()\nx = y"),
    "write alias": Lines("y = x.to(torch.float32)\ny.mul_(2)"),
    "write fill": Lines("y = torch.zeros_like(x)\ny[..., 1:] = x[..., :-1]\nx = y"),
    "write index": Lines("x = x.clone()\nx[x > 1] = 1"),
    "write += view": Lines("y = x * 1\ny[..., 1:] += y[..., :-1]\nx = y"),
    "write scatter": Lines("x = x.scatter(-1, x.argmax(-1, keepdim=True), 0.0)"),
    "write parameter": Lines("x = x * self.p$N.add_(1)", "self.p$N = nn.Buffer(torch.ones($W))"),
}
VALUES = {
    "branch on value": Lines("x = x * 2 if x.max() > 2 else x"),
    "branch on sum": Lines("if x.sum() > 0:\n    x = -x"),
    "branch on item": Lines("x = x * x.abs().max().item()"),
    "where": Lines("x = torch.where(x > 0, x, 0.1 * x)"),
    "compare": Lines("x = x * (x > 0.5).float()"),
    "compare bool": Lines("x = x * (x > 0.5)"),
    "sign": Lines("x = x * x.sign()"),
    "floor": Lines("x = x.floor()"),
    "round": Lines("x = x.round()"),
    "remainder": Lines("x = x % 2"),
    "isnan": Lines("x = torch.nan_to_num(x)"),
    "any": Lines("x = x * (x > 0).any(-1, keepdim=True)"),
    "top k": Lines("x = x * (x >= x.topk(4, -1).values[..., -1:])"),
    "argmax": Lines("x = x + x.argmax(-1, keepdim=True)"),
    "dropout": Lines("x = F.dropout(x, 0.5, self.training)"),
    "nn.Dropout": Lines("x = self.d$N(x)", "self.d$N = nn.Dropout(0.5)"),
    "training": Lines("x = x * 2 if self.training else x"),
    "assert": Lines("assert x.shape[1] < 100\nx = x * 2"),
    "grad": Lines("x = x * 2 if torch.is_grad_enabled() else x"),
    "cond": Lines("x = x * (2.0 if bool((x > 5).any()) else 1.0)"),
}
CASTS = {
    "cast int": Lines("x = x.int().float()"),
    "cast half": Lines("x = x.half().float()"),
    "cast bf16": Lines("x = x.bfloat16().float()"),
    "cast double": Lines("x = x.double().float()"),
    "cast double math": Lines("x = (x.double() * 1.1).float()"),
    "cast bool": Lines("x = x.bool().float() * x"),
    "cast int8": Lines("x = x.to(torch.int8).to(torch.float32)"),
    "cast math": Lines("x = (x.half() * 3).float()"),
    "cast long": Lines("x = x.long() * 1.0"),
    "autocast": Lines(
        "with torch.autocast('cpu', torch.bfloat16):\n    x = (x @ x.mT @ x).float()"
    ),
    "cast view": Lines("x = x.view(torch.int32).view(torch.float32)"),
    "cast complex": Lines("x = torch.complex(x, -x).conj().imag.contiguous()"),
    "cast negative view": Lines("x = torch.complex(x, x).conj().imag + 0"),
}
EFFECTS = {
    "kept list": Lines("kept.append(x)\nx = x * 2"),
    "kept list read": Lines("kept.append(x.mean().detach())\nx = x + len(kept)"),
    "own list": Lines("y = []\ny.append(x)\ny.append(x * 2)\nx = y[0] + y[1]"),
    "counter": Lines("self.n$N += 1\nx = x + self.n$N", "self.n$N = 0"),
    "counter tensor": Lines("self.n$N.add_(1)\nx = x + self.n$N", "self.n$N = torch.zeros(1)"),
    "counter buffer": Lines(
        "self.n$N += 1\nx = x * self.n$N",
        "self.register_buffer('n$N', torch.zeros(()))",
    ),
    "buffer not read": Lines(
        "self.n$N.add_(1)\nx = x * 2", "self.register_buffer('n$N', torch.zeros(()))"
    ),
    "last rows": Lines("x, self.last$N = x + self.last$N, x.mean()", "self.last$N = 0.0"),
    "attribute": Lines("self.seen$N = x\nx = self.seen$N * 2"),
    "attribute grows": Lines("x = x * self.s$N\nself.s$N *= 2", "self.s$N = 1.0"),
    "running mean": Lines(
        "self.m$N.mul_(0.9).add_(x.mean())\nx = x - self.m$N",
        "self.register_buffer('m$N', torch.zeros(()))",
    ),
    "hook": Lines(
        "x = self.h$N(x)",
        "self.h$N = BitLinear($W, $W)\nself.h$N.register_forward_hook(lambda m, i, o: o * 2)",
    ),
    "pre-hook": Lines(
        "x = self.h$N(x)",
        "self.h$N = BitLinear($W, $W)\n"
        "self.h$N.register_forward_pre_hook(lambda m, i: (i[0] * 2 + 1,))",
    ),
    "hook on one": Lines(
        "x = self.g$N(self.h$N(x))",
        "self.g$N, self.h$N = BitLinear($W, $W), BitLinear($W, $W)\n"
        "self.h$N.register_forward_hook(lambda m, i, o: o * 2)",
    ),
    "random": Lines("x = x + 0 * torch.rand_like(x)"),
    "weight norm": Lines(
        "x = self.w$N(x)",
        "self.w$N = nn.utils.parametrizations.weight_norm(BitLinear($W, $W))",
    ),
    "patched forward": Lines(
        "x = self.g$N(self.h$N(x))",
        "self.g$N, self.h$N = BitLinear($W, $W), BitLinear($W, $W)\n"
        "self.h$N.forward = lambda x: x * 2",
    ),
    "different attribute": Lines(
        "for part in self.e$N:\n    x = part(x)",
        "self.e$N = nn.ModuleList(BitLinear($W, $W) for _ in range(2))\nself.e$N[1].norm.eps = 0.5",
    ),
    "equal but for bias": Lines(
        "for part in self.e$N:\n    x = part(x)",
        "self.e$N = nn.ModuleList(BitLinear($W, $W, bias=k > 0) for k in range(2))",
    ),
    "tied": Lines(
        "x = self.g$N(self.h$N(x))",
        "self.g$N, self.h$N = BitLinear($W, $W), BitLinear($W, $W)\n"
        "self.h$N.weight = self.g$N.weight",
    ),
    "frozen bf16": Lines("x = self.b$N(x)", "self.b$N = BitLinear($W, $W).bfloat16()"),
    "in half": Lines("x = self.b$N(x.half()).float()", "self.b$N = BitLinear($W, $W).half()"),
}
CONSTANTS = {
    "constant NaN": Lines("x = x + self.c$N", "self.c$N = torch.full(($W,), torch.nan)"),
    "constant infinity": Lines(
        "x = torch.minimum(x, self.c$N)", "self.c$N = torch.tensor(torch.inf)"
    ),
    "constant large": Lines("x = x * self.c$N", "self.c$N = torch.tensor(1e30)"),
    "constant denormal": Lines("x = x + self.c$N", "self.c$N = torch.tensor(1e-40)"),
    "constant negative zero": Lines("x = x * self.c$N", "self.c$N = torch.tensor(-0.0)"),
    "constant int": Lines("x = x * self.c$N", "self.c$N = torch.arange($W)"),
    "constant double": Lines("x = x * self.c$N", "self.c$N = torch.rand((), dtype=torch.float64)"),
    "constant double row": Lines(
        "x = (x * self.c$N).float()", "self.c$N = torch.rand($W, dtype=torch.float64)"
    ),
    "constant half": Lines("x = x * self.c$N", "self.c$N = torch.rand($W, dtype=torch.float16)"),
    "constant strided": Lines("x = x * self.c$N", "self.c$N = torch.rand(2 * $W)[::2]"),
    "constant expanded": Lines("x = x * self.c$N", "self.c$N = torch.rand(1).expand($W)"),
    "constant shared": Lines(
        "x = x * self.c$N + self.d$N",
        "self.c$N = torch.rand(2 * $W)\nself.d$N = self.c$N[$W:]\nself.c$N = self.c$N[:$W]",
    ),
    "constant eye": Lines("x = F.linear(x, torch.eye($W))"),
    "constant ternary": Lines("x = F.linear(x, self.c$N)", "self.c$N = torch.ones($W, $W).tril()"),
    "constant number inf": Lines("x = x.clamp(max=float('inf'))"),
    "constant number nan": Lines("x = x + float('nan')"),
    "constant number large": Lines("x = x * 1e39"),
    "constant python": Lines("x = x * (1 / 3) + 1e-8"),
    "constant column": Lines("x = x * self.c$N", "self.c$N = torch.rand(1, 1, 1)"),
    "float linear": Lines("x = self.f$N(x)", "self.f$N = nn.Linear($W, $W)"),
    "looks like BitLinear": Lines("x = self.f$N(x)", "self.f$N = FloatNormed($W)"),
}
# What forward returns, from x; the tables above end in x alone.
RESULTS = {
    "tuple": "x, x * 2",
    "one tuple": "(x,)",
    "list": "[x, -x]",
    "dict": "{'rows': x, 'other': x + 1}",
    "dict of one": "{'rows': x}",
    "nested": "(x, {'a': [x * 2]})",
    "same twice": "x, x",
    "None too": "x, None",
    "number too": "x, 3",
    "size too": "x, x.shape[1]",
    "view": "x[..., :4]",
    "heads": "x.unflatten(-1, (2, -1))",
    "column": "x.sum(-1, keepdim=True)",
    "scalar": "x.mean()",
    "last token": "x[:, -1]",
    "input too": "x, start",
    "constant too": "x, self.training",
    "half": "x.half()",
    "int": "x.round().long()",
    "double": "x.double()",
    "argmax": "x.argmax(-1)",
    "none": "None",
    "without last dimension": "x.amax(-1)",
    "transposed": "x.transpose(0, 1)",
    "flat": "x.flatten(0, 1)",
}
DEAD = {
    "dead layer": Lines("", "self.dead$N = nn.Linear($W, 3)"),
    "dead value": Lines("y = torch.linalg.svd(x)"),
    "dead branch": Lines("if False:\n    x = torch.fft.fft(x)"),
    "dead random": Lines("y = torch.rand(3)"),
    "dead product": Lines("y = x @ torch.ones($W, 3)"),
    "dead write": Lines("y = x * 1\ny.zero_()"),
}
ODDITIES = {
    "shapes": SHAPES,
    "writes": WRITES,
    "values": VALUES,
    "casts": CASTS,
    "effects": EFFECTS,
    "constants": CONSTANTS,
    "dead": DEAD,
}
FLOAT_NORMED = """\
class FloatNormed(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight, self.norm = nn.Parameter(torch.randn(width, width)), nn.RMSNorm(width)
    def forward(self, x):
        if x.sum() > 1e30:
            return x
        return F.linear(x, self.weight)"""
