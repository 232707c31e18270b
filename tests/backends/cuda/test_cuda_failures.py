"""What each failure of the driver is reported as."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from cuda.bindings import driver as cu
from mock_driver import run

from mmfree_compiler.backends.cuda import checks
from mmfree_compiler.backends.cuda.run import driver
from mmfree_compiler.backends.cuda.run.device import DeviceInfo
from mmfree_compiler.backends.cuda.run.driver import FAILURES, LOST, NoGpuError, call
from mmfree_compiler.errors import TargetError

ROWS = """
for status in driver.FAILURES:
    os.environ["MOCK_FAIL"] = f"cuDeviceGetCount:1:{int(getattr(cu.CUresult, status))}"
    print(said(devices.devices))
"""
LOSE = """
device = devices.open_device()
stream = Stream(device)
memory = DeviceMemory(device, "weights", 8)
os.environ["MOCK_FAIL"] = "cuStreamSynchronize:1:700"
with device.current():
    print(said(stream.synchronize))
print(said(Stream, device))
memory.close()
device.close()
print(said(stream.synchronize))
"""
MEMORY = """
device = devices.open_device()
print(said(DeviceMemory, device, "states", 3_000_000_000))
print(said(allocate, device, {"weights": 900_000_000, "states": 200_000_000, "scratch": 1}))
for name, make in (("cuMemAlloc", lambda: allocate(device, {"weights": 8, "scratch": 5})),
                   ("cuMemHostAlloc", lambda: PinnedMemory(device, 5_000_000))):
    os.environ["MOCK_FAIL"] = f"{name}:{2 if name == 'cuMemAlloc' else 1}:2"
    print(said(make))
os.environ["MOCK_FAIL"] = "cuModuleLoadData:1:2"
print(said(Module, device, b""))
os.environ["MOCK_FAIL"] = ""
print(*allocate(device, {"weights": 8, "none": 0}))
"""
CLOSED = """
device = devices.open_device()
stream, memory = Stream(device), DeviceMemory(device, "weights", 8)
module = Module(device, b"add 8 8")
add = Kernel(module, "add", ())
with device.current():
    print(said(memory.upload, stream, np.zeros(9, np.uint8)))
    print(said(memory.download, stream, np.zeros(4, np.uint8)[::2]))
    print(said(memory.upload, stream, np.zeros(4, np.uint8), -1))
print(said(Kernel, module, "sub", ()))
print(said(Kernel, module, "add", ("fp8",)))
print(said(add.launch, (1, 1, 1), 32, 0, (1,), stream))
print(said(Module, device, b"\\x7fELF"))
device.close()
print(said(add.launch, (1, 1, 1), 32, 0, (), stream))
print(said(memory.upload, stream, np.zeros(1)))
print(said(Stream, device))
"""
FORK = """
device = devices.open_device()
memory = DeviceMemory(device, "weights", 8)
sys.stdout.flush()
child = os.fork()
if not child:
    os.environ["MOCK_FAIL"] = "cuMemFree:1:3"  # what CUDA answers in a child
    del memory
    print(said(device.close), flush=True)
    os._exit(0)
