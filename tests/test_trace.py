"""Tracing: free leading dimensions, shared storage, adapters, clear errors."""

from __future__ import annotations

import signal
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from mmfree_compiler.errors import InputError, TraceError
from mmfree_compiler.ops import OPS
from mmfree_compiler.passes import GRAPH, left_over, run
from mmfree_compiler.passes.check_supported import source_line
from mmfree_compiler.trace import trace

FUSED = Path(__file__).parents[2] / "shared" / "golden" / "fla_bitlinear" / "golden.safetensors"


class _Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x).sigmoid()
        return out


@pytest.mark.parametrize("shape", [(2, 3, 8), (1, 1, 8), (1, 8), (4, 4, 8)])
def test_leading_dimensions_are_free(shape: tuple[int, ...]) -> None:
    module = _Layer()
    gm = trace(module, (torch.randn(shape),))
    for sizes in ((1, 1), (5, 2)):
        x = torch.randn(*sizes[-len(shape) + 1 :], 8)
        assert torch.equal(gm(x), module(x))


def test_parameters_are_shared_and_nodes_know_their_line() -> None:
    module = _Layer()
    gm = trace(module, (torch.randn(2, 8),))
    assert gm.get_parameter("inner.weight").data_ptr() == module.inner.weight.data_ptr()
    (node,) = gm.graph.find_nodes(op="call_function", target=torch.ops.aten.sigmoid.default)
    assert "test_trace.py" in source_line(node)
    assert source_line(node).endswith("out: Tensor = self.inner(x).sigmoid()")
    assert node.meta["val"].shape[-1] == 4


def test_the_recurrence_stays_one_op() -> None:
    class Scan(nn.Module):
        def forward(self, c: Tensor, forget: Tensor) -> Tensor:
            h: Tensor = torch.ops.mmfree.mlgru_scan(c, forget, None)
            return h

    gm = trace(Scan(), (torch.rand(2, 3, 4), torch.rand(2, 3, 4)))
    assert len(gm.graph.find_nodes(op="call_function", target=OPS["mlgru_scan"].overload)) == 1
    c, forget = torch.rand(1, 9, 4), torch.rand(1, 9, 4)
    assert torch.equal(gm(c, forget), torch.ops.mmfree.mlgru_scan(c, forget))


class _InPlace(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        scale = x.abs().amax(-1, keepdim=True)
        scale.clamp_(min=0.5)
        scale.mul_(2)
        return x / scale


class _ThroughView(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = x * 1.5
        y[..., :2].mul_(3)
        return y


@pytest.mark.parametrize("module", [_InPlace(), _ThroughView()])
def test_the_graph_is_functional(module: nn.Module) -> None:
    x = torch.randn(2, 3, 4)
    gm = trace(module, (x,))
    schemas = [getattr(node.target, "_schema", None) for node in gm.graph.nodes]
    assert not any(schema.is_mutable for schema in schemas if schema)
    assert torch.equal(gm(x), module(x))


def test_training_mode_is_kept() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.Dropout())
    module[0].eval()
    module[1].train()
    trace(module, (torch.randn(2, 4),))
    assert [part.training for part in module] == [False, True]
    assert module.training


# --- layers that cannot be exported -------------------------------------------------------------


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


@pytest.mark.skipif(not FUSED.exists(), reason="needs ../shared")
@pytest.mark.parametrize("case", ["64x48", "96x33", "256x128"])
def test_the_adapter_computes_what_the_kernel_does(case: str) -> None:
    tensors = load_file(FUSED)
    weight = tensors[f"{case}.weight"]
    layer = _Fused(weight.shape[1], weight.shape[0])
    layer.weight = nn.Parameter(weight)
    layer.norm.weight = nn.Parameter(tensors[f"{case}.norm_weight"])
    x = tensors[f"{case}.x"]
    gm = run(GRAPH, trace(layer, (x,)))
    # fp32 sums in another order; the case was chosen off .5 edges.
    torch.testing.assert_close(gm(x), tensors[f"{case}.y_fused"], rtol=1e-4, atol=1e-4)


# --- errors -------------------------------------------------------------------------------------


class _Branches(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class _Fixed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.ones(2, 3, 4)


def test_what_cannot_be_exported_is_a_trace_error() -> None:
    with pytest.raises(TraceError, match=r"_Branches: torch.export failed: .*Write its forward"):
        trace(_Branches(), (torch.randn(2, 4),))


def test_a_fixed_size_is_a_trace_error() -> None:
    with pytest.raises(TraceError, match="input x: its forward works only with size"):
        trace(_Fixed(), (torch.randn(2, 3, 4),))
    assert trace(_Fixed(), (torch.randn(2, 3, 4),), dynamic=False)(torch.zeros(2, 3, 4)).sum() == 24


def test_examples_are_tensors() -> None:
    with pytest.raises(InputError, match="example input 1"):
        trace(_Layer(), (torch.randn(2, 8), [1]))  # type: ignore[arg-type]


class _Interrupted(nn.Module):
    """Ctrl-C comes while Python runs a weak reference's callback, where exceptions are dropped."""

    def forward(self, x: Tensor) -> Tensor:
        thing = nn.Identity()
        watching = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGINT))
        del thing
        assert watching() is None
        return 2 * x


def test_ctrl_c_is_not_lost_in_callbacks() -> None:
    with pytest.raises(KeyboardInterrupt):
        trace(_Interrupted(), (torch.zeros(2, 3),))
