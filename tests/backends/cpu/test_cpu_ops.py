"""Every op of the CPU backend has the bits of its reference, in every variant this machine runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from op_modules import (
    Products,
    SmallLM,
    TinyLM,
    distinct,
    integer_rows,
    mm,
    runnable_variants,
    state_rows,
)
from special_values import BINARY, UNARY, assert_same_bits
from torch import Tensor, nn

import mmfree_compiler as mmf
from mmfree_compiler import backends
from mmfree_compiler.compiled_model import CompiledModel
from mmfree_compiler.ops import OPS
from mmfree_compiler.runtime import Session

RUNNABLE = runnable_variants()
WIDTHS = [16, 48, 5]  # a whole vector, several, and one that ends in padding

# Compiled together: a model is traced once for all of them.
ALL, DISTINCT = ",".join(RUNNABLE), ",".join(distinct(RUNNABLE))
DENSITIES = ("1.6", "2")
densities = pytest.mark.parametrize("density", DENSITIES)


def compiled(
    variant: str, module: nn.Module, *inputs: Tensor, density: str = "auto"
) -> CompiledModel:
    """For one variant or several, separated by commas."""
    target = f"cpu:{variant},density={density}"
    return mmf.compile(module, target, example_inputs=inputs, threads=2)


def sessions(model: CompiledModel) -> Iterator[Session]:
    """One session for each variant of the model, which `launcher.build` names."""
    for build in model.artifact.entry.builds:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MMFREE_VARIANT", build.name)
            session = Session(model.artifact, threads=2)
        assert session.launcher.build == build.name
        yield session


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 3


class Apply(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., object]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor, y: Tensor | None = None, z: Tensor | None = None) -> object:
        return self.function(*(tensor for tensor in (x, y, z) if tensor is not None))


def test_every_op_is_lowered() -> None:
    compound = {name for name, op in OPS.items() if op.kind == "compound"}
    assert OPS.keys() - compound == backends.get("cpu").compiler().ops


@pytest.mark.parametrize("turn", range(len(WIDTHS)))
def test_pointwise(turn: int) -> None:
    """On the widest vectors. Ops take turns: the loop around them, which is what depends on the
    width, is the same for all; test_cpu_special_values.py tests every op on every kind of vector.
    """
    width, unary, binary = WIDTHS[turn], UNARY[turn :: len(WIDTHS)], BINARY[turn :: len(WIDTHS)]
    x, y = rows(3, 5, width), rows(3, 5, width, seed=1)
    x[0, 0] = torch.linspace(-100, 100, width)  # exp and sigmoid reach their ends
    positive = x.abs() + 0.1

    def some(x: Tensor, y: Tensor, positive: Tensor) -> list[Tensor]:
        arguments = {"sqrt": positive, "reciprocal": positive, "exp": -positive}
        made = [getattr(mm, name)(arguments.get(name, x)) for name in unary]
        return made + [getattr(mm, name)(x, positive + y) for name in binary]

    expected = some(x, y, positive)
    got = compiled(RUNNABLE[0], Apply(some), x, y, positive)(x, y, positive)
    for name, a, b in zip((*unary, *binary), got, expected, strict=True):
        assert_same_bits(a, b, name)


@densities
def test_integer_sums_are_exact(density: str) -> None:
    """Rows of integers with absmax 127 are their own codes, of scale 1: outputs are the sums."""
    module, rows = Products(), integer_rows(70)
    model = compiled(ALL, module, *rows, density=density)
    for session in sessions(model):
        for count in (1, 2, 3, 4, 5, 6, 8, 25, 70):  # each size of a block of tokens, and several
            inputs = [x[:count] for x in rows]
            for got, exact in zip(session(*inputs), module.exact(*inputs), strict=True):
                assert torch.equal(got.long(), exact), (session.launcher.build, count)


@densities
def test_the_largest_sums_do_not_overflow(density: str) -> None:
    """Codes of one sign against weights of +1, whose digits are 2: int16 sums reach 32512."""
    weight, one = torch.ones(16, 1000, dtype=torch.int8), torch.ones(1)
    x = torch.full((8, 1000), 127.0) * torch.tensor([1.0, -1.0] * 4)[:, None]

    def linear(x: Tensor) -> object:
        return mm.ternary_linear(*mm.quantize(x, 1e-5), weight, one, None)

    for session in sessions(compiled(ALL, Apply(linear), x, density=density)):
        for some in (x[:1], x[1:2], x):
            exact = some.sum(1, keepdim=True).expand(-1, 16)
            made: Any = session(some)
            assert torch.equal(made, exact), session.launcher.build


def test_scans_follow_sequences() -> None:
    weight = rows(24, 4, seed=5)

    def scans(c: Tensor, f: Tensor) -> tuple[Tensor, Tensor]:
        bounds = torch.linspace(0, 0.9, 24)
        gates = mm.mlgru_gates(c, f, bounds)
        free = mm.mlgru_gates(c, f, None)
        h = mm.mlgru_scan(gates[0], gates[1])
        return mm.add(h, mm.mlgru_scan(free[0], free[1])), mm.short_conv(c, weight, None)

    c, f = rows(3, 70, 24), rows(3, 70, 24, seed=6)
    expected = scans(c, f)
    for session in sessions(compiled(DISTINCT, Apply(scans), c, f)):
        for name, a, b in zip(("scans", "convolution"), session(c, f), expected, strict=True):
            assert_same_bits(a, b, f"{name} on {session.launcher.build}")


def test_a_convolution_of_one_channel() -> None:
    weight, bias = rows(1, 4, seed=7), rows(1, seed=8)
    x = rows(2, 9, 1)
    model = compiled(DISTINCT, Apply(lambda x: mm.short_conv(x, weight, bias)), x)
    for session in sessions(model):
        made: Any = session(x)
        name = f"convolution on {session.launcher.build}"
        assert_same_bits(made, mm.short_conv(x, weight, bias), name, x)


def test_long_chains_compile() -> None:
    """In a time that grows with their length; once it doubled with every op."""

    def chain(x: Tensor) -> Tensor:
        for name in ("silu", "tanh", "exp") * 4:
            x = getattr(mm, name)(mm.neg(x))
        return x

    x = rows(2, 3, 16)
    assert_same_bits(compiled(RUNNABLE[-1], Apply(chain), x)(x), chain(x), "chain", x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_embedding_widens_exactly(dtype: torch.dtype) -> None:
    table = rows(50, 20).to(dtype)
    table[0, 0] = 6e-8  # a subnormal float16
    ids = torch.tensor([[0, 49, 3], [7, 7, 1]])
    model = compiled(DISTINCT, Apply(lambda ids: mm.identity(mm.embedding(ids, table))), ids)
    for session in sessions(model):
        logits, _ = session(ids)
        assert torch.equal(logits, table.float()[ids]), session.launcher.build


# What is between the products does not depend on the layout of weights: tests/conformance runs it
# on every variant. Here the ends have all kinds of stages, and the others products above all.
LOOPS = [(name, TinyLM if name in (RUNNABLE[0], RUNNABLE[-1]) else SmallLM) for name in RUNNABLE]
Looped = tuple[CompiledModel, Callable[[], nn.Module]]


@pytest.fixture(scope="module", params=LOOPS, ids=RUNNABLE)
def looped(request: pytest.FixtureRequest) -> Looped:
    """A loop of layers of the denser layout; tests/conformance runs models of the other."""
    variant, model = request.param
    ids = torch.zeros(2, 3, dtype=torch.int64)
    return compiled(variant, model(), ids, density="1.6"), model


@cache
def whole(model: Callable[[], nn.Module]) -> tuple[Tensor, Tensor]:
    """Ids (3, 130), and what the model makes of them."""
    ids = torch.randint(0, 37, (3, 130), generator=torch.Generator().manual_seed(1))
    return ids, model()(ids)


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_a_loop_of_layers(looped: Looped, threads: int) -> None:
    """Prefill, decode, and batched decode have the module's bits, whatever the threads."""
    model, module = looped
    ids, expected = whole(module)
    session = Session(model.artifact, threads)
    logits, state = session(ids[:, :129])
    assert_same_bits(logits, expected[:, :129], "prefill")
    last, _ = session(ids[:, 129:], state)
    assert_same_bits(last, expected[:, 129:], "decode")
    alone = [session(ids[row : row + 1, :129])[1] for row in range(3)]
    assert np.array_equal(np.concatenate([*map(state_rows, alone)]), state_rows(state))


def test_outputs_of_every_kind_are_written() -> None:
    """An input, a row op's, a loop's result, one value twice."""

    def outputs(x: Tensor) -> list[Tensor]:
        y = x
        for _ in range(3):
            y = mm.add(y, mm.rms_norm(mm.silu(mm.rms_norm(y, ones, 1e-6)), ones, 1e-6))
        return [x, mm.rms_norm(x, ones, 1e-6), y, y]

    ones, x = torch.ones(20), rows(2, 3, 20)
    for session in sessions(compiled(DISTINCT, Apply(outputs), x)):
        for k, (a, b) in enumerate(zip(session(x), outputs(x), strict=True)):
            assert_same_bits(a, b, f"output {k} on {session.launcher.build}", x)


def test_threads_do_not_change_a_bit(looped: Looped) -> None:
    model, _ = looped
    ids = torch.randint(0, 37, (2, 40), generator=torch.Generator().manual_seed(2))
    first, *others = (Session(model.artifact, threads)(ids)[0] for threads in (1, 2, 5))
    assert all(torch.equal(first, other) for other in others)
