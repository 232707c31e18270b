"""Compiled modules of torch on a GPU: the bits of a session, compiled and captured too."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from gpu_models import compiled, needs_gpu, tokens
from torch import Tensor

import mmfree_compiler as mmf
from mmfree_compiler.errors import InputError
from mmfree_compiler.in_torch import CompiledModule, compiled_module

pytestmark = [needs_gpu, pytest.mark.gpu, pytest.mark.slow]
cuda: Any = torch.cuda  # parts of it have no types
BUSY = 10**8  # cycles: a good part of a second


@pytest.fixture(scope="module")
def module() -> CompiledModule:
    return compiled_module(compiled().artifact)


def session_steps(ids: Tensor, lengths: list[int]) -> list[Tensor]:
    """Logits of pieces of these lengths, one after another."""
    logits, state = [], None
    for piece in torch.split(ids, lengths, 1):
        made, state = compiled()(piece, state)
        logits.append(made)
    return logits


def assert_steps(run: Any, batch: int, lengths: list[int]) -> None:
    ids = tokens(batch, sum(lengths))
    state = None
    pieces = torch.split(ids.cuda(), lengths, 1)
    for piece, expected in zip(pieces, session_steps(ids, lengths), strict=True):
        logits, state = run(piece, state)
        logits = logits.clone()  # of torch.compile's graphs, which overwrite them
        state = state.clone()
        assert torch.equal(logits.cpu(), expected)


@pytest.mark.parametrize(
    ("batch", "lengths"), [(1, [600, 1, 1]), (7, [33, 1, 5]), (300, [3, 1]), (3, [8, 8])]
)
def test_steps(module: CompiledModule, batch: int, lengths: list[int]) -> None:
    assert_steps(module, batch, lengths)


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_torch_compile(module: CompiledModule, mode: str) -> None:
    run = torch.compile(module, mode=mode, fullgraph=True, dynamic=False)
    assert_steps(run, 2, [5, 1, 1, 1, 1, 1])
    assert_steps(run, 2, [5, 1, 1, 1, 1, 1])


def test_captured_steps(module: CompiledModule) -> None:
    """A graph of one step that feeds its state back to itself."""
    ids = tokens(4, 12)
    first, *rest = session_steps(ids, [6, *[1] * 6])
    there = ids.cuda()
    static, state = there[:, 6:7].clone(), module.zeros(4)
    module(static, state)  # before the capture
    graph = cuda.CUDAGraph()
    with cuda.graph(graph):
        logits, after = module(static, state)
        state.copy_(after)
    prompt, begun = module(there[:, :6])
    assert torch.equal(prompt.cpu(), first)
    state.copy_(begun)
    for step, expected in enumerate(rest):
        static.copy_(there[:, 6 + step : 7 + step])
        logits.fill_(torch.nan)
        graph.replay()
        assert torch.equal(logits.cpu(), expected)


def test_a_capture_of_sizes_that_never_ran() -> None:
    fresh = compiled_module(compiled().artifact)
    ids = tokens(2, 3).cuda()
    graph = cuda.CUDAGraph()
    with cuda.graph(graph):
        kept = ids + 1
        with pytest.raises(InputError, match="has not run 2 x 3 tokens before this capture"):
            fresh(ids)
    graph.replay()
    assert torch.equal(kept, ids + 1)


def test_two_streams(module: CompiledModule) -> None:
    ids = tokens(4, 9)
    (expected,) = session_steps(ids, [9])
    made, late = ids.cuda(), torch.zeros_like(ids, device="cuda")
    module(made)
    cuda.synchronize()
    streams = [cuda.Stream(), cuda.Stream()]
    found = []
    for stream in streams:
        with cuda.stream(stream):
            cuda._sleep(BUSY)
            found.append(module(late.clone().copy_(made))[0] * 2)
    cuda.synchronize()
    assert all(torch.equal(x.cpu(), expected * 2) for x in found)


def test_ids_out_of_range_are_nan(module: CompiledModule) -> None:
    ids = torch.tensor([[1, -(1 << 40)], [1, 1 << 40], [1, 2]], device="cuda")
    logits, _ = module(ids)
    assert logits.isnan().all(2).tolist() == [[False, True], [False, True], [False, False]]


def test_memory_is_seen_and_moves_are_refused(module: CompiledModule) -> None:
    assert module.weights.is_cuda
    assert module.weights.nbytes > compiled().session.launcher.weight_bytes
    assert copy.deepcopy(module).weights.data_ptr() != module.weights.data_ptr()
    with pytest.raises(InputError, match="stays on cuda:0"):
        module.to("cpu")


def test_rows_of_a_module() -> None:
    x = torch.randn(3, 5, 64, generator=torch.Generator().manual_seed(1))
    layer = mmf.models.BitLinear(64, 48)
    expected = mmf.compile(layer, "cuda", example_inputs=(x,))(x)
    ours = mmf.compile(layer, "cuda", example_inputs=(x,), in_torch=True)
    found = ours(x.cuda().transpose(0, 1).contiguous().transpose(0, 1))
    assert torch.equal(found.cpu(), expected)
    assert torch.equal(torch.compile(ours, fullgraph=True)(x.cuda()).cpu(), expected)
