"""A function that TVM compiles, linked by the toolchain, runs in a process without TVM."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from mmfree_compiler.backends.cpu.compile.toolchain import link
from mmfree_compiler.backends.cpu.compile.toolchains import host_triple

tvm = pytest.importorskip("tvm")
from tvm.script import tirx as T  # noqa: E402

ROUNDS = 10


@T.prim_func(s_tir=True, check_well_formed=False)  # type: ignore[untyped-decorator]
def fold(  # type: ignore[no-untyped-def]
    x: T.Buffer((64,), "float32"),  # type: ignore[valid-type]
    h: T.Buffer((64,), "float16"),  # type: ignore[valid-type]
    y: T.Buffer((64,), "float32"),  # type: ignore[valid-type]
    threads: T.int32,
):
    """`ROUNDS` times: y = round(reversed x + h), barrier, x = reversed y / 2, barrier."""
    T.func_attr({"global_symbol": "fold", "tirx.noalias": True})
    T.evaluate(T.call_extern("void", "mmfree_set_threads", threads))
    with T.attr(0, "pragma_parallel_launch_point", 1):
        for _ in T.serial(ROUNDS):
            with T.attr(0, "pragma_parallel_barrier_when_finish", 1):
                for i in T.parallel(64):
                    y[i] = T.nearbyint(x[63 - i] + T.Cast("float32", h[i]))
            with T.attr(0, "pragma_parallel_barrier_when_finish", 1):
                for i in T.parallel(64):
                    x[i] = y[63 - i] * T.float32(0.5)


RUN = """
import os, sys
if {with_tvm}:
    import tvm
import numpy as np, tvm_ffi
fold = tvm_ffi.load_module(sys.argv[1]).fold
def aligned(dtype):
    memory = np.zeros(64 * 4 + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + 64 * np.dtype(dtype).itemsize].view(dtype)
x, h, y = map(aligned, ("float32", "float16", "float32"))
h[:] = np.arange(64) / 8
expected = np.arange(64, dtype=np.float32)
for _ in range({rounds}):
    expected = np.round(expected[::-1] + h.astype(np.float32))[::-1] / 2
for threads in (1, 2, 3, 5):
    x[:] = np.arange(64)
    before = len(os.listdir("/proc/self/task"))
    fold(x, h, y, threads)
    np.testing.assert_array_equal(x, expected)
    print(len(os.listdir("/proc/self/task")) - before, end=" ")
assert ("tvm" in sys.modules) == {with_tvm}
"""


@pytest.fixture(scope="module", params=["native", "generic"])
def library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tvm")
    triple = host_triple()
    generic = {"x86_64": "x86-64", "aarch64": "generic"}[platform.machine()]
    cpu = {"native": tvm.target.codegen.llvm_get_system_cpu(), "generic": generic}[request.param]
    target = tvm.target.Target({"kind": "llvm", "mtriple": triple, "mcpu": cpu})
    tvm.compile(fold, target=target).mod.write_to_file(str(folder / "fold.o"))
    link([folder / "fold.o"], folder / "fold.so", triple)
    return folder / "fold.so"


@pytest.mark.parametrize("with_tvm", [False, True])
def test_runs_on_the_pool_of_the_library(library: Path, with_tvm: bool) -> None:
    """Also where TVM is loaded: its own pool must not take the place of the library's."""
    code = RUN.format(rounds=ROUNDS, with_tvm=with_tvm)
    result = subprocess.run(
        [sys.executable, "-c", code, str(library)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["0", "1", "1", "2"]  # workers that each launch added
