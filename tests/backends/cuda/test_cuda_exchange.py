"""Copies between ports and arrays of other libraries, on a device of this process's memory; and
how the driver is asked for them."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
from interpreted import InterpretedExecutor
from mock_driver import run

from mmfree_compiler.backends.cuda.run.exchange import PortRows
from mmfree_compiler.backends.device_interface import DeviceRows

THERE = np.arange(60, dtype=np.float32).reshape(20, 3)


@pytest.fixture
def port() -> PortRows:
    executor = InterpretedExecutor(ModuleType("no kernels"))
    (memory,) = executor.allocate(port=200)
    return PortRows(executor, memory, 16, 12)


def rows(array: np.ndarray, index: list[int]) -> DeviceRows:
    return DeviceRows(array.ctypes.data, np.array(index, np.intp))


@pytest.mark.parametrize("index", [[0, 1, 2], [3], [5, 4, 19], [2, 3, 9, 10, 11, 0], []])
def test_rows_are_copied_there_and_back(port: PortRows, index: list[int]) -> None:
    port.fill(rows(THERE, index))
    found = np.empty((len(index), 3), np.float32)
    port.memory.download(found, 16)
    assert np.array_equal(found, THERE[index])
    back = np.zeros_like(THERE)
    port.give(rows(back, index))
    expected = np.zeros_like(THERE)
    expected[index] = THERE[index]
    assert np.array_equal(back, expected)


def test_rows_of_the_host_are_uploaded(port: PortRows) -> None:
    port.fill(THERE[::4])
    found = np.empty((5, 3), np.float32)
    port.memory.download(found, 16)
    assert np.array_equal(found, THERE[::4])


def test_some_of_the_rows() -> None:
    assert rows(THERE, [4, 5, 6, 1])[1:3].rows.tolist() == [5, 6]


GPU = """
from mmfree_compiler.backends.cuda.run.gpu import Gpu
gpu = Gpu(devices.open_device())
(ours,) = gpu.allocate(rows=64)
(theirs,) = gpu.allocate(rows=64)
other = Stream(devices.open_device())
print(gpu.device, gpu.stream == int(gpu._stream.handle))
with gpu.current():
    borrowed = gpu.borrowed(theirs.memory.pointer + 8, 16)
    borrowed.upload(np.arange(16, dtype=np.uint8))
    ours.copy(4, borrowed, 2, 6)
    found = np.zeros(6, np.uint8)
    ours.download(found, 4)
    borrowed.free()
    print(said(borrowed.upload, np.zeros(17, np.uint8)))
    for stream in (-1, None, int(other.handle)):
        gpu.let_wait(stream)
print(found)
"""


def test_a_gpu_copies_borrowed_memory_and_lets_streams_wait() -> None:
    ran = run(GPU)
    assert ran.printed[0] == "(2, 0) True"
    assert "an array of 17 bytes at 0 of the memory of another library: does not" in ran.printed[1]
    assert ran.printed[2] == "[2 3 4 5 6 7]"
    assert ran.of("cuMemcpyDtoDAsync") == ["cuMemcpyDtoDAsync 6 stream 1"]
    assert ran.of("cuEventRecord", "cuStreamWaitEvent") == [
        "cuEventRecord 2 stream 1",
        "cuStreamWaitEvent 1 event 2 flags 0",
        "cuEventRecord 2 stream 1",
        "cuStreamWaitEvent 3 event 2 flags 0",
    ]
    assert set(ran.left.values()) == {0}


LAUNCH = """
from mmfree_compiler.backends.cuda import facts
from mmfree_compiler.backends.cuda.run.executor import Pointer
from mmfree_compiler.backends.cuda.run.gpu import Gpu
gpu = Gpu(devices.open_device())
other = Stream(devices.open_device())
code = np.frombuffer(b"add 8 8 8", np.uint8)
add = facts.Kernel(symbol="add", offset=0, size=9, warps=2, shared=0, dependent=False,
                   parameters=["*i8"])
gpu.load(code, {"add": add})
with gpu.current():
    there = gpu.on(int(other.handle))
    for executor in (there, gpu):
        executor.launch("add", (3, 1), [Pointer(gpu.borrowed(4096, 8), 4)])
    gpu.finish()
"""


def test_launches_in_a_stream_of_somebody_else() -> None:
    ran = run(LAUNCH)
    launched = [f"grid 3,1,1 block 64,1,1 shared 0 stream {number} 0410" for number in (3, 1)]
    assert [line[21:][: len(launched[0])] for line in ran.of("cuLaunchKernelEx")] == launched
    assert ran.of("cuStreamSynchronize") == ["cuStreamSynchronize 1"]
    assert set(ran.left.values()) == {0}
