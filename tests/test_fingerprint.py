"""The fingerprint of a model: the same for every target, and different for every other model."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from op_modules import SmallLM, mm
from torch import Tensor, nn

import mmfree_compiler as mmf
from mmfree_compiler.compiled_model import CompiledModel
from mmfree_compiler.elementary import ARITHMETIC
from mmfree_compiler.models import GLU, MatMulFreeLM, ModelConfig
from mmfree_compiler.models.initial import initialize

TARGETS = ("cpu:portable,density=1.6", "cpu:x86-64-v3", "reference")


def model(seed: int = 0, **changes: object) -> MatMulFreeLM:
    made = MatMulFreeLM(ModelConfig.of(32, 2, 20).model_copy(update=changes)).eval()
    initialize(made, seed)
    return made


def fingerprint(module: nn.Module, target: str = "reference", *inputs: Tensor) -> str:
    compiled: CompiledModel = mmf.compile(module, target, example_inputs=inputs, check=False)
    return compiled.artifact.manifest.fingerprint


@cache
def compiled(target: str) -> CompiledModel:
    return mmf.compile(model(), target, check=False)


@cache
def ours() -> str:
    return fingerprint(model())


def test_a_model_has_one_whatever_the_target() -> None:
    found = {compiled(target).artifact.manifest.fingerprint for target in TARGETS}
    assert found == {ours()}
    assert len(ours()) == 64


def test_states_travel_between_targets() -> None:
    sessions = [compiled(target).session for target in TARGETS]
    expected = sessions[0]([[1, 2, 3, 4]])[0][:, -1]
    for one in sessions:
        _, state = one([[1, 2, 3]])
        for other in sessions:
            logits, _ = other([[4]], state)
            assert np.array_equal(logits[:, -1], expected)


def changed_weight() -> MatMulFreeLM:
    """One code of one weight."""
    other = model()
    with torch.no_grad():
        head = other.lm_head.weight
        head[0, 0] = -head[0, 0].sign() * 10 * head.abs().max()
    return other


def changed_gain() -> MatMulFreeLM:
    """The last bit of one number."""
    other = model()
    with torch.no_grad():
        gain = other.model.norm.weight
        gain[3] = torch.nextafter(gain[3], torch.tensor(torch.inf))
    return other


OTHERS: dict[str, Callable[[], nn.Module]] = {
    "weights": lambda: model(seed=1),
    "one weight": changed_weight,
    "one number": changed_gain,
    "eps": lambda: model(rms_norm_eps=1e-5),
    "layers": lambda: model(num_hidden_layers=3),
    "widths": lambda: model(hidden_size=48),
    "vocabulary": lambda: model(vocab_size=21),
    "convolutions": lambda: model(use_short_conv=True),
    "lower bounds": lambda: model(use_lower_bound=False),
}


def test_another_arithmetic_is_another_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its states would not be continued with the same bits."""
    before = ours()
    monkeypatch.setattr("mmfree_compiler.fingerprint.ARITHMETIC", ARITHMETIC + 1)
    assert fingerprint(model()) != before


@pytest.mark.parametrize("what", OTHERS)
def test_another_model_has_another(what: str) -> None:
    assert fingerprint(OTHERS[what]()) != ours()


class Order(nn.Module):
    """Two layers of the same weights, one after the other."""

    def __init__(self, first: str) -> None:
        super().__init__()
        self.first = first

    def forward(self, x: Tensor) -> Tensor:
        tanh, silu = mm.tanh, mm.silu
        out: Tensor = tanh(silu(x)) if self.first == "silu" else silu(tanh(x))
        return out


def test_the_order_of_ops_counts() -> None:
    x = torch.zeros(2, 3, 16)
    assert fingerprint(Order("silu"), "reference", x) != fingerprint(Order("tanh"), "reference", x)


class Called(nn.Module):
    """Two norms of the same width, whose weights are called `names`."""

    def __init__(self, *names: str, eps: float = 1e-5) -> None:
        super().__init__()
        self.names = names
        self.eps = eps
        for name in names:
            setattr(self, name, nn.Parameter(torch.ones(16)))

    def forward(self, x: Tensor) -> Tensor:
        for name in (self.names[0], self.names[-1]):
            x = mm.rms_norm(x, getattr(self, name), self.eps)
        return x


def test_names_do_not_count() -> None:
    """Nor whether equal constants are one, nor digits of a number that fp32 does not have."""
    x = torch.zeros(2, 3, 16)
    first = fingerprint(Called("one", "two"), "reference", x)
    in_fp32 = torch.tensor(1e-5).item()
    for same in (Called("b", "a"), Called("a"), Called("a", eps=in_fp32)):
        assert fingerprint(same, "reference", x) == first
    other = Called("one", "two")
    other.get_parameter("two").data[0] = 2
    assert fingerprint(other, "reference", x) != first


def test_it_does_not_depend_on_the_process() -> None:
    """States are saved in one and loaded in another, whose hashes of strings are others."""
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_fingerprint import fingerprint, model\n"
        "print(fingerprint(model()))"
    )
    command = [sys.executable, "-c", code]
    environment = os.environ | {"PYTHONHASHSEED": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == ours()


def test_it_does_not_depend_on_the_example_inputs() -> None:
    ids = torch.zeros(2, 3, dtype=torch.int64)
    longer = torch.zeros(4, 9, dtype=torch.int64)
    found = {fingerprint(SmallLM(), "reference", x) for x in (ids, longer)}
    assert found == {fingerprint(SmallLM(), "cpu:portable", ids)}


def test_modules_have_one_too() -> None:
    torch.manual_seed(0)
    module, x = GLU(16, 24), torch.zeros(2, 16)
    first = fingerprint(module, "reference", x)
    assert first == fingerprint(module, "cpu:portable", x)
    assert first != fingerprint(GLU(16, 24), "reference", x)
