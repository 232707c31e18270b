"""Copies to shared memory that run on their own, by names that Triton 3.6 and 3.9 do not share."""

from __future__ import annotations

from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import async_copy

_shared = gl.shared_memory_descriptor
# Copies pointers' elements to shared memory.
load = getattr(async_copy, "async_load", None) or async_copy.async_copy_global_to_shared
# Waits for all warps.
barrier = getattr(gl, "barrier", None) or gl.thread_barrier
# The same shared memory with another shape and layout.
viewed = getattr(_shared, "reinterpret", None) or _shared._reinterpret
