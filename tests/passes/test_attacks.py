"""Modules that look like what the passes know, and compute something else: equal, or refused."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import mmfree_compiler as mmf
from mmfree_compiler.errors import MmfreeError, UnsupportedError
from mmfree_compiler.models import BitLinear

mm = torch.ops.mmfree
Function = Callable[["Layer", Tensor], Tensor]
TERNARY = 0.3 * torch.randint(-1, 2, (16, 16), generator=torch.Generator().manual_seed(0)).float()


class Layer(nn.Module):
    def __init__(self, function: Function) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = BitLinear(16, 16)
        self.gain = nn.Parameter(0.5 + torch.rand(16))
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def by_scale(x: Tensor, scale: Tensor, low: int = -128, high: int = 127) -> Tensor:
    """The product of the quantized rows."""
    return F.linear((x * scale).round().clamp(low, high) / scale, TERNARY)


def by_absmax(x: Tensor, low: float | None, high: float | None = None, top: int = 127) -> Tensor:
    return by_scale(x, top / x.abs().amax(-1, keepdim=True).clamp(low, high))


def by_mean(w: Tensor) -> Tensor:
    s = 1 / w.abs().mean().clamp(min=1e-5)
    return (w * s).round().clamp(-1, 1) / s


def over(w: Tensor, size: Tensor) -> Tensor:
    return (w / size).round().clamp(-1, 1) * size


def norm(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)


def narrow(kind: str) -> dict[str, Function]:
    """Casts that change values, there and back."""

    def cast(x: Tensor) -> Tensor:
        narrowed: Tensor = getattr(3 * x, kind)()
        return narrowed.float()

    return {
        f"row to {kind}": lambda m, x: m.linear(cast(x)),
        f"product to {kind}": lambda m, x: cast(m.linear(x)),
        f"scaled product to {kind}": lambda _, x: cast(2 * by_absmax(x, 1e-5)) + 1,
        f"normalized to {kind}": lambda _, x: by_absmax(cast(norm(x)), 1e-5),
        f"recurrence to {kind}": lambda m, x: mm.mlgru_scan(cast(m.linear(x)), x.sigmoid()),
        f"gate to {kind}": lambda m, x: F.silu(m.linear(x)) * cast(x),
    }


REFUSED: dict[str, Function] = {
    name: function
    for kind in ("half", "bfloat16", "int", "bool", "char")
    for name, function in narrow(kind).items()
} | {
    "type_as": lambda m, x: m.linear(x).type_as(torch.ones(1).half()).float(),
    "round": lambda m, x: m.linear((5 * x).round()),
    "floor": lambda m, x: m.linear(x).floor(),
    "over a size": lambda m, x: m.linear(x) / x.shape[1],
    "product over a size": lambda _, x: by_absmax(x, 1e-5) / x.shape[-2],
    "gate times a size": lambda m, x: F.silu(m.linear(x)) * x.shape[1],
    "eps is a size": lambda _, x: x * torch.rsqrt(x.square().mean(-1, True) + x.shape[1]),
    "maximum to 100": lambda _, x: by_absmax(x, 1e-5, 100.0),
    "maximum to 1e6": lambda _, x: by_absmax(x, 1e-5, 1e6),
    "maximum to 1e15": lambda _, x: by_absmax(x, 1e-5, 1e15),
    "seven bits": lambda _, x: by_absmax(x, 1e-5, top=63),
    "128": lambda _, x: by_absmax(x, 1e-5, top=128),
    "to 126": lambda _, x: by_scale(x, 127 / x.abs().amax(-1, True).clamp(1e-5), high=126),
    "from -100": lambda _, x: by_scale(x, 127 / x.abs().amax(-1, True).clamp(1e-5), low=-100),
    "scale to 1e4": lambda _, x: by_scale(
        x, (127 / x.abs().amax(-1, True).clamp(1e-5)).clamp(max=1e4)
    ),
    "scale from 1e-3": lambda _, x: by_scale(
        x, (127 / x.abs().amax(-1, True).clamp(1e-5)).clamp(min=1e-3)
    ),
    "largest, not absolute": lambda _, x: by_scale(x, 127 / x.amax(-1, True).clamp(1e-5)),
    "all rows": lambda _, x: by_scale(x, 127 / x.abs().amax().clamp(1e-5)),
    "half up": lambda _, x: F.linear(
        (x * (127 / x.abs().amax(-1, True).clamp(1e-5)) + 0.5).floor(), TERNARY
    ),
    "weight by its rows": lambda m, x: F.linear(
        norm(x), over(m.linear.weight, m.linear.weight.abs().mean(-1, True))
    ),
    "eps of a row": lambda m, x: x * torch.rsqrt(x.square().mean(-1, True) + m.gain),
    "mean over time": lambda _, x: x * torch.rsqrt(x.square().mean(-2, True) + 1e-6),
    "sum over another width": lambda _, x: x / (x.square().sum(-1, True) / 15 + 1e-6).sqrt(),
    "norm of one column": lambda m, x: norm(x[..., :1]) * m.gain,
    "gate of one column": lambda m, x: norm(x) * m.gain * F.silu(m.linear(x).amax(-1, True)),
    "alpha": lambda m, x: torch.add(m.linear(x), x, alpha=3),
    "silu of integers": lambda _, x: x.long() * x.long().sigmoid(),
    "view of what another view wrote": lambda m, x: written(m.linear(x) + x)[..., :4],
    "no columns": lambda m, x: m.linear(x)[..., 0:0],
    "NaN": lambda m, x: m.linear(x) * (m.gain * torch.nan),
    "infinite bias": lambda m, x: m.linear(x) + m.gain / 0,
}

EQUAL: dict[str, Function] = {
    "product to double": lambda m, x: m.linear(x).double().float(),
    "weight in half": lambda m, x: weighted(x, by_mean(m.linear.weight.half()).float()),
    "weight in bfloat16": lambda m, x: weighted(x, by_mean(m.linear.weight.bfloat16())),
    "weight of integers": lambda m, x: weighted(x, by_mean((9 * m.linear.weight).int().float())),
    "weight by its sum": lambda m, x: weighted(
        x, over(m.linear.weight, m.linear.weight.abs().sum() / 256)
    ),
    "weight by its median": lambda m, x: weighted(
        x, over(m.linear.weight, m.linear.weight.abs().median())
    ),
    "weight without parameters": lambda _, x: weighted(x, torch.ones(16, 16).tril()),
    "gain in half": lambda m, x: m.linear(norm(x) * m.gain.half()),
    "eps 1e-8": lambda _, x: by_absmax(x, 1e-8),
    "eps 3": lambda _, x: by_absmax(x, 3.0),
    "row clamped": lambda _, x: by_absmax(x.clamp(-60, 60), 1e-5),
    "straight through a clamp": lambda _, x: x + (x.clamp(-1, 1) - x).detach(),
    "negative zero": lambda _, x: torch.reciprocal(-x.relu() + 0.0),
    "infinite bounds": lambda m, x: m.linear(x).clamp(-torch.inf, torch.inf),
    "times the width": lambda m, x: m.linear(x) * x.shape[-1],
}


def written(x: Tensor) -> Tensor:
    x.to(torch.float32).mul_(2)
    return x


def weighted(x: Tensor, weight: Tensor) -> Tensor:
    scale = 127 / x.abs().amax(-1, keepdim=True).clamp(1e-5)
    return F.linear((x * scale).round().clamp(-128, 127) / scale, weight.float())


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    with pytest.raises(MmfreeError) as error:
        mmf.compile(Layer(REFUSED[name]), "reference", example_inputs=(torch.randn(2, 3, 16),))
    # By a pass, which knows the line, before the comparison.
    assert isinstance(error.value, UnsupportedError)
    assert "test_attacks.py" in str(error.value)


@pytest.mark.parametrize(
    ("function", "thing"),
    [
        (lambda m, x: (m.linear(x), x.shape[1]), "output 1"),
        (lambda m, x: (m.linear(x), m.gain), "output 1"),
        (lambda m, x: m.linear(x)[..., 0:0], rf"output 0 \(\S*{__name__}\.py:\d+: \S.*\)"),
    ],
)
def test_what_cannot_be_returned_is_named(function: Function, thing: str) -> None:
    with pytest.raises(UnsupportedError) as error:
        mmf.compile(Layer(function), "reference", example_inputs=(torch.randn(2, 3, 16),))
    assert re.fullmatch(thing, error.value.thing)


@torch.no_grad()
@pytest.mark.parametrize("name", EQUAL)
def test_equal(name: str) -> None:
    """Compiling compares; here also values that it does not choose."""
    module = Layer(EQUAL[name]).eval()
    compiled = mmf.compile(module, "reference", example_inputs=(torch.randn(2, 3, 16),))
    for size in (1.0, 3e3, 1e7, 1e-7):
        x = size * torch.randn(2, 4, 16, generator=torch.Generator().manual_seed(5))
        torch.testing.assert_close(compiled(x), module(x), rtol=1e-4, atol=1e-4 * size)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_parameters_that_are_not_finite_are_named(value: float, dtype: torch.dtype) -> None:
    module = Layer(lambda m, x: m.linear(norm(x) * m.gain.float()))
    module.gain.data = module.gain.data.to(dtype)
    module.gain.data[3] = value
    with pytest.raises(UnsupportedError, match=r"^gain: holds NaN or infinite values\. Load"):
        mmf.compile(module, "reference", example_inputs=(torch.randn(2, 3, 16),))


def test_an_embedding_that_is_not_finite_is_named() -> None:
    table = nn.Embedding(8, 16)
    table.weight.data[3, 4] = torch.nan
    module = nn.Sequential(table, BitLinear(16, 8))
    ids = torch.zeros(2, 3, dtype=torch.int64)
    with pytest.raises(UnsupportedError, match=r"^0\.weight: holds NaN or infinite"):
        mmf.compile(module, "reference", example_inputs=(ids,))


def test_all_parameters_that_are_not_finite_are_listed_at_once() -> None:
    first, last = BitLinear(16, 16), BitLinear(16, 16, bias=True)
    assert last.bias is not None
    with torch.no_grad():
        first.weight[0, 0] = torch.nan
        first.norm.weight[3] = torch.inf
        last.bias[1] = torch.nan
    module = nn.Sequential(first, nn.SiLU(), last)
    with pytest.raises(UnsupportedError) as error:
        mmf.compile(module, "reference", example_inputs=(torch.randn(2, 16),))
    assert set(error.value.thing.split(", ")) == {"0.weight", "0.norm.weight", "2.bias"}
    assert error.value.cause == "hold NaN or infinite values"


@torch.no_grad()
def test_weights_whose_mean_overflows_are_named() -> None:
    """Each of them is finite, and so is the mean; torch's sum is not."""
    x, last = torch.randn(2, 64), BitLinear(64, 64)
    last.weight.uniform_(-1e36, 1e36)
    module = nn.Sequential(BitLinear(64, 64), last)
    assert module(x).isnan().all()
    with pytest.raises(UnsupportedError, match=r"^weight 1\.weight: the mean of \|w\| overflows"):
        mmf.compile(module, "reference", example_inputs=(x,))


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_weights_without_elements_are_named() -> None:
    module = nn.Sequential(BitLinear(64, 64), BitLinear(64, 0))
    with pytest.raises(UnsupportedError, match=r"^weight 1\.weight: has no elements"):
        mmf.compile(module, "reference", example_inputs=(torch.randn(2, 64),))


@torch.no_grad()
@pytest.mark.parametrize("size", [1e-42, 0.0])
def test_tiny_weights_compile(size: float) -> None:
    x, layer = torch.randn(2, 16), BitLinear(16, 16)
    layer.weight.uniform_(-size, size)
    assert torch.equal(mmf.compile(layer, "reference", example_inputs=(x,))(x), layer(x))


class _Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor([3e38, 3e38, -3e38, -3e38]))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gain.mean()


def test_a_constant_that_overflows_in_torch_is_refused() -> None:
    assert not _Scaled()(torch.ones(1, 4)).isfinite().all()
    with pytest.raises(UnsupportedError, match=r"computed from gain at .*: holds NaN or infinite"):
        mmf.compile(_Scaled(), "reference", example_inputs=(torch.randn(2, 4),))
