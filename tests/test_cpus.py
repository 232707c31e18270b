"""How many CPUs a process may use."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from mmfree_compiler.cpus import available_cpus
from mmfree_compiler.threads import resolve_threads


def test_threads_as_numpy_counts_them() -> None:
    assert type(resolve_threads(np.int64(2))) is int  # type: ignore[arg-type]  # not an int to mypy


@pytest.fixture
def eight_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


V2, V1 = "0::/a/b\n", "3:memory:/x\n2:cpu,cpuacct:/box\n"
CASES: dict[str, tuple[int, dict[str, str]]] = {
    "no cgroup": (8, {}),
    "no quota": (8, {"proc/self/cgroup": V2, "sys/fs/cgroup/a/b/cpu.max": "max 100000\n"}),
    "quota": (3, {"proc/self/cgroup": V2, "sys/fs/cgroup/a/b/cpu.max": "300000 100000\n"}),
    "fraction": (2, {"proc/self/cgroup": V2, "sys/fs/cgroup/a/b/cpu.max": "250000 100000\n"}),
    "below one": (1, {"proc/self/cgroup": V2, "sys/fs/cgroup/a/b/cpu.max": "50000 100000\n"}),
    "above all": (8, {"proc/self/cgroup": V2, "sys/fs/cgroup/a/b/cpu.max": "9900000 100000\n"}),
    "a parent's": (2, {"proc/self/cgroup": V2, "sys/fs/cgroup/cpu.max": "200000 100000\n"}),
    "not beside": (8, {"proc/self/cgroup": V2, "sys/fs/cgroup/c/cpu.max": "200000 100000\n"}),
    "damaged": (8, {"proc/self/cgroup": V2, "sys/fs/cgroup/a/b/cpu.max": "many 0\n"}),
    "odd lines": (8, {"proc/self/cgroup": "x\n\n"}),
    "v1": (
        4,
        {
            "proc/self/cgroup": V1,
            "sys/fs/cgroup/cpu/box/cpu.cfs_quota_us": "400000\n",
            "sys/fs/cgroup/cpu/box/cpu.cfs_period_us": "100000\n",
        },
    ),
    "v1 without": (
        8,
        {
            "proc/self/cgroup": V1,
            "sys/fs/cgroup/cpu/box/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu/box/cpu.cfs_period_us": "100000\n",
        },
    ),
}


@pytest.mark.usefixtures("eight_cpus")
@pytest.mark.parametrize("name", CASES)
def test_available(tmp_path: Path, name: str) -> None:
    expected, files = CASES[name]
    write(tmp_path, files)
    assert available_cpus(tmp_path) == expected


def test_here() -> None:
    assert 1 <= available_cpus() <= len(os.sched_getaffinity(0))
    assert resolve_threads(None) == available_cpus()
    assert resolve_threads(5) == 5
