"""The CUDA target's checks for `mmfree doctor`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from mmfree_compiler.backends.cuda.archs import ARCHS
from mmfree_compiler.backends.cuda.choose import fitting
from mmfree_compiler.backends.interface import Check
from mmfree_compiler.backends.packages import Package
from mmfree_compiler.errors import TargetError

if TYPE_CHECKING:
    from mmfree_compiler.backends.cuda.run.device import DeviceInfo

PACKAGES = (
    Package("cuda-bindings", "run for cuda", "cuda-runtime"),
    Package("triton", "compile for cuda", "cuda"),
)


def checks() -> Iterator[Check]:
    """The packages, the driver and each GPU."""
    yield from (package.check() for package in PACKAGES)
    yield from _gpus()


def _gpus() -> Iterator[Check]:
    try:
        from mmfree_compiler.backends.cuda.run.device import devices
        from mmfree_compiler.backends.cuda.run.driver import NoGpuError
    except ImportError:
        return  # without cuda-bindings, which has its own line, nothing can be asked
    try:
        found = devices()
    except NoGpuError as error:
        yield Check("NVIDIA GPU", "elsewhere", error.fault)
    except TargetError as error:
        yield Check("NVIDIA driver", "failed", error.fault, error.hint)
    else:
        yield Check("NVIDIA driver", "ok", "supports CUDA {}.{}".format(*found[0].driver))
        yield from map(_gpu, found)


def _gpu(info: DeviceInfo) -> Check:
    capability = "{}.{}".format(*info.capability)
    found = f"{info.name}, compute capability {capability}, {info.memory / 1e9:,.1f} GB"
    arch = fitting(ARCHS.values(), info.capability)
    if arch is None:
        hint = f"Kernels are compiled for {', '.join(ARCHS)}"
        return Check(f"GPU {info.index}", "elsewhere", f"{found}, runs no kernels", hint)
    return Check(f"GPU {info.index}", "ok", f"{found}, runs {arch.name}")
