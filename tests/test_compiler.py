"""`compile` as a user meets it: modules of all kinds, the fallback, bad arguments."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from op_modules import mm
from torch import Tensor, nn

import mmfree_compiler as mmf
from mmfree_compiler.checking import Check
from mmfree_compiler.compiled_model import CompiledModel
from mmfree_compiler.errors import (
    InputError,
    StateError,
    TargetError,
    UnsupportedError,
)
from mmfree_compiler.fallback import EagerModel
from mmfree_compiler.models import GLU, MLGRU, BitLinear, MatMulFreeLM, ModelConfig
from mmfree_compiler.models.initial import initialize
from mmfree_compiler.options import Keywords, Options
from mmfree_compiler.runtime import load

TARGET = "cpu:portable"


def compiled(module: nn.Module, *inputs: Tensor, target: str = TARGET) -> CompiledModel:
    return mmf.compile(module.eval(), target=target, example_inputs=inputs)


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def assert_close(a: Tensor, b: Tensor) -> None:
    """Equal to 1e-4 of the largest value, but for rows where a code sat on a rounding edge."""
    error = (a - b).abs().amax(-1) / b.abs().max()
    assert error.max() < 0.1
    assert (error > 1e-4).float().mean() < 0.1


@torch.no_grad()
@pytest.mark.parametrize("target", [TARGET, "reference"])
def test_layers_of_bit_linears(target: str) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(BitLinear(24, 40), nn.SiLU(), BitLinear(40, 12))
    model = compiled(module, rows(2, 24), target=target)
    for leading in ((1,), (7,), (2, 5), (2, 3, 4)):  # leading dimensions are free
        x = rows(*leading, 24, seed=1)
        assert_close(model(x), module(x))
    assert_close(torch.from_numpy(model(x.numpy())), module(x))  # NumPy in, NumPy out


@torch.no_grad()
def test_a_glu() -> None:
    torch.manual_seed(1)
    module = GLU(24, 40)
    x = rows(3, 5, 24)
    assert_close(compiled(module, x)(x), module(x))


@torch.no_grad()
@pytest.mark.parametrize("shared", [True, False])
def test_an_mlgru_layer(shared: bool) -> None:
    """Rows in, rows out: sequences start anew at every call."""
    torch.manual_seed(2)
    config = ModelConfig(
        model_type="hgrn_bit",
        vocab_size=16,
        hidden_size=32,
        num_hidden_layers=1,
        use_short_conv=True,
        share_conv_kernel=shared,
    )
    module, x = MLGRU(config), rows(2, 40, 32)
    model = compiled(module, x)
    assert_close(model(x), module(x)[0])
    assert torch.equal(model(x), model(x))


@torch.no_grad()
def test_a_saved_module_runs(tmp_path: Path) -> None:
    torch.manual_seed(3)
    module, x = nn.Sequential(BitLinear(24, 40), nn.SiLU()), rows(4, 24)
    model = compiled(module, x)
    model.save(tmp_path / "module.mmfree")
    loaded: Any = load(tmp_path / "module.mmfree")
    assert torch.equal(loaded(x), model(x))


class Unusual(nn.Module):
    """A BitLinear between operations that no target lowers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = BitLinear(16, 16), BitLinear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x.cumsum(-1))
        out: Tensor = self.second(torch.sin(x)) + x
        return out


@torch.no_grad()
def test_what_cannot_be_lowered_is_reported_all_at_once() -> None:
    with pytest.raises(UnsupportedError) as caught:
        compiled(Unusual(), rows(2, 16))
    message = str(caught.value)
    assert "cumsum" in message
    assert "sin" in message
    assert message.count(f"{Path(__file__).name}:") == 2  # each with its line
    assert 'fallback="eager"' in message


@torch.no_grad()
def test_the_eager_fallback_runs_the_rest_in_torch(tmp_path: Path) -> None:
    torch.manual_seed(4)
    module, x = Unusual().eval(), rows(3, 16)
    model = mmf.compile(module, TARGET, example_inputs=(x,), fallback="eager")
    assert isinstance(model, EagerModel)
    assert_close(model(x), module(x))
    assert_close(model(rows(9, 16, seed=1)), module(rows(9, 16, seed=1)))
    assert any("sin" in name for name in model.eager)
    explained = model.explain().text(notes=True)
    assert "detect_bitlinear (2), graph" in explained
    assert explained.count("2 bits per weight") == 2  # of each compiled part
    lines = [line for line in explained.splitlines() if line.startswith(" ")]
    in_torch = [line.split()[0] for line in lines if line.endswith("in torch")]
    assert in_torch == ["cumsum", "sin"]
    with pytest.raises(TargetError, match="cannot be saved"):
        model.save(tmp_path / "model.mmfree")
    assert not list(tmp_path.iterdir())


def tiny_lm(hidden: int = 32, seed: int = 0) -> MatMulFreeLM:
    config = ModelConfig(
        model_type="hgrn_bit", vocab_size=20, hidden_size=hidden, num_hidden_layers=2
    )
    model = MatMulFreeLM(config).eval()
    initialize(model, seed)
    return model


