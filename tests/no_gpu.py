"""The CUDA target on a machine without a GPU, and without the time that Triton takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from mmfree_compiler.artifact import binding
from mmfree_compiler.backends.cuda.compile import compiler
from mmfree_compiler.backends.cuda.compile.kernel import Source
from mmfree_compiler.backends.cuda.facts import Kernel
from mmfree_compiler.backends.cuda.run import launcher
from mmfree_compiler.errors import TargetError


def no_code(sources: Sequence[Source], archs: Sequence[str]) -> dict[str, Any]:
    """In place of Triton: kernels without code, which nothing here runs."""
    note = binding.NOTE + bytes(binding.SIZE)
    places = {
        source.name: Kernel(
            symbol=source.name,
            offset=0,
            size=1,
            warps=1,
            shared=0,
            dependent=False,
            parameters=list(source.parameters),
        )
        for source in sources
    }
    return {arch: (note + arch.encode(), places) for arch in archs}


@contextmanager
def without_code() -> Iterator[None]:
    """A block in which nothing is compiled for GPUs, and no GPU is found."""

    def none() -> None:
        raise TargetError("this machine", "has no GPU", "Buy one")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(compiler, "compiled", no_code)
        patched.setattr(launcher, "device_module", none)
        yield


@pytest.fixture(scope="module", autouse=True)
def without_a_gpu() -> Iterator[None]:
    """For the tests of the file that imports this."""
    with without_code():
        yield
