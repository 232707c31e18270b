"""Loading a library from an artifact, and handing it read-only memory."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmfree_compiler.backends.cpu.run.ffi import tvm_ffi
from mmfree_compiler.errors import ArtifactError, TargetError
from mmfree_compiler.temporary import temporary_folder

# What `tvm_ffi.load_module` calls for names that end in ".so"; files in memory have no such name.
_LOAD = tvm_ffi.get_global_func("ffi.Module.load_from_file.so")
# What dlopen says of a place that it may not load from, such as one mounted "noexec".
_OF_PLACE = (
    "failed to map segment from shared object",
    "Operation not permitted",
    "Permission denied",
    "No such file or directory",
)
_NUMBERS = count(1)


def load_library(code: NDArray[np.uint8]) -> Any:
    """Load a library from the bytes of an ELF file.

    dlopen needs a file, but the library stays mapped without it. Raises ArtifactError when they are
    not a library of this machine, TargetError when the system lets no file be loaded.
    """
    refusals, path = [], ""
    for place in _PLACES:
        try:
            with place(code) as path:
                return _LOAD(path, "so")
        except OSError as error:
            refusals.append(error.strerror or str(error))
        except Exception as error:  # tvm_ffi raises several unrelated types here
            said = str(error).partition(f" {path} ")[2] or str(error)  # what dlopen says
            if not (said.startswith(path) and said.endswith(_OF_PLACE)):
                cause, hint = f"does not load: {said}", "Compile the model again"
                raise ArtifactError("the kernels' library", cause, hint) from error
            refusals.append(said)
    cause = f"cannot load code, from memory or from the temporary folder: {'; '.join(refusals)}"
    hint = "Set TMPDIR to a folder that can be written, has free space and is not mounted noexec"
    raise TargetError("this machine", cause, hint)


@contextmanager
def _in_memory(code: NDArray[np.uint8]) -> Iterator[str]:
    """The path of a file in memory. Raises OSError where the system has none."""
    if not hasattr(os, "memfd_create"):
        raise OSError("no files in memory")
    with open(os.memfd_create("mmfree-kernels"), "wb") as file:
        file.write(code.data)
        file.flush()
        # dlopen takes an equal path for the library that it has loaded from it, whatever is there
        # now, and numbers of files are used again. So each path is spelled in a way of its own.
        detour = "".join({"0": "/", "1": "/."}[digit] for digit in f"{next(_NUMBERS):b}")
        yield f"/proc/self/fd{detour}/{file.fileno()}"


@contextmanager
def _in_temporary_folder(code: NDArray[np.uint8]) -> Iterator[str]:
    """The path of a temporary file. Raises OSError when it cannot be written."""
    with temporary_folder() as folder:
        path = folder / "kernels.so"
        path.write_bytes(code.data)
        yield str(path)


_PLACES = (_in_memory, _in_temporary_folder)


def readable(array: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The same bytes in an array that claims to be writable. It keeps `array` alive.

    DLPack refuses an array that is mapped read-only; kernels only read it.
    """
    if array.flags.writeable:
        return array
    cells = (ctypes.c_uint8 * array.size).from_address(array.ctypes.data)
    cells._mapping = array  # type: ignore[attr-defined]  # the owner of the memory
    return np.ctypeslib.as_array(cells)
