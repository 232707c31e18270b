"""The kernel of recurrence.py; importing it needs Triton."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def scan(
    c: tl.tensor,
    forget: tl.tensor,
    h0: tl.tensor,
    h: tl.tensor,
    length: tl.tensor,
    WIDTH: tl.constexpr,
    CHANNELS: tl.constexpr,
    STAGES: tl.constexpr,
    UNROLLED: tl.constexpr,
) -> None:
    """CHANNELS channels of one sequence."""
    channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    last = tl.load(h0 + tl.program_id(1) * WIDTH + channel).to(tl.float32)
    first = tl.program_id(1) * length * WIDTH + channel
    for t in tl.range(0, length, num_stages=STAGES, loop_unroll_factor=UNROLLED):
        at = first + t * WIDTH
        last = tl.load(forget + at) * last + tl.load(c + at)
        tl.store(h + at, last)
