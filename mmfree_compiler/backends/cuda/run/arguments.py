"""The arguments of a kernel in memory, as the driver reads them."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

from mmfree_compiler.errors import ArtifactError

# Types as Triton prints them -> their codes in `struct`. Pointers, such as "*i8", are "u64".
CODES = {"i32": "i", "u32": "I", "i64": "q", "u64": "Q", "fp32": "f"}
SLOT = 8  # bytes from one argument to the next, which aligns every type
# Triton's kernels take two more pointers: scratch memory, and that of its profiler. Ours use none.
HIDDEN = 2


class Arguments:
    """Buffers for the arguments of a signature, such as ("*i8", "i32", "fp32").

    `address` is that of an array of pointers, one per argument. Values are packed into the same
    memory each time: the driver reads them during the launch. Raises ArtifactError for a type that
    is not known.
    """

    def __init__(self, kernel: str, signature: Sequence[str]) -> None:
        self._kernel, self._signature = kernel, signature
        self._format = struct.Struct("<" + "".join(self._slot(kind) for kind in signature))
        self.values = np.zeros(len(signature) + HIDDEN, np.uint64)
        slots = np.arange(len(self.values), dtype=np.uint64) * SLOT
        self._pointers = self.values.ctypes.data + slots
        self.address = self._pointers.ctypes.data

    def pack(self, arguments: Sequence[int | float]) -> None:
        """Set the values. Raises ArtifactError when they do not fit the signature."""
        try:
            self._format.pack_into(self.values.data, 0, *arguments)
        except (struct.error, OverflowError) as error:  # OverflowError: beyond the range of fp32
            raise self._wrong(f"does not take {tuple(arguments)}: {error}") from error

    def _slot(self, kind: str) -> str:
        code = CODES.get("u64" if kind.startswith("*") else kind)
        if code is None:
            raise self._wrong(f"takes arguments of the unknown type {kind!r}")
        return f"{code}{SLOT - struct.calcsize(f'<{code}')}x"

    def _wrong(self, cause: str) -> ArtifactError:
        thing = f"kernel {self._kernel}({', '.join(self._signature)})"
        return ArtifactError(thing, cause, "Compile the model again")
