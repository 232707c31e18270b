"""The thread pool under stress: barriers, callers at once, fork, unloading, exit."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mmfree_compiler.backends.cpu.compile.toolchain import compile_object, link
from mmfree_compiler.backends.cpu.compile.toolchains import host_triple

DRIVER = Path(__file__).with_name("thread_pool_driver.c")
HANG = 60  # seconds after which a child process counts as hung


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pool")
    driver, output = folder / "driver.o", folder / "driver.so"
    driver.write_bytes(compile_object(DRIVER, host_triple()))
    link([driver], output, host_triple())
    return output


@pytest.fixture(scope="module")
def pool(library: Path) -> ctypes.CDLL:
    return ctypes.CDLL(str(library))


@pytest.mark.parametrize("tasks", [1, 2, 3, 8, 33])
def test_every_task_passes_every_barrier(pool: ctypes.CDLL, tasks: int) -> None:
    assert pool.stress(tasks, 50, 20) == 0


def test_launches_of_changing_width(pool: ctypes.CDLL) -> None:
    assert pool.stress(0, 2000, 3) == 0


def test_callers_at_once(pool: ctypes.CDLL) -> None:
    with ThreadPoolExecutor(3) as executor:
        runs = [executor.submit(pool.stress, tasks, 500, 3) for tasks in (2, 0, 5)]
        assert [run.result() for run in runs] == [0, 0, 0]


def test_each_thread_has_its_own_setting(pool: ctypes.CDLL) -> None:
    met = threading.Barrier(2)

    def ask(tasks: int) -> set[int]:
        met.wait()
        return {pool.tasks_of_a_launch(tasks) for _ in range(200)}

    with ThreadPoolExecutor(2) as executor:
        assert list(executor.map(ask, (2, 3))) == [{2}, {3}]


@pytest.mark.parametrize(("asked", "given"), [(-1, 1), (0, 1), (1, 1), (256, 256), (10_000, 256)])
def test_number_of_tasks_is_bounded(pool: ctypes.CDLL, asked: int, given: int) -> None:
    assert pool.tasks_of_a_launch(asked) == given


@pytest.mark.parametrize("task", [0, 1, 3])
def test_a_failing_task_fails_the_launch(pool: ctypes.CDLL, task: int) -> None:
    assert pool.status_of_failure(task) == -1
    assert pool.status_of_failure(-1) == 0


def test_pool_is_hidden_from_other_libraries(pool: ctypes.CDLL) -> None:
    # tvm_ffi writes a loaded TVM's own pool into these pointers wherever it finds them.
    for name in ("__TVMBackendParallelLaunch", "__TVMBackendParallelBarrier"):
        assert not hasattr(pool, name)


def _in_child(library: Path, body: str) -> subprocess.CompletedProcess[str]:
    """Run Python `body` with `pool` loaded, in a process that is killed when it hangs."""
    code = f"import _ctypes, ctypes, os, threading\npool = ctypes.CDLL({str(library)!r})\n{body}"
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=HANG, check=False
    )


FORK = """
assert pool.stress(4, 10, 3) == 0
stop = threading.Event()
busy = threading.Thread(target=lambda: [pool.stress(3, 5, 3) for _ in iter(stop.is_set, True)])
busy.start()
for _ in range(20):
    child = os.fork()
    if child == 0:
        os._exit(pool.stress(4, 10, 3))
    assert os.waitpid(child, 0)[1] == 0
stop.set()
busy.join()
assert pool.stress(4, 10, 3) == 0
"""

UNLOAD = """
before = len(os.listdir("/proc/self/task"))
for _ in range(20):
    assert pool.stress(4, 5, 3) == 0
    _ctypes.dlclose(pool._handle)
    assert len(os.listdir("/proc/self/task")) == before
    child = os.fork()  # a fork handler left behind would be called in unmapped memory
    if child == 0:
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    pool = ctypes.CDLL(pool._name)
"""

EXIT_WHILE_BUSY = """
ready = threading.Event()
def loop():
    while True:
        pool.stress(3, 5, 3)
        ready.set()
threading.Thread(target=loop, daemon=True).start()
ready.wait()
"""

EXIT_IN_FORKED_CHILD = """
assert pool.stress(4, 10, 3) == 0
child = os.fork()
if child:
    assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.parametrize("body", [FORK, UNLOAD, EXIT_WHILE_BUSY, EXIT_IN_FORKED_CHILD])
def test_life_and_death(library: Path, body: str) -> None:
    result = _in_child(library, body)
    assert result.returncode == 0, result.stderr


def test_workers_take_no_signals(library: Path) -> None:
    body = """
import signal
pool.stress(4, 1, 1)
for task in os.listdir("/proc/self/task"):
    if int(task) != os.getpid():
        status = open(f"/proc/self/task/{task}/status").read()
        blocked = int(status.split("SigBlk:")[1].split()[0], 16)
        assert blocked >> (signal.SIGINT - 1) & 1
"""
    result = _in_child(library, body)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("change", "ask"),
    [
        ("torch.set_flush_denormal(True)", "(torch.tensor(1e-40) * 1 == 0).item()"),
        *((f"libm.fesetround({mode})", "libm.fegetround()") for mode in (0x400, 0x800, 0xC00)),
    ],
)
def test_tasks_round_to_nearest_and_keep_denormals(library: Path, change: str, ask: str) -> None:
    """Whatever the caller has set, which stays. The modes are x86's: down, up, towards zero."""
    body = f"""
import torch
libm = ctypes.CDLL("libm.so.6")
def check():
    plain = {ask}
    {change}
    changed = {ask}
    assert changed != plain
    for tasks in (1, 2, 3):
        assert pool.unusual_floats(tasks) == 0, tasks
        assert {ask} == changed
    results.append(changed)
results = []
other = threading.Thread(target=check)
other.start()
other.join()
check()
assert len(results) == 2
"""
    result = _in_child(library, body)
    assert result.returncode == 0, result.stderr


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs")
def test_a_worker_leaves_the_callers_cpu(library: Path) -> None:
    body = """
first, second = sorted(os.sched_getaffinity(0))[:2]
pool.worker_leaves.argtypes = ctypes.c_int, ctypes.c_uint64
assert pool.stress(2, 1, 1) == 0  # the pool counts its CPUs when it makes its workers
assert pool.worker_leaves(first, 1 << first | 1 << second) == 1
assert pool.worker_leaves(first, 1 << first) == 0  # there is no other
assert pool.stress(4, 10, 3) == 0
"""
    result = _in_child(library, body)
    assert result.returncode == 0, result.stderr


def test_a_full_system_gets_fewer_tasks(library: Path) -> None:
    # No thread can be made with no address space left for its stack.
    body = """
import resource
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (1 << 20), size + (1 << 20)))
assert pool.tasks_of_a_launch(4) == 1
"""
    result = _in_child(library, body)
    assert result.returncode == 0, result.stderr
