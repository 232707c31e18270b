"""Everything that is opened is freed: by closing, by its device, or when nothing refers to it."""

from __future__ import annotations

from mock_driver import run

OPEN_ALL = """
def open_all(device):
    stream = Stream(device)
    module = Module(device, b"add 8 8")
    add = Kernel(module, "add", ())
    graph = Graph(stream, lambda: add.launch((1, 1, 1), 32, 0, (), stream))
    return [stream, module, graph, Event(device), PinnedMemory(device, 64),
            *allocate(device, {"weights": 1000, "scratch": 10}).values()]
"""
# What frees each kind, in the order of OPEN_ALL.
FREES = ["cuStreamDestroy", "cuModuleUnload", "cuGraphExecDestroy", "cuEventDestroy"]
FREES += ["cuMemFreeHost", "cuMemFree", "cuMemFree"]
LAST = "cuDevicePrimaryCtxRelease 0"


def _frees(script: str) -> list[str]:
    ran = run(OPEN_ALL + script)
    assert set(ran.left.values()) == {0}
    return ran.of(*FREES, *LAST.split()[:1], "cuDriverGetVersion")[1:]


def test_a_device_frees_what_was_made_with_it_once() -> None:
    script = """
with devices.open_device() as device:
    found = open_all(device)
    with found[0]:
        print(found[0].handle is not None)
    found[0].close()
device.close()
for resource in found:
    resource.close()
cu.cuDriverGetVersion()
"""
    newest_first = FREES[:0:-1]
    assert _frees(script) == [FREES[0], *newest_first, LAST, "cuDriverGetVersion"]


def test_what_nothing_refers_to_is_freed() -> None:
    script = """
device = devices.open_device()
found = open_all(device)
del found
cu.cuDriverGetVersion()
del device
cu.cuDriverGetVersion()
"""
    *freed, mark, last, end = _frees(script)
    assert sorted(freed) == sorted(FREES)
    assert (mark, last, end) == ("cuDriverGetVersion", LAST, "cuDriverGetVersion")


def test_the_end_of_the_process_frees_the_rest() -> None:
    assert _frees("device = devices.open_device(); found = open_all(device)")[-1] == LAST


def test_opening_and_closing_again_and_again_does_not_grow() -> None:
    script = """
import tracemalloc

def cycles(count):
    for i in range(count):
        device = devices.open_device()
        found = open_all(device)
        if i % 2:
            device.close()
    del device, found
    gc.collect()
    return len(gc.get_objects()), tracemalloc.get_traced_memory()[0]

cycles(20)
tracemalloc.start()
objects, size = cycles(20)
more_objects, more_size = cycles(1000)
print(more_objects - objects, (more_size - size) // 10_000)
"""
    ran = run(OPEN_ALL + script)
    assert ran.printed == ["0 0"]
    assert len(ran.of("cuDevicePrimaryCtxRetain")) == 1040
    assert set(ran.left.values()) == {0}
