"""Loading a library from an artifact, and handing it read-only memory."""

from __future__ import annotations

import ctypes
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmfree_compiler.backends.cpu.run.ffi import tvm_ffi
from mmfree_compiler.errors import ArtifactError


def load_library(code: NDArray[np.uint8]) -> Any:
    """Load a library from the bytes of an ELF file. Raises ArtifactError.

    dlopen needs a file, but the library stays mapped after the file is removed.
    """
    with tempfile.TemporaryDirectory(prefix="mmfree-") as folder:
        path = Path(folder, "kernels.so")
        path.write_bytes(code.data)
        try:
            return tvm_ffi.load_module(path, keep_module_alive=False)
        except Exception as error:  # tvm_ffi raises several unrelated types here
            raise ArtifactError(
                "the kernels' library", f"does not load: {error}", "Compile the model again"
            ) from error


def readable(array: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The same bytes in an array that claims to be writable. It keeps `array` alive.

    DLPack refuses an array that is mapped read-only; kernels only read it.
    """
    if array.flags.writeable:
        return array
    cells = (ctypes.c_uint8 * array.size).from_address(array.ctypes.data)
    cells._mapping = array  # type: ignore[attr-defined]  # the owner of the memory
    return np.ctypeslib.as_array(cells)
