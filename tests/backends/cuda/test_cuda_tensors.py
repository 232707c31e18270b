"""Sessions that are called with torch's CUDA tensors, on a GPU: the bits of the host's tensors."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import torch
from gpu_models import compiled, needs_gpu, tokens
from torch import Tensor

import mmfree_compiler as mmf
from mmfree_compiler.errors import InputError, TargetError
from mmfree_compiler.runtime import Session, State

pytestmark = [needs_gpu, pytest.mark.gpu, pytest.mark.slow]
cuda: Any = torch.cuda  # parts of it have no types
BUSY = 10**8  # cycles: a good part of a second


@pytest.fixture
def session() -> Session:
    return compiled().session


def assert_same(found: tuple[Tensor, State], expected: tuple[Tensor, State]) -> None:
    assert found[0].is_cuda
    assert torch.equal(found[0].cpu(), expected[0])
    for name, part in expected[1].export().items():
        assert (found[1].part(name) == part).all()


@pytest.mark.parametrize(("batch", "length"), [(1, 1), (1, 600), (7, 5), (300, 3)])
def test_tokens(session: Session, batch: int, length: int) -> None:
    ids = tokens(batch, length)
    expected, there = session(ids)
    found, state = session(ids.cuda())
    assert_same((found, state), (expected, there))
    again = ids[:, :1].expand(batch, 2)
    assert_same(session(again.cuda(), state), session(again, there))


@pytest.mark.parametrize("form", [Tensor.int, lambda x: x.t().contiguous().t(), lambda x: x])
def test_dtypes_and_strides(session: Session, form: object) -> None:
    assert callable(form)
    ids = tokens(3, 8)[:, ::2]
    assert_same(session(form(ids.cuda())), session(ids))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_left_padding(session: Session, device: str) -> None:
    ids, mask = tokens(3, 6), torch.ones(3, 6, dtype=torch.int64)
    mask[1, :4] = mask[2, :1] = 0
    assert_same(session(ids.cuda(), mask=mask.to(device)), session(ids, mask=mask))


def test_work_waits_for_other_streams_and_they_for_it(session: Session) -> None:
    """What the tokens are made by runs late, and so does what reads the logits."""
    ids = tokens(4, 9)
    expected, _ = session(ids)
    made, zero = ids.cuda(), torch.zeros_like(ids, device="cuda")
    cuda.synchronize()
    for stream in (cuda.Stream(), cuda.Stream(), cuda.default_stream()):
        with cuda.stream(stream):
            late = zero.clone()
            cuda._sleep(BUSY)
            late.copy_(made)
            logits, _ = session(late)
            late.zero_()
            doubled = logits * 2
        stream.synchronize()
        assert torch.equal(doubled.cpu(), expected * 2)


def test_memory_that_torch_uses_again(session: Session) -> None:
    ids = tokens(4, 64)
    expected, _ = session(ids)
    for _ in range(20):
        logits, _ = session(ids.cuda())
        total = logits.double().sum()
        del logits  # the next call may get its memory
        logits, _ = session(ids.cuda())
        torch.full_like(logits, torch.nan)
        assert torch.equal(logits.cpu(), expected)
        assert total.isfinite()


def test_ids_out_of_range(session: Session) -> None:
    with pytest.raises(InputError, match=r"id -1 at \(0, 1\) is outside"):
        session(torch.tensor([[1, -1]], device="cuda"))


def test_a_session_is_not_captured(session: Session) -> None:
    ids = tokens(1, 1).cuda()
    with (
        suppress(RuntimeError),  # torch's, of the capture that failed
        cuda.graph(cuda.CUDAGraph()),
        pytest.raises(TargetError, match="cannot run while a CUDA graph is captured"),
    ):
        session(ids)
    assert session(ids)[0].isfinite().all()


@pytest.mark.skipif(cuda.device_count() < 2, reason="needs two GPUs")
def test_another_gpu() -> None:
    ids = tokens(2, 3)
    session = Session(compiled().artifact, device=1)
    assert cuda.current_device() == 0
    found, state = session(ids.to("cuda:1"))
    assert found.device == torch.device("cuda:1")
    assert_same((found, state), compiled().session(ids))
    with pytest.raises(InputError, match="is on device 0, the model on device 1"):
        session(ids.to("cuda:0"))


def test_a_module() -> None:
    x = torch.randn(3, 5, 64, generator=torch.Generator().manual_seed(1))
    layer = mmf.compile(mmf.models.BitLinear(64, 48), "cuda", example_inputs=(x,))
    found = layer(x.cuda())
    assert found.is_cuda
    assert torch.equal(found.cpu(), layer(x))
    with pytest.raises(InputError, match="has shape"):
        layer(x.cuda()[..., :3])
