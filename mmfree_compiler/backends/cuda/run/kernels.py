"""Modules of compiled kernels, and launching them."""

from __future__ import annotations

from collections.abc import Sequence

from cuda.bindings import driver as cu

from mmfree_compiler.backends.cuda.run.arguments import Arguments
from mmfree_compiler.backends.cuda.run.device import Device, Resource
from mmfree_compiler.backends.cuda.run.driver import NOT_FOUND, call
from mmfree_compiler.backends.cuda.run.streams import Stream
from mmfree_compiler.errors import ArtifactError

Grid = tuple[int, int, int]

PLAIN_SHARED = 48 << 10  # bytes of shared memory per block that need no permission
_SHARED = cu.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
_DEPENDENT = cu.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION


class Module(Resource):
    """Kernels from the bytes of a cubin.

    Raises TargetError when they are not for this GPU and its driver, or too little memory is free.
    """

    def __init__(self, device: Device, cubin: bytes) -> None:
        with device.current():
            handle = call(cu.cuModuleLoadData, cubin)
        super().__init__(device, "module of kernels", cu.cuModuleUnload, handle)


class Kernel:
    """One function of a module, for launches from one thread at a time.

    `signature` has the types of its arguments as Triton prints them, such as ("*i8", "i32"), and
    without those that Triton adds. Raises ArtifactError when the module has no such function.
    """

    def __init__(self, module: Module, name: str, signature: Sequence[str]) -> None:
        self._module = module
        self._function = _function(module, name)
        self._arguments = Arguments(name, signature)
        self._shared = PLAIN_SHARED
        self._plain, self._dependent = cu.CUlaunchConfig(), _dependent()

    def launch(
        self,
        grid: Grid,
        block: int,
        shared_bytes: int,
        arguments: Sequence[int | float],
        stream: Stream,
        dependent: bool = False,
    ) -> None:
        """Put a run of `grid` blocks of `block` threads into a stream, in `device.current()`.

        Each block has `shared_bytes` of shared memory. A `dependent` kernel may start before the
        one in front of it has ended: it has to wait (griddepcontrol.wait) before it uses what that
        one writes. Raises ArtifactError when the arguments do not fit, TargetError when the GPU
        refuses the launch, InputError when the module is closed.
        """
        self._module.check_open()  # the driver may crash on a kernel that was unloaded
        self._arguments.pack(arguments)
        self._allow(shared_bytes)
        config = self._dependent if dependent else self._plain
        config.gridDimX, config.gridDimY, config.gridDimZ = grid
        config.blockDimX, config.blockDimY, config.blockDimZ = block, 1, 1
        config.sharedMemBytes, config.hStream = shared_bytes, stream.handle
        call(cu.cuLaunchKernelEx, config, self._function, self._arguments.address, 0)

    def _allow(self, shared_bytes: int) -> None:
        if shared_bytes > self._shared:
            call(cu.cuFuncSetAttribute, self._function, _SHARED, shared_bytes)
            self._shared = shared_bytes


def _function(module: Module, name: str) -> cu.CUfunction:
    error = ArtifactError(f"kernel {name}", "is not in its module", "Compile the model again")
    with module.device.current():
        arguments = module.handle, name.encode()
        return call(cu.cuModuleGetFunction, *arguments, errors={NOT_FOUND: lambda: error})


def _dependent() -> cu.CUlaunchConfig:
    """The configuration for programmatic dependent launch."""
    attribute = cu.CUlaunchAttribute()
    attribute.id = _DEPENDENT
    attribute.value.programmaticStreamSerializationAllowed = 1
    config = cu.CUlaunchConfig()
    config.attrs, config.numAttrs = [attribute], 1
    return config
