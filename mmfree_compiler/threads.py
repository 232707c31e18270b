"""Choosing the number of threads."""

from __future__ import annotations

from numbers import Integral

from mmfree_compiler.cpus import available_cpus
from mmfree_compiler.errors import InputError

MAX_THREADS = 256  # the limit of a thread pool


def resolve_threads(threads: int | None) -> int:
    """`threads`, or the number of CPUs that the process may use if None.

    Raises InputError unless it is a whole number from 1 to MAX_THREADS.
    """
    if threads is None:
        return min(available_cpus(), MAX_THREADS)
    whole = isinstance(threads, Integral) and not isinstance(threads, bool)
    if not whole or not 1 <= threads <= MAX_THREADS:
        cause = f"{threads!r} is not a whole number from 1 to {MAX_THREADS}"
        raise InputError("threads", cause, "Leave it out to use all CPUs")
    return int(threads)
