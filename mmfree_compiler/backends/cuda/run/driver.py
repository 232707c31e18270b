"""Calls of the CUDA driver, with its errors as those of this package.

cuda-bindings is NVIDIA's own package of the driver API, kept up to date with it. It has all of it,
with graphs and the structures of launches, and finds the library and its functions when they are
first called. It brings neither a compiler nor the CUDA runtime library. 12.8 and 13 behave alike in
what is used here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from cuda.bindings import driver as cu

from mmfree_compiler.errors import DeviceError, MmfreeError, TargetError

SUCCESS = "CUDA_SUCCESS"
NO_DEVICE = "CUDA_ERROR_NO_DEVICE"
OUT_OF_MEMORY = "CUDA_ERROR_OUT_OF_MEMORY"
NOT_FOUND = "CUDA_ERROR_NOT_FOUND"

_UPGRADE = "Install a newer NVIDIA driver"
_INSTALL = "Install an NVIDIA driver, or compile the model for another target"


class NoGpuError(TargetError):
    """This machine has no NVIDIA GPU, or no driver for one."""


@dataclass(frozen=True)
class Failure:
    """The error for a status of the driver."""

    thing: str
    cause: str
    hint: str
    error: type[TargetError] = TargetError


# After these every later call of the process fails too: CUDA has no way back but a new process.
LOST = tuple(
    f"CUDA_ERROR_{name}"
    for name in (
        *("ASSERT", "CONTAINED", "ECC_UNCORRECTABLE", "EXTERNAL_DEVICE", "HARDWARE_STACK_ERROR"),
        *("ILLEGAL_ADDRESS", "ILLEGAL_INSTRUCTION", "INVALID_ADDRESS_SPACE", "INVALID_PC"),
        *("LAUNCH_FAILED", "LAUNCH_TIMEOUT", "MISALIGNED_ADDRESS", "NVLINK_UNCORRECTABLE"),
        "TENSOR_MEMORY_LEAK",
    )
)
# What releasing answers where there is nothing left to release: after the driver shut down at the
# end of the process, in the child of a fork, and after the GPU was lost.
GONE = ("CUDA_ERROR_DEINITIALIZED", "CUDA_ERROR_NOT_INITIALIZED", *LOST)

# What a session puts into a stream that somebody else is recording.
CAPTURED = tuple(
    f"CUDA_ERROR_STREAM_CAPTURE_{name}"
    for name in ("UNSUPPORTED", "INVALIDATED", "ISOLATION", "IMPLICIT", "WRONG_THREAD")
)

_LOST = Failure(
    "the GPU",
    "failed in a kernel or in its hardware, and is lost for this process",
    "Start the process again, and report the model if it fails again",
    DeviceError,
)
_CAPTURED = Failure(
    "a session",
    "cannot run while a CUDA graph is captured",
    "Compile with in_torch=True for a module that can be captured",
)
_OLD = Failure("the NVIDIA driver", "is too old for what is asked of it", _UPGRADE)
FAILURES = {
    NO_DEVICE: Failure(
        "this machine",
        "has no NVIDIA GPU that this process may use",
        "Check what nvidia-smi lists, and the variable CUDA_VISIBLE_DEVICES",
        NoGpuError,
    ),
    "CUDA_ERROR_STUB_LIBRARY": Failure(
        "this machine", "has a stub in place of the NVIDIA driver", _INSTALL, NoGpuError
    ),
    "CUDA_ERROR_UNSUPPORTED_PTX_VERSION": _OLD,
    "CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE": _OLD,
    "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH": Failure(
        "the NVIDIA driver",
        "has a library and a kernel module of different versions",
        "Restart the machine after the driver was installed",
    ),
    "CUDA_ERROR_DEVICE_UNAVAILABLE": Failure(
        "the GPU",
        "is used by another process alone",
        "End that process, or choose another GPU",
        DeviceError,
    ),
    OUT_OF_MEMORY: Failure(
        "the GPU", "has too little free memory", "End other programs that use this GPU", DeviceError
    ),
    "CUDA_ERROR_NOT_INITIALIZED": Failure(
        "the GPU",
        "was opened before a fork, and CUDA does not work in the child",
        "Load the model in the child, before the parent does",
        DeviceError,
    ),
    "CUDA_ERROR_NO_BINARY_FOR_GPU": Failure(
        "the kernels", "are made for other GPUs", "Compile the model for this GPU"
    ),
    "CUDA_ERROR_INVALID_IMAGE": Failure(
        "the kernels",
        "are damaged, or made for a newer driver",
        f"Compile the model again, or {_UPGRADE[0].lower()}{_UPGRADE[1:]}",
    ),
    **dict.fromkeys(LOST, _LOST),
    **dict.fromkeys(CAPTURED, _CAPTURED),
}
_OTHER = Failure("the NVIDIA driver", "failed", "Check that other CUDA programs run here")

NO_ERRORS: Mapping[str, Callable[[], MmfreeError]] = MappingProxyType({})


def attempt(function: Callable[..., Any], *arguments: object) -> tuple[str, Any]:
    """The status of a call, such as "CUDA_SUCCESS", and its result: None, a value, or several.

    Raises TargetError when there is no driver, or one without this function.
    """
    try:
        status, *results = function(*arguments)
    except RuntimeError as error:  # how cuda-bindings tells that something was not found
        raise _absent(function.__name__, error) from error
    except ValueError as error:
        cause = f"answers {function.__name__} with a status that cuda-bindings does not know"
        hint = "pip install --upgrade cuda-bindings"
        raise TargetError("the NVIDIA driver", f"{cause}: {error}", hint) from error
    return status.name, results[0] if len(results) == 1 else results or None


def call(
    function: Callable[..., Any],
    *arguments: object,
    errors: Mapping[str, Callable[[], MmfreeError]] = NO_ERRORS,
) -> Any:
    """The result of a function of cuda.bindings.driver: None, a value, or a list of several.

    Raises what `errors` makes of the status, else TargetError as `FAILURES` has it.
    """
    status, result = attempt(function, *arguments)
    if status in errors:
        raise errors[status]()
    if status != SUCCESS:
        raise failure(status, function.__name__)
    return result


def release(function: Callable[..., Any], *arguments: object) -> None:
    """Call a function that frees something, and be content where that is gone already."""
    status, _ = attempt(function, *arguments)
    if status not in (SUCCESS, *GONE):
        raise failure(status, function.__name__)


def failure(status: str, where: str) -> TargetError:
    """The error for `status`, answered by the function `where`."""
    row = FAILURES.get(status, _OTHER)
    _, text = cu.cuGetErrorString(getattr(cu.CUresult, status))
    cause = f"{row.cause} ({where}: {status}, {(text or b'').decode()})"
    return row.error(row.thing, cause, row.hint)


def _absent(function: str, error: RuntimeError) -> TargetError:
    """The error for a function that was not found; the first that is called finds no library."""
    if function == cu.cuInit.__name__:
        return NoGpuError("this machine", f"has no NVIDIA driver ({error})", _INSTALL)
    return TargetError("the NVIDIA driver", f"is too old: it has no {function}", _UPGRADE)