@torch.no_grad()
@pytest.mark.parametrize("check", ["module", "passes", False])
def test_a_model_in_memory_and_its_check(check: Check) -> None:
    module = tiny_lm()
    model = mmf.compile(module, TARGET, check=check)
    ids = torch.randint(0, 20, (2, 9), generator=torch.Generator().manual_seed(0))
    logits, _ = model(ids)
    assert_close(logits, module(ids)[0])
    explained = model.explain()
    notes = [(step.name, note.node, note.text) for step in explained.passes for note in step.notes]
    assert tuple(notes) == model.artifact.manifest.all_notes
    assert ("group_stages", "program", "37 ops in 10 stages") in notes
    assert ("roll_layers", "stage 1", "2 iterations of 4 stages") in notes
    assert {"copy_rows", "pack_weights", "plan_memory"} <= {name for name, _, _ in notes}


def test_a_reference_model_is_not_saved(tmp_path: Path) -> None:
    model = mmf.compile(tiny_lm(), "reference")
    with pytest.raises(TargetError, match="cannot be saved"):
        model.save(tmp_path / "model.mmfree")


def test_states_belong_to_their_model() -> None:
    one, other = (mmf.compile(tiny_lm(seed=seed), TARGET) for seed in (0, 1))
    _, state = one([[1, 2]])
    with pytest.raises(StateError):
        other([[3]], state)
    with pytest.raises(StateError):
        one([[3], [4]], state)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"target": "gpu"}, TargetError),
        ({"target": "cpu:z80"}, TargetError),
        ({"target": "cpu:"}, TargetError),
        ({"target": None}, TargetError),
        ({"target": 3}, TargetError),
        ({"fallback": "maybe"}, InputError),
        ({"threads": 0}, InputError),
        ({"threads": -3}, InputError),
    ],
)
def test_bad_arguments(arguments: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error):
        mmf.compile(tiny_lm(), **arguments)  # type: ignore[call-overload]  # on purpose


def test_a_module_needs_example_inputs() -> None:
    with pytest.raises(InputError, match="example_inputs"):
        mmf.compile(nn.Sequential(BitLinear(4, 4)))
    wrong: Any
    for wrong, cause in (
        (torch.ones(2, 4), "is a Tensor, not a tuple of tensors"),
        ((1,), "item 0 is of type int, not a tensor"),
        ((torch.ones(2, 4), [1.0]), "item 1 is of type list, not a tensor"),
    ):
        with pytest.raises(InputError, match=cause):
            mmf.compile(BitLinear(4, 4), example_inputs=wrong)


@pytest.mark.parametrize("model", [3, None, object()])
def test_what_is_no_model(model: object) -> None:
    with pytest.raises(InputError):
        mmf.compile(model)  # type: ignore[call-overload]  # on purpose


W = torch.arange(20.0)


class Graph(nn.Module):
    """A function as a module."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


@pytest.mark.parametrize(
    "function",
    [
        lambda _: {},
        lambda _: W * 2,
        lambda x: mm.silu(x).reshape(-1, 20),
        lambda x: mm.quantize(x, 1e-5)[0],
        lambda x: mm.mul(x, mm.quantize(x, 1e-5)[1]),
        lambda x: mm.mlgru_scan(x, x, W[None]),
        lambda x: mm.mlgru_scan(x.reshape(1, -1, 20), x.reshape(1, -1, 20)).reshape(x.shape),
    ],
)
def test_what_rows_cannot_say_is_refused(function: Any) -> None:
    """Nothing is computed wrongly or crashes: each is an error of the project's tree."""
    with pytest.raises(UnsupportedError):
        compiled(Graph(function), rows(2, 3, 20))


class Names(nn.Module):
    """Inputs named as a buffer, as the copy of an output, and as kernels' arguments are.

    And a buffer named as the copy of the third output would be.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("w", torch.full((20,), 3.0))
        self.output0 = nn.Module()
        self.output0.register_buffer("output2", torch.zeros(20))

    def forward(self, w: Tensor, output0: Tensor, state: Tensor, weights: Tensor) -> list[Tensor]:
        return [w, mm.add(w, self.w), output0, mm.add(mm.add(state, weights), self.output0.output2)]


@torch.no_grad()
def test_names_do_not_matter() -> None:
    inputs = [rows(2, 3, 20, seed=seed) for seed in range(4)]
    for found, expected in zip(compiled(Names(), *inputs)(*inputs), Names()(*inputs), strict=True):
        assert torch.equal(found, expected)


@torch.no_grad()
def test_the_eager_fallback_embeds_in_torch() -> None:
    table = rows(20, 16)
    module = Graph(lambda ids: mm.silu(torch.erf(mm.embedding(ids, table))))
    ids = torch.tensor([[1, 2, 3]])
    model = mmf.compile(module, TARGET, example_inputs=(ids,), fallback="eager")
    torch.testing.assert_close(model(ids), module(ids))


def test_the_keywords_of_compile_are_its_options() -> None:
    assert Keywords.__annotations__.keys() == {field.name for field in fields(Options)}


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_compiling_under_autocast(dtype: torch.dtype) -> None:
    """A compiled model computes in float32, whatever the program around it chooses."""
    module, x = BitLinear(24, 40), rows(2, 24)
    with torch.autocast("cpu", dtype):
        found = compiled(module, x, target="reference")(x)
    assert_close(found, module(x))
