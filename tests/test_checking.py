"""Checks while compiling: is what the passes made still the module?"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from op_modules import mm
from torch import Tensor, nn
from wrong_passes import DoublesLastScale, DoublesScales, DropsSilu, Swaps

import mmfree_compiler as mmf
from mmfree_compiler import passes
from mmfree_compiler.backends.reference.compiler import ReferenceCompiler
from mmfree_compiler.checking import Check
from mmfree_compiler.compiled_model import CompiledModel
from mmfree_compiler.errors import InputError, MmfreeError
from mmfree_compiler.models import BitLinear, MatMulFreeLM, ModelConfig
from mmfree_compiler.models.initial import initialize


def compiled(module: nn.Module, *inputs: Tensor, check: Check = "module") -> CompiledModel:
    return mmf.compile(module, "reference", example_inputs=inputs, check=check)


def layers() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(BitLinear(24, 40), nn.SiLU(), BitLinear(40, 12)).eval()


def rows(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


# --- wrong passes --------------------------------------------------------------------------------


def to_program_passes(monkeypatch: pytest.MonkeyPatch, wrong: Any) -> None:
    monkeypatch.setattr(passes, "PROGRAM", (*passes.PROGRAM, wrong))


def to_backend_passes(monkeypatch: pytest.MonkeyPatch, wrong: Any) -> None:
    monkeypatch.setattr(ReferenceCompiler, "passes", lambda *_: (wrong,))


def to_graph_passes(monkeypatch: pytest.MonkeyPatch, wrong: Any) -> None:
    monkeypatch.setattr(passes, "GRAPH", (*passes.GRAPH, wrong))


WRONG: list[tuple[Callable[..., None], Any]] = [
    (to_program_passes, DoublesScales()),
    (to_backend_passes, DoublesScales()),
    (to_program_passes, Swaps("silu", "relu")),
    (to_graph_passes, DropsSilu()),
]
every_wrong_pass = pytest.mark.parametrize(
    ("add", "wrong"), WRONG, ids=[f"{add.__name__}-{wrong.name}" for add, wrong in WRONG]
)


@every_wrong_pass
def test_another_model_is_refused(
    monkeypatch: pytest.MonkeyPatch, add: Callable[..., None], wrong: Any
) -> None:
    add(monkeypatch, wrong)
    with pytest.raises(MmfreeError, match="the compiled model: output 0 differs") as caught:
        compiled(layers(), rows(5, 24))
    assert 'check="passes" finds the pass' in str(caught.value)


@every_wrong_pass
def test_the_wrong_pass_is_named(
    monkeypatch: pytest.MonkeyPatch, add: Callable[..., None], wrong: Any
) -> None:
    add(monkeypatch, wrong)
    with pytest.raises(MmfreeError, match=f"pass {wrong.name}: output 0 differs"):
        compiled(layers(), rows(5, 24), check="passes")


@torch.no_grad()
@every_wrong_pass
def test_without_a_check_it_compiles(
    monkeypatch: pytest.MonkeyPatch, add: Callable[..., None], wrong: Any
) -> None:
    add(monkeypatch, wrong)
    module, x = layers(), rows(5, 24)
    found, expected = compiled(module, x, check=False)(x), module(x)
    assert (found - expected).norm() > 0.1 * expected.norm()


def test_a_wrong_language_model_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its inputs are chosen by the compiler."""
    model = MatMulFreeLM(ModelConfig.of(32, 2, 20))
    initialize(model, 0)
    compiled(model)
    to_program_passes(monkeypatch, DoublesScales())
    with pytest.raises(MmfreeError, match="the compiled model"):
        compiled(model)


def test_the_eager_fallback_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    module, x = nn.Sequential(layers(), nn.Softsign()), rows(5, 24)
    mmf.compile(module, "reference", example_inputs=(x,), fallback="eager")
    to_program_passes(monkeypatch, DoublesScales())
    with pytest.warns(
        UserWarning, match="in torch as a whole: the compiled model: output 0 differs"
    ) as warned:
        model = mmf.compile(module, "reference", example_inputs=(x,), fallback="eager")
    assert "check=" not in str(warned[0].message)
    with torch.no_grad():
        assert torch.equal(model(x), module(x))


# --- codes and inputs ----------------------------------------------------------------------------


class Deep(nn.Sequential):
    """Many layers of random weights: one other code in the first changes every later one."""

    def forward(self, x: Tensor) -> Tensor:
        for layer in self:
            x = x + 3 * layer(x)
        return x


@torch.no_grad()
def test_codes_at_edges_do_not_hide_what_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first layer's inputs lie on edges: half of their codes may go either way."""
    torch.manual_seed(0)
    module = Deep(*(BitLinear(64, 64) for _ in range(24)))
    x = (torch.arange(64.0) - 32 + 0.5)[None].repeat(5, 1)
    x[:, 0] = 127
    off = x * (1 + 3e-7 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)))
    assert (module(off) - module(x)).abs().max() > 1e-3 * module(x).abs().max()
    compiled(module, x)
    to_program_passes(monkeypatch, DoublesLastScale())
    with pytest.raises(MmfreeError, match="the compiled model: output 0 differs"):
        compiled(module, x)


