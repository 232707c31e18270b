"""Norms and ternary layers are found by what they compute, however they are written."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import zoo
import zoo_parts
from lowering import NAMES, WITH_NORM, WITHOUT_NORM, assert_same, check, lowered, op_names
from torch import Tensor, nn

from mmfree_compiler.errors import TraceError, UnsupportedError
from mmfree_compiler.graph_text import notes
from mmfree_compiler.ops import OPS
from mmfree_compiler.passes import check_supported, left_over


@pytest.fixture
def x() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(2, 3, 32)


@pytest.mark.parametrize("norm", zoo.NORMS)
def test_norm(norm: str, x: Tensor) -> None:
    check(zoo.Proj(32, 16, norm=norm), x, WITH_NORM)
    check(zoo_parts.Norm(32, norm), x, ["rms_norm"])


def test_norm_without_a_weight(x: Tensor) -> None:
    gm = check(_Bare(), x, ["rms_norm"])
    assert torch.equal(gm.get_buffer("ones"), torch.ones(32))


class _Bare(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


class _TypesEps(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (32,))


def test_norm_whose_eps_is_the_types(x: Tensor) -> None:
    gm = check(_TypesEps(), x, ["rms_norm"])
    (node,) = gm.graph.find_nodes(op="call_function", target=OPS["rms_norm"].overload)
    assert node.args[2] == torch.finfo(torch.float32).eps


@pytest.mark.parametrize("quantizer", zoo.QUANTIZERS)
@pytest.mark.parametrize("norm", ["rsqrt", None])
def test_activation_quantizer(quantizer: str, norm: str | None, x: Tensor) -> None:
    gm = check(
        zoo.Proj(32, 16, norm=norm, quantizer=quantizer), x, WITH_NORM if norm else WITHOUT_NORM
    )
    target = OPS["norm_quant" if norm else "quantize"].overload
    (node,) = gm.graph.find_nodes(op="call_function", target=target)
    assert node.args[-1] == pytest.approx(zoo.QUANT_EPS)


@pytest.mark.parametrize("weight", zoo.WEIGHTS)
@pytest.mark.parametrize("through", zoo.THROUGH)
def test_weight_quantizer_and_straight_through(weight: str, through: str, x: Tensor) -> None:
    module = zoo.Proj(32, 16, weight=weight, through=through)
    gm = check(module, x, WITH_NORM)
    expected = zoo.WEIGHTS[weight](module.matrix.detach())
    assert torch.equal(gm.get_buffer("matrix_codes"), expected.sign().to(torch.int8))
    # The mean may be off by some ulps: torch sums it in another order.
    scale = expected.abs().max().reshape(1)
    torch.testing.assert_close(gm.get_buffer("matrix_scale"), scale, rtol=5e-7, atol=0)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", [zoo.Proj, zoo.TransposedProj])
def test_bias_and_transposed_weight(kind: type[zoo.Proj], bias: bool, x: Tensor) -> None:
    check(kind(32, 16, bias=bias), x, WITH_NORM)


def test_addmm_of_rows(x: Tensor) -> None:
    check(zoo.AddmmProj(32, 16, bias=True), x[0], WITH_NORM)


@pytest.mark.parametrize("multiply", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_packed_by_others(multiply: bool, bias: bool, x: Tensor) -> None:
    module = zoo.PackedProj(32, 16, multiply, bias)
    gm = check(module, x, WITHOUT_NORM)
    assert torch.equal(gm.get_buffer("codes_codes"), module.codes)
    scale = module.weight_scale if multiply else 1 / module.weight_scale
    # The scale is measured on probe rows, so it may be off by fp32 rounding.
    torch.testing.assert_close(gm.get_buffer("codes_scale"), scale, rtol=1e-6, atol=0)


def test_packed_bits(x: Tensor) -> None:
    module = zoo.PackedBits(32, 16)
    gm = check(module, x, WITHOUT_NORM)
    assert torch.equal(gm.get_buffer("packed_codes"), module.codes)
    # The scale is measured on probe rows, so it may be off by fp32 rounding.
    assert gm.get_buffer("packed_scale").item() == pytest.approx(1 / 0.8, rel=1e-6)


def test_ternary_weights_are_not_quantized_again(x: Tensor) -> None:
    module = zoo.DequantizedProj(32, 16)
    gm = check(module, x, WITHOUT_NORM)
    assert torch.equal(gm.get_buffer("matrix_scale"), module.matrix.abs().max().reshape(1))


def test_a_shared_weight_is_folded_once(x: Tensor) -> None:
    gm = check(zoo.SharedProj(32), x, WITH_NORM + WITH_NORM)
    assert [name for name, _ in gm.named_buffers() if name.endswith("codes")] == [
        "layer_matrix_codes"
    ]


class _Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(16, 32), zoo.Proj(32, 16)
        self.table.weight = self.head.matrix

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.head(self.table(tokens))
        return logits


def test_tied_head_quantizes_the_embedding() -> None:
    torch.manual_seed(0)
    check(_Tied(), torch.randint(0, 16, (2, 3)), ["embedding", *WITH_NORM])


def test_narrow_parameters_are_widened(x: Tensor) -> None:
    module = zoo.Proj(32, 16, bias=True)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(parameter.bfloat16())
    expected = lowered(module, x)(x)
    stored = _Stored(module)
    gm = lowered(stored, x)
    torch.testing.assert_close(gm(x), expected, rtol=1e-6, atol=1e-6)
    assert all(b.dtype in (torch.float32, torch.int8) for b in gm.buffers())


class _Stored(nn.Module):
    """A layer whose parameters are stored in bf16 and widened where they are used."""

    def __init__(self, layer: zoo.Proj) -> None:
        super().__init__()
        self.layer = layer
        for name, parameter in layer.named_parameters():
            setattr(layer, name, nn.Parameter(parameter.data.bfloat16()))

    def forward(self, x: Tensor) -> Tensor:
        values = {name: p.float() for name, p in self.layer.named_parameters()}
        out: Tensor = torch.func.functional_call(self.layer, values, (x,))
        return out


# --- what is not a ternary layer ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (zoo_parts.FloatProj, "its rows are not quantized: a float linear layer"),
        (zoo_parts.FewBits, "its rows are quantized, but not to int8 by each row's maximum"),
        (zoo_parts.PerTensor, "its rows are quantized, but not to int8 by each row's maximum"),
        (zoo_parts.AddedEps, "its rows are quantized, but not to int8 by each row's maximum"),
        (zoo_parts.Unquantized, "its weight has 512 distinct values"),
    ],
)
def test_left_over(kind: type[zoo.Proj], reason: str, x: Tensor) -> None:
    module = kind(32, 16)
    gm = lowered(module, x)
    assert "ternary_linear" not in op_names(gm)
    assert reason in [call.reason for call in left_over(gm, NAMES)]
    assert_same(gm, module, x)


def test_narrow_computation_is_left_over_and_still_runs(x: Tensor) -> None:
    torch.manual_seed(0)
    module = zoo_parts.Narrow().eval()
    gm = lowered(module, x[..., :16])
    assert any("call .float() on the module" in call.reason for call in left_over(gm, NAMES))
    with torch.no_grad():
        # The straight-through estimator's own rounding in bf16 is gone: one part in 2^8 of it.
        torch.testing.assert_close(gm(x[..., :16]), module(x[..., :16]), rtol=0.05, atol=0.05)


class _Drops(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.5, training=True)


def test_dropout_that_drops_in_inference_is_refused(x: Tensor) -> None:
    with pytest.raises(TraceError, match="is random"):
        lowered(_Drops(), x)


def test_everything_left_over_is_listed_with_its_line(x: Tensor) -> None:
    module = nn.Sequential(zoo_parts.FewBits(32, 16), nn.GELU(), zoo_parts.Unquantized(16, 8))
    with pytest.raises(UnsupportedError) as error:
        check_supported(lowered(module, x), NAMES)
    message = str(error.value)
    assert "aten.gelu.default (no lowering) in 1 (GELU)\n" in message
    assert "aten.linear.default" in message
    assert "mmfree.bit_linear.default (its weight has 128 distinct values)" in message
    assert "zoo.py:" in message


CASTS: dict[str, tuple[Callable[[Tensor], Tensor], list[str]]] = {
    "half": (lambda y: y.half(), ["aten.to.dtype"]),
    "bfloat16": (lambda y: y.bfloat16(), ["aten.to.dtype"]),
    "double": (lambda y: y.double(), ["aten.to.dtype"]),
    "scaled in double": (lambda y: (3 * y).double() * 2, ["aten.to.dtype", "aten.mul.Tensor"]),
    "half of double": (lambda y: y.double().half(), ["aten.to.dtype", "aten.to.dtype"]),
}


class _Casts(nn.Module):
    def __init__(self, cast: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self.cast = zoo.Proj(32, 16), cast

    def forward(self, x: Tensor) -> Tensor:
        return self.cast(self.layer(x))


@pytest.mark.parametrize("name", CASTS)
def test_only_a_cast_at_the_end_is_left_over(name: str, x: Tensor) -> None:
    cast, expected = CASTS[name]
    gm = lowered(_Casts(cast), x)
    assert op_names(gm) == WITH_NORM
    found = left_over(gm, NAMES)
    assert [str(call.node.target).removesuffix(".default") for call in found] == expected
    assert all("test_detect_spellings.py" in str(call) for call in found)


def test_a_product_scaled_in_double_and_back_is_one_layer(x: Tensor) -> None:
    check(_Casts(lambda y: (y.double() * 2).float()), x, WITH_NORM)


def test_only_the_targets_ops_are_supported(x: Tensor) -> None:
    gm = lowered(nn.Sequential(zoo.Proj(32, 16), nn.SiLU()), x)
    assert [str(c.node.target) for c in left_over(gm, NAMES - {"silu"})] == ["mmfree.silu.default"]


def test_notes_name_the_eps(x: Tensor) -> None:
    found = [n.text for n in notes(lowered(zoo.Proj(32, 16), x)) if n.pass_name == "detect_norm"]
    assert found == ["rms_norm, eps 1e-06"]
