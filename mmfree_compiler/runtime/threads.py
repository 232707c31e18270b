"""How many threads a process may use: its CPU affinity and its cgroup's quota."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from numbers import Integral
from pathlib import Path

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
        raise InputError("threads", cause, "Leave it out for all")
    return threads


def available_cpus(root: Path = Path("/")) -> int:
    """CPUs that this process may use, at least 1; `root` is where proc and sys are mounted.

    A fractional quota is rounded down: the kernels' threads wait for each other at every barrier,
    so one thread that the scheduler throttles stalls all.
    """
    has_affinity = hasattr(os, "sched_getaffinity")
    cpus = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    return max(1, math.floor(min([cpus, *_quotas(root)])))


def _quotas(root: Path) -> Iterator[float]:
    """CPU quotas of the process's cgroup and of those around it, v1 and v2 (man 7 cgroups)."""
    lines: list[str] = []
    with suppress(OSError):
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    for line in lines:
        if line.count(":") < 2:
            continue
        _, controllers, group = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mounted = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
        path = mounted / group.lstrip("/")
        for folder in (path, *path.parents):
            if folder.is_relative_to(mounted):
                yield from _quota(folder)


def _quota(folder: Path) -> Iterator[float]:
    """The quota that `folder` sets, if any: microseconds of CPU time over microseconds."""
    with suppress(OSError, ValueError, ZeroDivisionError):  # absent, or "max"
        quota, period = (folder / "cpu.max").read_text().split()
        yield int(quota) / int(period)
    with suppress(OSError, ValueError, ZeroDivisionError):
        quota = (folder / "cpu.cfs_quota_us").read_text()
        period = (folder / "cpu.cfs_period_us").read_text()
        if int(quota) > 0:  # -1 is none
            yield int(quota) / int(period)
