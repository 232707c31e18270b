"""The same work on many items: results in order, errors raised, torch's own threads kept."""

from __future__ import annotations

import threading

import pytest
import torch

from mmfree_compiler import parallel


def test_results_are_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two items meet at a barrier, so they run on two threads."""
    monkeypatch.setattr(parallel, "available_cpus", lambda: 2)
    meeting = threading.Barrier(2, timeout=60)

    def meet(item: int) -> tuple[int, int]:
        meeting.wait()
        return item, torch.get_num_threads()

    assert parallel.each(meet, range(6)) == [(item, 1) for item in range(6)]


def test_errors_are_raised_and_torch_keeps_its_threads() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with pytest.raises(ZeroDivisionError):
            parallel.each(lambda item: 1 // item, [1, 0])
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
