"""How many threads a session runs on."""

from __future__ import annotations

from numbers import Integral

from mmfree_compiler.cpus import available_cpus
from mmfree_compiler.errors import InputError

MAX_THREADS = 256  # what the pool of a compiled library holds (backends/cpu/threads.c)


def resolve_threads(threads: int | None) -> int:
    """`threads`, or as many as the process has CPUs when None. Raises InputError.

    Numbers from 1 to MAX_THREADS are taken.
    """
    if threads is None:
        return min(available_cpus(), MAX_THREADS)
    if not isinstance(threads, Integral) or not 1 <= threads <= MAX_THREADS:
        cause = f"{threads!r} is no whole number from 1 to {MAX_THREADS}"
        raise InputError("threads", cause, "Leave it out for all CPUs")
    return int(threads)
