"""Ctrl-C while code is generated."""

from __future__ import annotations

import signal

import pytest
import torch
import tvm

import mmfree_compiler as mmf
from mmfree_compiler.models import BitLinear


@pytest.mark.usefixtures("cold")
def test_ctrl_c_inside_tvm_stays_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = tvm.compile

    def interrupted(*args: object, **options: object) -> object:
        signal.raise_signal(signal.SIGINT)
        compiled.append(plain(*args, **options))
        return compiled[0]

    compiled: list[object] = []
    monkeypatch.setattr(tvm, "compile", interrupted)
    with pytest.raises(KeyboardInterrupt):
        mmf.compile(BitLinear(16, 16), "cpu:portable", example_inputs=(torch.ones(2, 16),))
    assert len(compiled) == 1  # it was let end, and nothing followed
