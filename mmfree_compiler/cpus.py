"""How many CPUs a process may use, by its affinity and its cgroup's quota."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def available_cpus(root: Path = Path("/")) -> int:
    """CPUs that this process may use, at least 1; `root` is where proc and sys are mounted.

    A fractional quota is rounded down: the kernels' threads wait for each other at every barrier,
    so one thread that the scheduler throttles stalls all of them.
    """
    has_affinity = hasattr(os, "sched_getaffinity")
    cpus = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    return max(1, math.floor(min([cpus, *_quotas(root)])))


def _quotas(root: Path) -> Iterator[float]:
    """CPU quotas of the process's cgroup and its ancestors, v1 and v2 (man 7 cgroups)."""
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
    """The quota that `folder` sets, if any: CPU time over period, both in microseconds."""
    with suppress(OSError, ValueError, ZeroDivisionError):  # absent, or "max"
        quota, period = (folder / "cpu.max").read_text().split()
        yield int(quota) / int(period)
    with suppress(OSError, ValueError, ZeroDivisionError):
        quota = (folder / "cpu.cfs_quota_us").read_text()
        period = (folder / "cpu.cfs_period_us").read_text()
        if int(quota) > 0:  # -1 means no quota
            yield int(quota) / int(period)