def _is_real(x: Tensor) -> bool:
    """Whether the module runs by itself; a trace cannot refuse what it cannot see."""
    return type(x) is Tensor


class Surprise(nn.Module):
    """Compiled as x; it is something else on inputs for which `when` holds."""

    def __init__(self, when: Callable[[Tensor], bool]) -> None:
        super().__init__()
        self.when = when

    def forward(self, x: Tensor) -> Tensor:
        return x.tanh() if _is_real(x) and self.when(x) else x.relu()


@pytest.mark.parametrize(
    ("when", "where"),
    [
        (lambda x: x.shape == (1, 1, 8), r"token 0 of input \(1, 1, 8\), a row times 1"),
        (lambda x: x.shape == (3, 7, 8), r"of input \(3, 7, 8\)"),
        (lambda x: x.shape == (2, 5, 8), r"token \d+ of input \(2, 5, 8\)$"),
        (lambda x: bool(x.abs().max() > 100), r"of input \(3, 7, 8\), a row times"),
        (lambda x: bool((x == 0).any()), r"\(3, 7, 8\)"),
    ],
)
def test_sizes_and_magnitudes(when: Callable[[Tensor], bool], where: str) -> None:
    with pytest.raises(MmfreeError, match="output 0 differs") as error:
        compiled(Surprise(when), rows(2, 5, 8))
    assert re.search(where, error.value.cause)


class NeedsTwoTokens(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if _is_real(x) and x.shape[1] == 1:
            raise ValueError
        return x.relu()


def test_where_the_module_raises_nothing_is_compared() -> None:
    compiled(NeedsTwoTokens(), rows(2, 5, 8))


def test_the_op_whose_codes_differ_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    to_program_passes(monkeypatch, Swaps("silu", "relu"))
    with pytest.raises(MmfreeError, match=r"the codes of norm_quant at .*modules\.py:\d+") as error:
        compiled(layers(), rows(5, 24))
    assert "differ first" in error.value.cause


class Roots(nn.Module):
    """NaN for negative rows, infinity for a root of 0."""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = mm.reciprocal(mm.sqrt(x))
        return out


def test_what_is_not_finite_in_both_is_accepted() -> None:
    x = torch.tensor([[1.0, -1.0], [0.0, 4.0]])
    for check in ("module", "passes"):
        found = compiled(Roots(), x, check=check)(x)
        assert found.isnan().tolist() == [[False, True], [False, False]]
        assert found.isinf().tolist() == [[False, False], [True, False]]


@pytest.mark.parametrize("x", [[[1.0, -1.0]], [[1.0, 0.0]]])
def test_what_is_finite_in_one_only_is_refused(
    monkeypatch: pytest.MonkeyPatch, x: list[list[float]]
) -> None:
    to_program_passes(monkeypatch, Swaps("sqrt", "exp"))
    with pytest.raises(MmfreeError, match="differs from the module's by inf"):
        compiled(Roots(), torch.tensor(x))


# --- how the module runs -------------------------------------------------------------------------


class Gain(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(1 + 0.2 * torch.randn(width))


class NeedsGpu(nn.Linear):
    """A fused BitLinear whose kernel does not run here; adapters.py knows the published one."""

    __module__, __qualname__ = "mmfreelm.ops.fusedbitnet", "FusedBitLinear"

    def __init__(self, width: int, out: int) -> None:
        super().__init__(width, out, bias=False)
        self.norm = Gain(width)

    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError(f"no GPU for {x.shape}")


def test_a_layer_that_does_not_run_here_is_compared_by_its_adapter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    module, x = nn.Sequential(NeedsGpu(24, 16), nn.SiLU()), rows(5, 24)
    kept = list(module)
    for check in ("module", "passes"):
        compiled(module, x, check=check)
    assert list(module) == kept
    to_program_passes(monkeypatch, DoublesScales())
    with pytest.raises(MmfreeError, match="the compiled model"):
        compiled(module, x)


class Fails(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x @ torch.ones(3, 3)


def test_a_module_that_does_not_run_on_its_examples() -> None:
    with pytest.raises(InputError, match=r"module itself fails on them: RuntimeError.* at .*x @ "):
        compiled(Fails(), rows(2, 4))


@pytest.mark.parametrize("check", ["module", "passes", False])
def test_training_modes_are_restored(check: Check) -> None:
    """The module is compared as it is in inference: without dropout."""
    inner = nn.Sequential(nn.SiLU(), nn.Tanh())
    module = nn.Sequential(BitLinear(8, 8), nn.Dropout(0.9), inner)
    module.train()
    inner.eval()
    inner[1].train()
    modes = [part.training for part in module.modules()]
    compiled(module, rows(5, 8), check=check)
    assert [part.training for part in module.modules()] == modes
    module.append(Fails())
    with pytest.raises(InputError):
        compiled(module, rows(5, 8), check=check)
    assert [part.training for part in module.modules()] == [*modes, True]


@pytest.mark.parametrize("check", [True, None, "all", "", 1, "Module", [], object()])
def test_unknown_checks(check: Any) -> None:
    with pytest.raises(InputError, match=r"check .* is unknown. Known: 'module', 'passes', False"):
        compiled(layers(), rows(5, 24), check=check)
