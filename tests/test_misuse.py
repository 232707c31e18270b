"""Calls that are plainly wrong: the error says what was passed and what to pass instead."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import mmfree_compiler as mmf
from mmfree_compiler.compiled_model import CompiledModel
from mmfree_compiler.errors import ArtifactError, InputError, StateError
from mmfree_compiler.runtime import State, load


def compiled(**options: Any) -> Any:
    return mmf.compile(nn.ReLU(), "cpu:portable", example_inputs=(torch.ones(2, 16),), **options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"thread": 2}, TypeError, r"^compile\(\) got an unexpected keyword argument 'thread'"),
        ({"threads": True}, InputError, "threads: True is not a whole number"),
        ({"observers": None}, InputError, "observers: are None"),
        ({"observers": [3]}, InputError, "observer 3: is not a function"),
    ],
)
def test_options_of_compile(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        compiled(**options)


def test_options_of_explain() -> None:
    """Those of `compile` that choose what is made of a model are not among them."""
    with pytest.raises(
        TypeError, match=r"^explain\(\) got an unexpected keyword argument 'fallback'"
    ):
        mmf.explain(nn.ReLU(), fallback="eager")  # type: ignore[call-arg]  # wrong on purpose


# What torch runs and no target does -> what is said of it.
EXAMPLES = {
    "example input 0: is a tensor without dimensions. Pass (..., width)": torch.tensor(1.0),
    "example input 0: is empty, of shape (0,). Pass at least one row": torch.ones(0),
    "example input 0: is empty, of shape (0, 16). Pass at least one row": torch.ones(0, 16),
    "example input 0: is torch.float64. Pass float32": torch.ones(2, 16).double(),
    "example input 0: is torch.bfloat16. Pass float32": torch.ones(2, 16).bfloat16(),
    "example input 0: is torch.float16. Pass float32": torch.ones(2, 16).half(),
    "example input 0: is torch.int32. Pass float32, or int64 for token ids": -torch.ones(2).int(),
    "example input 0: is torch.complex64. Pass float32, or int64 for token ids": (
        torch.ones(2, 16, dtype=torch.complex64)
    ),
}


@pytest.mark.filterwarnings("ignore:Identity runs in torch", "ignore:Casting complex values")
@pytest.mark.parametrize("message", EXAMPLES)
def test_example_inputs(message: str) -> None:
    x = EXAMPLES[message]
    with pytest.raises(InputError) as caught:
        mmf.compile(nn.Identity(), "reference", example_inputs=(x,))
    assert str(caught.value) == message
    model = mmf.compile(nn.Identity(), "reference", example_inputs=(x,), fallback="eager")
    assert torch.equal(model(x), x)


def test_numbers_that_are_flags(tiny_artifact: Path) -> None:
    with pytest.raises(InputError, match="threads: True is not a whole number"):
        load(tiny_artifact, threads=True)
    with pytest.raises(InputError, match="batch: True is not a whole number"):
        load(tiny_artifact).zero_state(True)


@pytest.mark.parametrize("others", [[None], [3], ["state"]])
def test_stacking_what_are_no_states(tiny_artifact: Path, others: list[Any]) -> None:
    state = load(tiny_artifact).zero_state()
    with pytest.raises(StateError, match=r"state 1: is of type .*Stack states only"):
        State.stack([state, *others])


def test_one_kind_of_file_for_another(
    tiny_artifact: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    path = tmp_path / "a.state"
    load(tiny_artifact).prefill([1]).save(path)
    wrong: list[tuple[Callable[[], Any], type[Exception], str]] = [
        (lambda: load(path), ArtifactError, "is a saved state, not a model.*State.load reads"),
        (lambda: State.load(tiny_artifact), StateError, "is a compiled model, not a state. load"),
        (lambda: load(tiny_checkpoint), ArtifactError, "is a checkpoint folder.*mmfree compile"),
        (
            lambda: load(tiny_checkpoint / "model.safetensors"),
            ArtifactError,
            "holds weights of a checkpoint",
        ),
        (lambda: load(tmp_path), ArtifactError, "is not a regular file"),
    ]
    for call, error, message in wrong:
        with pytest.raises(error, match=message):
            call()


@pytest.mark.parametrize("path", [None, 5, b"model.mmfree"])
def test_what_is_no_path(tiny_artifact: Path, path: Any) -> None:
    session = load(tiny_artifact)
    model = CompiledModel(session.artifact)
    for call in (load, State.load, session.zero_state().save, session.artifact.save, model.save):
        with pytest.raises(InputError, match=f"^path {path!r}: is not a path. Pass a string"):
            call(path)


def test_compiling_without_the_packages_for_it() -> None:
    """As in the base install, where torch is missing."""
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import mmfree_compiler as mmf; assert mmf.load\n"
        "for name in ('compile', 'CompiledModel', 'models'):\n"
        "    try: getattr(mmf, name)\n"
        "    except mmf.MmfreeError as error: print(error)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = found.stdout.splitlines()
    assert len(lines) == 3
    assert all("needs torch, which is not installed. pip install" in line for line in lines)
