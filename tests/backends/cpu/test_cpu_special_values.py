"""Special values on every kind of vector: all ops have the references' bits, rows their NaN."""

from __future__ import annotations

import pytest
import torch
from op_modules import ALIKE, distinct, mm, runnable_variants
from special_values import Pointwise, Rows, assert_same_bits, pairs
from torch import Tensor, nn

import mmfree_compiler as mmf
from mmfree_compiler.compiled_model import CompiledModel
from mmfree_compiler.runtime import Session

WIDTH = 37  # two whole vectors, and one that ends in padding
BAD = [float("nan"), float("inf"), -float("inf")]

VARIANTS = distinct(runnable_variants())
variants = pytest.mark.parametrize("variant", VARIANTS)


def compiled(variant: str, module: nn.Module, *inputs: Tensor) -> CompiledModel:
    return mmf.compile(module, f"cpu:{variant}", example_inputs=inputs, threads=2)


def ones(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0)) + 0.5


@variants
def test_pointwise_ops(variant: str) -> None:
    """Special values in every pair and place, and 100,000 random bit patterns."""
    module = Pointwise()
    model = compiled(variant, module, ones(4, WIDTH), ones(4, WIDTH))
    x, y = pairs(WIDTH)
    for rows in (slice(None), slice(1)):  # many tokens, and one
        got, expected = model(x[rows], y[rows]), module(x[rows], y[rows])
        for name, a, b in zip(module.names, got, expected, strict=True):
            assert_same_bits(a, b, name, x[rows], y[rows])


@pytest.mark.parametrize("alike", ALIKE, ids="-".join)
def test_code_without_products_is_the_same(alike: tuple[str, ...]) -> None:
    """So one of these variants stands for the others here, and in the tests of rows."""

    class Ops(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> list[Tensor]:
            return [mm.rms_norm(x, weight, 1e-6), mm.sigmoid(y)]

    weight = ones(WIDTH)
    model = compiled(",".join(alike), Ops(), ones(4, WIDTH), ones(4, WIDTH))
    codes = {model.artifact.members[f"kernels/{name}.so"].tobytes() for name in alike}
    assert len(codes) == 1


@variants
def test_nothing_is_cancelled_or_fused(variant: str) -> None:
    """Each op rounds: TVM and LLVM would see through these."""

    def chains(x: Tensor, y: Tensor) -> list[Tensor]:
        difference, big = mm.sub(x, x), mm.add(x, y)
        return [difference, mm.sub(big, y), mm.div(x, x), mm.add(mm.mul(x, x), y)]

    class Chains(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> list[Tensor]:
            return chains(x, y)

    model = compiled(variant, Chains(), ones(4, WIDTH), ones(4, WIDTH))
    x, y = pairs(WIDTH)
    for name, a, b in zip(["sub", "cancel", "div", "fuse"], model(x, y), chains(x, y), strict=True):
        assert_same_bits(a, b, name, x, y)


@variants
def test_rows(variant: str) -> None:
    """A row that holds NaN or infinity becomes NaN; other rows are as they were."""
    module, x, h = Rows(WIDTH), ones(9, WIDTH), ones(9, WIDTH)
    model = compiled(variant, module, x, h)
    before = model(x, h)
    for row, bad in enumerate(BAD):
        x[2 * row, 7 + 14 * row] = bad  # the last in the vector that ends in padding
    for found, fine in zip(model(x, h), before, strict=True):
        assert found[[0, 2, 4]].isnan().all()
        assert torch.equal(found[[1, 3, 5, 6, 7, 8]], fine[[1, 3, 5, 6, 7, 8]])
    for row in (0, 1):  # decoding one token
        assert all(y.isnan().all() == (row == 0) for y in model(x[[row]], h[[row]]))


@variants
def test_rows_of_huge_and_tiny_finite_values(variant: str) -> None:
    """They are not taken for infinite ones: no sum or product on the way may decide that."""
    module = Rows(WIDTH)
    row = torch.linspace(0.5, 0.7, WIDTH).square()
    x = torch.outer(torch.tensor([1e38, 1e30, 2e19, 1e15, 1e-15, 1e-30, 1e-45]), row)
    h = ones(7, WIDTH)
    got = compiled(variant, module, ones(7, WIDTH), h)(x, h)
    for k, (a, b) in enumerate(zip(got, module(x, h), strict=True)):
        assert_same_bits(a, b, f"output {k}", x)


def test_an_overflow_after_the_outer_norms_weight_is_not_hidden() -> None:
    """Its squares overflow, those of the row do not."""
    outer, inner = torch.full((WIDTH,), 1e25), ones(WIDTH)
    eye, one = torch.eye(WIDTH, dtype=torch.int8), torch.ones(1)

    class Norms(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            codes, scale = mm.norm_quant(x, outer, 1e-6, [inner], 1e-6, 1e-5)
            made: Tensor = mm.ternary_linear(codes, scale, eye, one, None)
            return made

    x = ones(2, WIDTH)
    target = f"cpu:{VARIANTS[-1]}"
    model = mmf.compile(Norms(), target, example_inputs=(x,), check=False)
    assert model(x).isnan().all()


@variants
def test_nan_stays_in_its_sequence(variant: str) -> None:
    """Through a scan and its state, to the later tokens, as in the reference."""

    class Scans(nn.Module):
        def forward(self, c: Tensor, forget: Tensor) -> list[Tensor]:
            h = mm.mlgru_scan(c, forget)
            return [h, mm.short_conv(c, taps, None), mm.short_conv(c, taps, bias)]

    taps, bias, shape = ones(WIDTH, 4), ones(WIDTH), (3, 9, WIDTH)
    c, forget = ones(*shape), ones(*shape) / 2
    model = compiled(variant, Scans(), c, forget)
    c[1, 4, 20], c[2, 8, 36] = float("nan"), float("inf")
    for a, b in zip(model(c, forget), Scans()(c, forget), strict=True):
        assert_same_bits(a, b, "scan", c, forget)
        assert a[1, 4:, 20].isnan().any()


def test_a_session_decodes_on_after_nan() -> None:
    """Its state holds it; a state without it is not touched."""

    class Table(nn.Module):
        def forward(self, ids: Tensor) -> Tensor:
            x = mm.embedding(ids, table)
            h = mm.mlgru_scan(x, mm.sigmoid(x))
            made: Tensor = mm.mul(h, mm.reciprocal(h))  # NaN of infinity
            return made

    table = ones(WIDTH, WIDTH)
    table[3] = 3e38
    model = compiled(VARIANTS[0], Table(), torch.zeros(2, 3, dtype=torch.int64))
    session = Session(model.artifact)
    ids = torch.tensor([[0, 1, 2], [3, 3, 3]])
    logits, state = session(ids)
    assert logits.isnan().any(-1).tolist() == [[False] * 3, [False, True, True]]
    logits, _ = session(torch.tensor([[1], [1]]), state)
    assert logits.isnan().any(-1).tolist() == [[False], [True]]
