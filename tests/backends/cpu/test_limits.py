"""Limits of the process that compiling meets: an error in time, not the end of the process."""

from __future__ import annotations

import resource

import pytest

from mmfree_compiler.building import jobs
from mmfree_compiler.errors import ToolchainError


def test_a_limit_on_the_size_of_files() -> None:
    """LLVM, the linker and children would each end in their own way, some by SIGXFSZ."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(ToolchainError, match=r"1,048,576 bytes per file.*ulimit -f"):
            jobs._working().__enter__()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
