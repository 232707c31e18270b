"""Options of a launcher that are wrong, whatever this machine has."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from mmfree_compiler.artifact import Artifact
from mmfree_compiler.backends.cuda import spec
from mmfree_compiler.backends.cuda.run.launcher import CudaLauncher
from mmfree_compiler.errors import InputError, TargetError


def test_without_cuda_bindings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("mmfree_compiler.backends.cuda.run.device", raising=False)
    monkeypatch.setitem(sys.modules, "mmfree_compiler.backends.cuda.run.device", None)
    for call in (spec.here, lambda: CudaLauncher.open(Artifact.__new__(Artifact))):
        with pytest.raises(TargetError, match=r"pip install 'mmfree-compiler\[cuda-runtime\]'"):
            call()


@pytest.mark.parametrize("device", ["0", 1.0, True, [0], -1])
def test_a_device_that_is_not_a_number(device: Any) -> None:
    artifact = Artifact.__new__(Artifact)  # it is not read before the options
    with pytest.raises(InputError, match="not the number of a GPU"):
        CudaLauncher.open(artifact, device=device)
