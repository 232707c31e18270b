"""The working memory of kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from mmfree_compiler.artifact import aligned_empty
from mmfree_compiler.backends.cpu.facts import MemoryPlan
from mmfree_compiler.errors import ArtifactError


def arenas(plan: MemoryPlan, threads: int) -> list[NDArray[Any]]:
    """The planned arenas: shared, private, codes, scratch. Raises ArtifactError."""
    rows = max(plan.chunk, threads)
    sizes = (
        (plan.shared * plan.chunk, np.float32),
        (plan.private * rows, np.float32),
        (plan.codes * rows, np.int8),
        (plan.scratch * threads, np.uint8),
    )
    return [reserve(size, dtype) for size, dtype in sizes]


def reserve(shape: int | tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Uninitialized memory, which becomes resident on use. Raises ArtifactError if too large."""
    try:
        return aligned_empty(shape, dtype)
    except (MemoryError, ValueError) as error:  # ValueError: beyond the address space
        cause = f"needs too much memory: {error}"
        raise ArtifactError("memory plan", cause, "Get or compile the file again") from error
