"""Compiled modules of torch: interpreted on torch's CPU, and what cannot be one."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from op_modules import TinyLM
from triton_process import interpreted

import mmfree_compiler as mmf
from mmfree_compiler.backends.cuda import CudaBackend
from mmfree_compiler.errors import InputError, TargetError
from mmfree_compiler.in_torch import compiled_module
from mmfree_compiler.in_torch.op import Runnable


@pytest.mark.parametrize("name", ["language_model", "rows", "traced"])
def test_what_differs_from_a_session(name: str) -> None:
    assert interpreted(f"torch_models.{name}") == []


def test_ids_outside_of_the_table_make_their_sequences_nan() -> None:
    found = [[False, True, True], [False, False, True], [False, False, False]]
    assert interpreted("torch_models.outside") == found


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_saved_copy_runs_no_model_of_another_process(tmp_path: Path) -> None:
    assert interpreted("torch_models.saved", tmp_path) == []
    kernels, cpu = Mock(), torch.device("cpu")
    others = [Runnable(kernels, (), (), cpu, 0) for _ in range(99)]
    copies: list[Any] = [torch.jit.load(tmp_path / "traced")]  # type: ignore[no-untyped-call]
    copies.append(torch.export.load(tmp_path / "exported.pt2").module())
    for run in copies:  # torch's own error, of a traced copy, ends with ours
        with pytest.raises((InputError, RuntimeError), match="a compiled module: is gone"):
            run(torch.tensor([[1, 2, 3]]))
    assert len({other.key for other in others}) == len(others)
    kernels.launch.assert_not_called()


def test_kernels_never_leave_the_memory_of_tensors() -> None:
    said = interpreted("torch_models.other_sizes")
    assert {line.partition(".")[0] for line in said} == {
        "a compiled module: was called with tensors of other sizes, dtypes or devices than its own"
    }
    assert len(said) == 8


def test_copies_and_what_a_module_refuses() -> None:
    moved = "a compiled module: stays on cpu, in the numbers that it was compiled for. Convert its"
    starts = [
        *[moved] * 6,
        "tokens: is on meta. Pass a dense tensor on cpu",
        "tokens: has shape (3,). Pass ids (B, T)",
        "tokens: has shape (1, 0). Pass (...), at least one row",
        "tokens: is not a tensor. Pass a dense tensor on cpu",
        "state: is not of shape (1, 20), float32, dense, on cpu. Pass one that this module",
    ]
    said = interpreted("torch_models.copies")
    assert [line[: len(start)] for line, start in zip(said, starts, strict=True)] == starts


def test_tensors_that_no_kernel_reads() -> None:
    refused = ["float32", "bool", "complex64", "quint8"]
    tokens = [f"tokens: has dtype torch.{dtype}. Pass integers (int64)" for dtype in refused]
    rows = [f"y: has dtype torch.{dtype}. Pass float32" for dtype in refused[1:]]
    odd = "is sparse or nested. Pass a dense tensor on cpu"
    state = "state: is not of shape (1, 20), float32, dense, on cpu."
    state += " Pass one that this module returned, or zeros(batch)"
    assert interpreted("torch_models.refused_tensors") == [
        *tokens,
        *[f"tokens: {odd}"] * 2,
        *[state] * 5,
        *rows,
        *[f"y: {odd}"] * 2,
        "y: has shape (2, 16). Pass (..., 17), at least one row",
    ]


def test_numbers_of_sequences() -> None:
    wrong = ["-1", "0", str(2**40), "1.5", "True", "'x'", "None"]
    cause = "is not a whole number from 1 to 2,147,483,647. Choose the number of sequences"
    assert interpreted("torch_models.batches") == [f"batch: {given} {cause}" for given in wrong]


@pytest.mark.parametrize("wrong", [None, "x", Mock()])
def test_a_module_is_made_of_an_artifact(wrong: Any) -> None:
    with pytest.raises(InputError, match=r"artifact: is of type .*\. Pass that of a session"):
        compiled_module(wrong)


@pytest.mark.parametrize("wrong", ["yes", 1, None])
def test_in_torch_is_true_or_false(wrong: Any) -> None:
    with pytest.raises(InputError, match=f"in_torch: is {wrong!r}. Choose True or False"):
        mmf.compile("no such folder", "cuda", in_torch=wrong)


@pytest.mark.parametrize(
    ("target", "named"),
    [("reference", "reference"), ("cpu:portable", "cpu"), (("cpu", "reference"), "cpu or refer")],
)
def test_other_targets_do_not_run_in_torch(target: Any, named: str) -> None:
    with pytest.raises(TargetError, match=f"target {named}.*: does not run in torch's memory"):
        mmf.compile(TinyLM(), target, in_torch=True)


def test_a_module_needs_a_gpu_before_anything_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    def here(_: CudaBackend) -> Any:
        raise TargetError("this machine", "has no NVIDIA GPU")

    monkeypatch.setattr(CudaBackend, "here", here)
    with pytest.raises(TargetError, match="has no NVIDIA GPU"):
        mmf.compile("no such folder", "cuda", in_torch=True)


def test_a_module_has_no_fallback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CudaBackend, "here", lambda _: None)
    compile_model: Any = mmf.compile
    with pytest.raises(InputError, match="cannot be combined with a fallback"):
        compile_model(TinyLM(), "cuda", in_torch=True, fallback="eager")
