"""Programmatic dependent launch: a kernel starts before the one in front of it has ended.

See the CUDA C++ Programming Guide. Gluon kernels call these functions too.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def wait(DEPENDENT: tl.constexpr) -> None:
    """Wait until the kernel before has ended, and then let the next one start.

    Only what no kernel of the call writes is read before this: see early.py. Kernels that let
    others start before they wait themselves would fill the GPU with waiting programs, and crowd
    those that run on few multiprocessors.
    Without DEPENDENT a kernel starts when the one before has ended.
    """
    if DEPENDENT:
        _instruct("griddepcontrol.wait; // $0")
        _instruct("griddepcontrol.launch_dependents; // $0")


@triton.jit
def _instruct(PTX: tl.constexpr) -> None:
    tl.inline_asm_elementwise(PTX, "=r", [], dtype=tl.int32, is_pure=False, pack=1)
