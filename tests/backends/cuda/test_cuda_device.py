"""The same on a real GPU, where there is one that has programmatic dependent launch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from mock_driver import PRELUDE

from mmfree_compiler.backends.cuda.run.device import Device, devices, open_device
from mmfree_compiler.backends.cuda.run.graphs import Graph
from mmfree_compiler.backends.cuda.run.kernels import Kernel, Module
from mmfree_compiler.backends.cuda.run.memory import DeviceMemory, PinnedMemory
from mmfree_compiler.backends.cuda.run.streams import Event, Stream
from mmfree_compiler.errors import TargetError

# value = value * factor + term, through shared memory at a byte offset. The driver compiles it.
PTX = b"""
.version 7.8
.target sm_90
.address_size 64
.extern .shared .align 16 .b8 block[];
.visible .entry step(.param .u64 value, .param .s32 term, .param .u64 offset, .param .f32 factor,
                     .param .u64 scratch, .param .u64 profile)
{
    .reg .b64 %v, %o, %s;
    .reg .s32 %t;
    .reg .f32 %x, %f, %a;
    griddepcontrol.wait;
    ld.param.u64 %v, [value];
    cvta.to.global.u64 %v, %v;
    ld.param.s32 %t, [term];
    ld.param.u64 %o, [offset];
    ld.param.f32 %f, [factor];
    mov.u64 %s, block;
    add.u64 %s, %s, %o;
    ld.global.f32 %x, [%v];
    cvt.rn.f32.s32 %a, %t;
    mul.rn.f32 %x, %x, %f;
    add.rn.f32 %x, %x, %a;
    st.shared.f32 [%s], %x;
    ld.shared.f32 %x, [%s];
    st.global.f32 [%v], %x;
    ret;
}
"""
SIGNATURE = ("*fp32", "i32", "i64", "fp32")
SHARED = 100_000


def _has_gpu() -> bool:
    try:
        return devices()[0].capability >= (9, 0)
    except TargetError:
        return False


needs_gpu = pytest.mark.skipif(not _has_gpu(), reason="needs a GPU of compute capability 9.0")
pytestmark = [needs_gpu, pytest.mark.gpu]


@pytest.fixture
def device() -> Iterator[Device]:
    with open_device() as opened:
        yield opened


def test_graphs_of_dependent_launches(device: Device) -> None:
    stream, value, found = (
        Stream(device),
        DeviceMemory(device, "states", 8),
        PinnedMemory(device, 8),
    )
    step = Kernel(Module(device, PTX), "step", SIGNATURE)
    ends = Event(device), Event(device)

    def record() -> None:
        for term in range(3):
            arguments = (value.pointer + 4, term, SHARED - 4, 2.0)
            step.launch((1, 1, 1), 1, SHARED, arguments, stream, dependent=term > 0)

    with device.current():
        value.clear(stream, 0, value.nbytes)
        graph = Graph(stream, record)
        ends[0].record(stream)
        graph.replay(stream)
        graph.replay(stream)
        ends[1].record(stream)
        value.download(stream, found.array)
        stream.synchronize()
        assert ends[1].seconds_since(ends[0]) > 0
    assert found.array.view(np.float32).tolist() == [0, 36]


def test_memory_goes_there_and_back(device: Device) -> None:
    stream, sent = Stream(device), np.arange(1 << 20, dtype=np.int32)
    memory, found = DeviceMemory(device, "weights", sent.nbytes + 4), np.empty_like(sent)
    with device.current():
        memory.upload(stream, sent, 4)
        memory.download(stream, found, 4)
        stream.synchronize()
    assert (found == sent).all()


LOSE = f"""
device = devices.open_device()
stream, step = Stream(device), Kernel(Module(device, {PTX!r}), "step", {SIGNATURE})
with device.current():
    step.launch((1, 1, 1), 1, 64, (0, 0, 0, 0.0), stream)
    print(said(stream.synchronize))
print(said(Stream, device))
device.close()
"""


def test_a_gpu_is_lost_after_an_illegal_access() -> None:
    command = [sys.executable, "-c", PRELUDE + LOSE]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ran.stdout.count("DeviceError: the GPU: failed in a kernel or in its hardware") == 2
    assert ran.stderr == ""
