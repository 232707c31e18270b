"""Kernels write the rows of wanted outputs, and no others."""

from __future__ import annotations

import numpy as np
import torch
from op_modules import mm
from torch import Tensor, nn

import mmfree_compiler as mmf
from mmfree_compiler.artifact import aligned_empty
from mmfree_compiler.backends.cpu.run.launcher import CpuLauncher


class ScanLast(nn.Module):
    """A language model whose output is made beside its scan."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.randn(20, 20))

    def forward(self, ids: Tensor) -> Tensor:
        x = mm.embedding(ids, self.table)
        out: Tensor = mm.add(mm.mlgru_scan(mm.mul(x, x), mm.sigmoid(x)), x)
        return out


def test_outputs_beside_a_scan_stay_in_their_rows() -> None:
    """Tokens that no output is wanted of write none: they would land before the buffer."""
    ids = torch.randint(0, 20, (1, 60), generator=torch.Generator().manual_seed(0))
    model = mmf.compile(ScanLast(), "cpu:x86-64-v3", example_inputs=(ids,))
    expected, _ = model(ids)
    launcher = model.session.launcher
    assert isinstance(launcher, CpuLauncher)
    guarded = aligned_empty((62, 32), np.float32)
    guarded[:] = -7
    slots, state = np.zeros(60, np.int32), launcher.states(1).array
    launcher._call([ids[0].numpy()], slots, state, 59, [guarded[60:61]])
    assert (guarded[:60] == -7).all()
    assert np.array_equal(guarded[60, :20], expected[0, 59].numpy())
