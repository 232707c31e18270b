"""Memory, launches and graphs, as a mock of the driver sees them."""

from __future__ import annotations

import struct

from mock_driver import run

OPEN = """
device = devices.open_device()
stream = Stream(device)
memory = DeviceMemory(device, "weights", 100)
module = Module(device, b"add 8 4 8 4 8 8\\nother 8 8")
add = Kernel(module, "add", ("*i8", "i32", "i64", "fp32"))
other = Kernel(module, "other", ())
"""
NULL = "0" * 16


def test_a_device_and_its_driver() -> None:
    ran = run("device = devices.open_device(); print(device.info, device)")
    info = "DeviceInfo(index=0, name='Mock GPU', capability=(9, 0), memory=2000000000, driver="
    assert ran.printed == [f"{info}(13, 0)) GPU 0 (Mock GPU)"]
    assert set(ran.left.values()) == {0}  # freed at the end of the process


def test_memory_is_copied_and_cleared_on_a_stream() -> None:
    ran = run(
        OPEN
        + """
found = np.empty(6, np.uint8)
fixed = np.arange(1, 5, dtype=np.uint8)
fixed.flags.writeable = False
with device.current():
    memory.clear(stream, 0, memory.nbytes)
    memory.upload(stream, fixed, 2)
    memory.download(stream, found, 1)
    stream.synchronize()
print(found)
"""
    )
    assert ran.printed == ["[0 1 2 3 4 0]"]
    assert ran.of("cuMemcpyHtoDAsync", "cuMemcpyDtoHAsync", "cuMemsetD8Async") == [
        "cuMemsetD8Async 0 100 stream 1",
        "cuMemcpyHtoDAsync 4 stream 1",
        "cuMemcpyDtoHAsync 6 stream 1",
    ]


def test_the_memory_that_a_benchmark_sees() -> None:
    ran = run(
        """
from benchmarks.gpu.memory import free_bytes
device = devices.open_device()
with device.current():
    before = free_bytes()
    memory = DeviceMemory(device, "weights", 100)
    print(before - free_bytes())
"""
    )
    assert ran.printed == ["100"]


def test_pinned_memory_stays_while_arrays_of_it_are_in_use() -> None:
    ran = run(
        """
device = devices.open_device()
array = PinnedMemory(device, 8).array
array[:] = 7
print(array, len(PinnedMemory(device, 0).array))
gc.collect()
array[:] = 1
cu.cuDriverGetVersion()
del array
"""
    )
    assert ran.printed == ["[7 7 7 7 7 7 7 7] 0"]
    calls = [line.split()[0] for line in ran.calls]
    frees = [i for i, call in enumerate(calls) if call == "cuMemFreeHost"]
    asked = len(calls) - 1 - calls[::-1].index("cuDriverGetVersion")
    assert [i < asked for i in frees] == [True, False]


def test_arguments_are_packed_as_the_kernel_reads_them() -> None:
    ran = run(
        OPEN
        + """
print(memory.pointer)
with device.current():
    add.launch((2, 3, 4), 128, 0, (memory.pointer, -5, 1 << 40, 1.5), stream)
    other.launch((1, 1, 1), 32, 0, (), stream)
"""
    )
    pointer = struct.pack("<Q", int(ran.printed[0])).hex()
    assert ran.of("cuLaunchKernelEx") == [
        "cuLaunchKernelEx add grid 2,3,4 block 128,1,1 shared 0 stream 1 "
        f"{pointer} fbffffff 0000000000010000 0000c03f {NULL} {NULL}",
        f"cuLaunchKernelEx other grid 1,1,1 block 32,1,1 shared 0 stream 1 {NULL} {NULL}",
    ]


def test_much_shared_memory_is_asked_for_once() -> None:
    ran = run(
        OPEN
        + """
with device.current():
    for size in (48 << 10, 100_000, 90_000, 110_000):
        other.launch((1, 1, 1), 32, size, (), stream)
    print(said(other.launch, (1, 1, 1), 32, 300_000, (), stream))
"""
    )
    asked = [f"cuFuncSetAttribute other 8 {size}" for size in (100_000, 110_000, 300_000)]
    assert ran.of("cuFuncSetAttribute") == asked
    assert ran.printed[0].startswith(
        "TargetError: the NVIDIA driver: failed (cuFuncSetAttribute: CUDA_ERROR_INVALID_VALUE, "
    )


def test_a_graph_repeats_its_launches_in_their_order() -> None:
    ran = run(
        OPEN
        + """
def record():
    for i in range(3):
        add.launch((i + 1, 1, 1), 32, 0, (0, i, 0, 0.0), stream, dependent=i > 0)

other_stream = Stream(device)
graph = Graph(stream, record)
with device.current():
    graph.replay(other_stream)
    other.launch((1, 1, 1), 32, 0, (), stream)
    graph.replay(stream)
graph.close()
print(said(graph.replay, stream))
"""
    )
    first, *rest = ran.of("run")
    assert first.startswith("run add grid 1,1,1 block 32,1,1 shared 0 stream 1 0000")
    for index, line in enumerate(rest[:2], 1):
        start = f"run add grid {index + 1},1,1 block 32,1,1 shared 0 stream 1 attribute 6=1 "
        assert line.startswith(f"{start}{NULL} 0{index}000000 ")
    assert rest[2:] == [first, *rest[:2]]
    assert ran.of("cuGraphLaunch") == ["cuGraphLaunch stream 3", "cuGraphLaunch stream 1"]
    assert ran.printed == ["InputError: graph: is closed. Open it again"]


def test_a_recording_that_fails_leaves_the_stream_usable() -> None:
    ran = run(
        OPEN
        + """
def record():
    other.launch((1, 1, 1), 32, 0, (), stream)
    raise KeyError("mine")

print(said(Graph, stream, record))
with device.current():
    Graph(stream, lambda: other.launch((1, 1, 1), 32, 0, (), stream)).replay(stream)
"""
    )
    assert ran.printed == ["KeyError: 'mine'"]
    assert len(ran.of("run")) == 1
    assert set(ran.left.values()) == {0}


def test_events_measure_time() -> None:
    ran = run(
        OPEN
        + """
first, last = Event(device), Event(device)
with device.current():
    first.record(stream)
    last.record(stream)
    last.synchronize()
    print(last.seconds_since(first))
"""
    )
    assert ran.printed == ["0.0025"]
    elapsed = ran.of("cuEventElapsedTime")[0].split()
    assert ran.of("cuEventRecord") == [f"cuEventRecord {event} stream 1" for event in elapsed[1:]]
