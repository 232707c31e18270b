"""Adapters: layers that torch.export cannot trace are replaced by what computes the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from mmfree_compiler.adapters import PlainBitLinear, adapted
from mmfree_compiler.errors import InputError, TraceError
from mmfree_compiler.ops import OPS
from mmfree_compiler.passes import GRAPH, left_over, run
from mmfree_compiler.trace import trace

FUSED = Path(__file__).parents[2] / "shared" / "golden" / "fla_bitlinear" / "golden.safetensors"


class _Kernel(torch.autograd.Function):
    """Stands for a Triton kernel: it reads its data, which no fake tensor has."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:  # noqa: ARG004
        y = torch.from_numpy(np.array(x.detach().tolist(), dtype=np.float32))
        y = y / torch.sqrt(y.square().mean(-1, keepdim=True) + 1e-6) * gain
        codes, scale = OPS["quantize"].reference(y, 1e-5)
        s = 1 / w.abs().mean().clamp(min=1e-5)
        return F.linear(codes * scale, (w * s).round().clamp(-1, 1) / s, bias)


class _Gain(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(1 + 0.2 * torch.randn(width))
        self.eps = 1e-8  # never passed to the kernel


class _Fused(nn.Linear):
    def __init__(self, width: int, out: int, bias: bool = False) -> None:
        super().__init__(width, out, bias)
        self.norm = _Gain(width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = _Kernel.apply(x, self.norm.weight, self.weight, self.bias)  # type: ignore[no-untyped-call]
        return out


@pytest.mark.parametrize("bias", [False, True])
def test_a_fused_layer_is_replaced_by_structure(bias: bool) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(_Fused(16, 8, bias), nn.SiLU(), _Fused(8, 4)).eval()
    x = torch.randn(2, 3, 16)
    layers = list(module)
    gm = run(GRAPH, trace(module, (x,)))
    assert list(module) == layers  # the user's module is as it was
    assert left_over(gm, set(OPS)) == []
    with torch.no_grad():
        # fp32 sums in another order; the seed puts no activation on a .5 edge.
        torch.testing.assert_close(gm(x), module(x), rtol=1e-4, atol=1e-5)


def test_a_fused_layer_alone() -> None:
    torch.manual_seed(0)
    module, x = _Fused(16, 8).eval(), torch.randn(2, 3, 16)
    gm = run(GRAPH, trace(module, (x,)))
    with torch.no_grad():
        # fp32 sums in another order; the seed puts no activation on a .5 edge.
        torch.testing.assert_close(gm(x), module(x), rtol=1e-4, atol=1e-5)


def test_a_layer_in_two_places_is_replaced_in_both() -> None:
    torch.manual_seed(0)
    layer = _Fused(8, 8)
    module, x = nn.Sequential(layer, layer).eval(), torch.randn(2, 3, 8)
    gm = run(GRAPH, trace(module, (x,)))
    assert list(module) == [layer, layer]
    with torch.no_grad():
        # fp32 sums in another order; the seed puts no activation on a .5 edge.
        torch.testing.assert_close(gm(x), module(x), rtol=1e-4, atol=1e-5)


def test_an_adapted_module_runs() -> None:
    torch.manual_seed(0)
    module, x = nn.Sequential(_Fused(16, 8), nn.Linear(8, 4)), torch.randn(2, 3, 16)
    layers = list(module)
    with torch.no_grad():
        expected = module(x)
        with adapted(module) as plain:
            assert isinstance(module[0], PlainBitLinear)
            assert module[1] is layers[1]
            # fp32 sums in another order; the seed puts no activation on a .5 edge.
            torch.testing.assert_close(plain(x), expected, rtol=1e-4, atol=1e-5)
    assert list(module) == layers


class _Checked(_Fused):
    """Not a fused BitLinear: a linear layer that looks at values, so it cannot be exported."""

    def forward(self, x: Tensor) -> Tensor:
        if not x.isfinite().all():
            raise ValueError("x")
        return F.linear(x, self.weight, self.bias)


class _Eps(_Fused):
    """A fused BitLinear with another eps."""

    def forward(self, x: Tensor) -> Tensor:
        y = x.detach() * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5)
        scale = torch.sqrt(x.square().mean(-1, keepdim=True) + 1e-6)
        return super().forward(y * scale)


class _Clipped(_Fused):
    """A fused BitLinear but for large inputs."""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = super().forward(x) if float(x.abs().max()) < 100 else x @ self.weight.T
        return out


class _Summed(_Fused):
    """Another shape of results."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).sum(-1)


class _OnGpu(_Fused):
    """Does not run on this machine, and nobody knows what it computes."""

    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError(f"{x.device}: needs a GPU")


@pytest.mark.parametrize("kind", [_Checked, _Eps, _Clipped, _Summed])
def test_what_only_looks_like_a_fused_layer_is_refused(kind: type[_Fused]) -> None:
    torch.manual_seed(0)
    with pytest.raises(TraceError, match=rf"^\S*{__name__}.py:\d+: \S"):
        trace(nn.Sequential(kind(16, 8), nn.SiLU()), (torch.randn(2, 3, 16),))


def test_a_layer_that_needs_a_gpu_is_refused() -> None:
    with pytest.raises(InputError, match=rf"needs a GPU.*{__name__}.py:\d+: raise RuntimeError"):
        trace(_OnGpu(16, 8), (torch.randn(2, 3, 16),))


class _Published(_OnGpu):
    """Stands for the published class, which needs a GPU."""

    __module__, __qualname__ = "mmfreelm.ops.fusedbitnet", "FusedBitLinear"

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


class _Derived(_Published):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def test_the_published_layers_need_no_gpu() -> None:
    layer, x = _Published(16, 8).eval(), torch.randn(2, 3, 16)
    with torch.no_grad():
        assert torch.equal(trace(layer, (x,))(x), PlainBitLinear(layer)(x))
    with pytest.raises(InputError, match="needs a GPU"):
        trace(_Derived(16, 8), (x,))


def test_a_comparison_leaves_the_layer_as_it_was() -> None:
    class Counting(_Fused):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return super().forward(x)

    layer = Counting(16, 8)
    with adapted(layer) as plain:
        assert isinstance(plain, PlainBitLinear)
    assert layer.calls == 0
    assert layer.training


@pytest.mark.skipif(not FUSED.exists(), reason="needs ../shared")
@pytest.mark.parametrize("case", ["64x48", "96x33", "256x128"])
def test_the_adapter_computes_what_the_kernel_does(case: str) -> None:
    tensors = load_file(FUSED)
    weight = tensors[f"{case}.weight"]
    layer = _Fused(weight.shape[1], weight.shape[0])
    layer.weight = nn.Parameter(weight)
    layer.norm.weight = nn.Parameter(tensors[f"{case}.norm_weight"])
    x = tensors[f"{case}.x"]
    gm = run(GRAPH, trace(layer, (x[:2, :3, :],)))  # a trace records each number that is read
    # fp32 sums in another order; the case was chosen off .5 edges.
    torch.testing.assert_close(gm(x), tensors[f"{case}.y_fused"], rtol=1e-4, atol=1e-4)