print(os.waitpid(child, 0)[1])
"""


def test_every_row_is_raised() -> None:
    ran = run(ROWS)
    for line, (status, row) in zip(ran.printed, FAILURES.items(), strict=True):
        assert line.startswith(f"{row.error.__name__}: {row.thing}: {row.cause} (cuDeviceGetCount")
        assert f": {status}, " in line
        assert line.endswith(row.hint)


def test_rows_are_of_this_version_of_cuda_bindings() -> None:
    assert {name for name in (*FAILURES, *driver.GONE) if not hasattr(cu.CUresult, name)} == set()


def test_a_status_without_a_row_has_its_name() -> None:
    script = 'os.environ["MOCK_FAIL"] = "cuDeviceGetCount:1:{}"; print(said(devices.devices))'
    ran = run(script.format(801) + "\n" + script.format(54321))
    assert ran.printed[0].startswith(
        "TargetError: the NVIDIA driver: failed "
        "(cuDeviceGetCount: CUDA_ERROR_NOT_SUPPORTED, described)"
    )
    assert "answers cuDeviceGetCount with a status that cuda-bindings does not" in ran.printed[1]
    assert "54321" in ran.printed[1]


def test_a_lost_gpu_is_named_and_closing_after_it_is_silent() -> None:
    ran = run(LOSE)
    lost = f"DeviceError: the GPU: {FAILURES[LOST[0]].cause} (%s: CUDA_ERROR_ILLEGAL_ADDRESS, "
    lost += "an illegal memory access was encountered)"
    assert ran.printed[0].startswith(lost % "cuStreamSynchronize")
    assert ran.printed[1].startswith(lost % "cuStreamCreate")
    assert ran.printed[2] == "InputError: stream: is closed. Open it again"
    assert len(ran.of("cuMemFree", "cuStreamDestroy", "cuDevicePrimaryCtxRelease")) == 3


def test_too_little_memory_says_what_is_needed() -> None:
    ran = run(MEMORY)
    short = "DeviceError: GPU 0 (Mock GPU): has too little free memory: 1,000.0 MB of 2,000.0 MB, "
    assert ran.printed[0].startswith(f"{short}but the model needs 3,000.0 MB for states. End")
    needs = "900.0 MB for weights, 200.0 MB for states, 0.0 MB for scratch"
    assert ran.printed[1].startswith(f"{short}but the model needs {needs}. ")
    assert "but the model needs 0.0 MB for scratch" in ran.printed[2]
    assert ran.printed[3].startswith("DeviceError: this machine: cannot pin 5.0 MB of memory for")
    assert ran.printed[4].startswith("DeviceError: the GPU: has too little free memory (cuModuleL")
    assert ran.printed[5] == "weights none"
    assert set(ran.left.values()) == {0}


def test_wrong_and_closed_things_are_named() -> None:
    ran = run(CLOSED)
    copies, closed = ran.printed[:3], ran.printed[-3:]
    assert all("of the GPU memory for weights: does not fit into 8 bytes" in x for x in copies)
    assert ran.printed[3].startswith("ArtifactError: kernel sub: is not in its module. Compile")
    assert ran.printed[4].startswith("ArtifactError: kernel add(fp8): takes arguments of the unkno")
    assert ran.printed[5].startswith("ArtifactError: kernel add(): does not take (1,): ")
    assert ran.printed[6].startswith("TargetError: the kernels: are damaged, or made for a newer")
    names = ("module of kernels", "GPU memory for weights", "GPU 0 (Mock GPU)")
    assert closed == [f"InputError: {name}: is closed. Open it again" for name in names]


def test_a_child_process_frees_nothing_and_says_nothing() -> None:
    assert run(FORK).printed == ["no error: None", "0"]


def test_a_gpu_that_is_not_there() -> None:
    ran = run("for index in (1, -1): print(said(devices.open_device, index))")
    cause = "does not exist: there is 1 GPU. The first is GPU 0"
    assert ran.printed == [f"DeviceError: GPU {index}: {cause}" for index in (1, -1)]


def test_an_old_driver() -> None:
    asked = "print(said(devices.devices))"
    hint = "Install a newer NVIDIA driver"
    old = "TargetError: the NVIDIA driver: is too old: it"
    assert run(asked, MOCK_VERSION="11080").printed == [
        f"{old} supports CUDA 11.8, not 12.0. {hint}"
    ]
    lacks = run(asked, MOCK_LACKS="cuDeviceGetName").printed
    assert lacks == [f"{old} has no cuDeviceGetName. {hint}"]


@pytest.mark.skipif(os.path.exists("/dev/nvidiactl"), reason="there is a driver")
def test_no_driver_at_all() -> None:
    with pytest.raises(NoGpuError, match=r"this machine: has no NVIDIA driver .*Install an"):
        call(cu.cuInit, 0)
    assert issubclass(NoGpuError, TargetError)
    assert [(c.name, c.status) for c in checks.checks()][-1] == ("NVIDIA GPU", "elsewhere")


CHECKS = """
from mmfree_compiler.backends.cuda.checks import checks
print(*[c for c in checks() if c.name != "triton"], sep="\\n")
os.environ["MOCK_FAIL"] = "cuDeviceGetCount:1:803"
print([c for c in checks()][-1])
"""


def test_what_the_doctor_says() -> None:
    package, cuda, gpu, failed = run(CHECKS).printed
    assert package.startswith("Check(name='cuda-bindings', status='ok'")
    assert cuda == "Check(name='NVIDIA driver', status='ok', found='supports CUDA 13.0', hint='')"
    found = "Mock GPU, compute capability 9.0, 2.0 GB, runs sm_90"
    assert gpu == f"Check(name='GPU 0', status='ok', found='{found}', hint='')"
    assert "name='NVIDIA driver', status='failed', found='the NVIDIA driver: has a lib" in failed


def test_a_gpu_that_is_too_old() -> None:
    found = checks._gpu(DeviceInfo(1, "Old GPU", (7, 5), 8_000_000_000, (13, 0)))
    assert (found.name, found.status) == ("GPU 1", "elsewhere")
    assert found.found == "Old GPU, compute capability 7.5, 8.0 GB, runs no kernels"
    assert found.hint.startswith("Kernels are compiled for sm_80, ")


def test_the_package_needs_no_cuda_bindings() -> None:
    code = "import sys; sys.modules['cuda'] = None\nimport mmfree_compiler.backends.cuda\n"
    code += "from mmfree_compiler.backends.cuda.checks import checks; print(len(list(checks())))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "2\n"  # one for each package: the driver could not be asked
