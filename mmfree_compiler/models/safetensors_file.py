"""Reading safetensors files without mapping them.

A process that reads mapped pages of a file that another process cuts short is ended by the system
(SIGBUS). The safetensors package can only map, so the header is read here; its format is
https://github.com/huggingface/safetensors#format.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO

import torch
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from torch import Tensor

from mmfree_compiler.errors import CheckpointError
from mmfree_compiler.models.json_file import JsonError, parse_json
from mmfree_compiler.wording import few

# What safetensors calls a dtype -> torch's own.
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
METADATA = "__metadata__"
MOST_HEADER = 100_000_000  # bytes: the limit of the safetensors package
HINT = "Fetch the checkpoint again"

Offset = Annotated[int, Field(ge=0, lt=1 << 63)]


class _Described(BaseModel):
    """A tensor in the header; the offsets count from the header's end."""

    model_config = ConfigDict(extra="forbid", strict=True)

    dtype: str
    shape: list[Offset]
    data_offsets: Annotated[list[Offset], Field(min_length=2, max_length=2)]


_HEADER = TypeAdapter(dict[str, _Described])
_TEXTS = TypeAdapter(dict[str, str])


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of `nbytes` from byte `offset` of `file`."""

    file: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int
    nbytes: int

    def read(self) -> Tensor:
        """Its values, in memory of their own. Raises CheckpointError if the file is shorter now."""
        tensor = torch.empty(self.shape, dtype=self.dtype)
        try:
            with self.file.open("rb") as file:
                file.seek(self.offset)
                count = file.readinto(tensor.view(-1).view(torch.uint8).numpy().data)
        except OSError as error:
            raise unreadable(self.file, error) from None
        if count < self.nbytes:
            raise CheckpointError(str(self.file), "was cut short while it was read", HINT)
        return tensor


@dataclass(frozen=True)
class StoredFile:
    """What a safetensors file holds: tensors and texts by name."""

    tensors: dict[str, StoredTensor]
    texts: dict[str, str]


def stored_tensors(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a safetensors file by name. Raises CheckpointError on a malformed file."""
    return stored_file(path).tensors


def stored_file(path: Path) -> StoredFile:
    """What a safetensors file holds. Raises CheckpointError on a malformed file."""
    try:
        if path.exists() and not path.is_file():  # opening a pipe would wait forever
            raise CheckpointError(str(path), "is not a regular file", HINT)
        with path.open("rb") as file:
            start, found, texts = _header(file)
            size = file.seek(0, 2)
        _check_layout(found.values(), size - start)
    except OSError as error:
        raise unreadable(path, error) from None
    except (JsonError, ValidationError, ValueError) as error:
        cause = f"is not a safetensors file: {_first_fault(error)}"
        raise CheckpointError(str(path), cause, HINT) from None
    tensors = {name: _stored(path, start, tensor) for name, tensor in found.items()}
    return StoredFile(tensors, texts)


def unreadable(path: Path, error: OSError) -> CheckpointError:
    """The error of a file that cannot be read."""
    return CheckpointError(str(path), f"cannot be read: {error.strerror or error}", HINT)


def _header(file: BinaryIO) -> tuple[int, dict[str, _Described], dict[str, str]]:
    """Where the data begin, what the header says about them, and its texts. Raises ValueError."""
    length = int.from_bytes(file.read(8), "little")
    if length > MOST_HEADER:
        raise ValueError(f"its header would have {length:,} bytes")
    text = file.read(length)
    if len(text) < length or not text:
        raise ValueError("its header is cut short")
    fields = parse_json(text)
    texts = _TEXTS.validate_python(fields.pop(METADATA, {}))
    return 8 + length, _HEADER.validate_python(fields), texts


def _check_layout(tensors: Iterable[_Described], size: int) -> None:
    """Raise ValueError unless the tensors fill `size` bytes one after another."""
    end = 0
    for tensor in sorted(tensors, key=lambda tensor: tensor.data_offsets):
        start, stop = tensor.data_offsets
        if tensor.dtype not in DTYPES:
            raise ValueError(f"the unknown dtype {few([tensor.dtype])}")
        if math.prod(tensor.shape) * DTYPES[tensor.dtype].itemsize != stop - start:
            raise ValueError(f"a {tensor.dtype} tensor {tensor.shape} of {stop - start:,} bytes")
        if start != end or stop < start:
            raise ValueError(f"a tensor from byte {start:,}, not {end:,}")
        end = stop
    if end != size:
        raise ValueError(f"{size:,} bytes of tensors, but the header says {end:,}")


def _stored(path: Path, start: int, tensor: _Described) -> StoredTensor:
    first, end = tensor.data_offsets
    dtype, shape = DTYPES[tensor.dtype], tuple(tensor.shape)
    return StoredTensor(path, dtype, shape, start + first, end - first)


def _first_fault(error: ValueError) -> str:
    if isinstance(error, ValidationError):
        fault = error.errors()[0]
        return f"{'.'.join(map(str, fault['loc']))}: {fault['msg'].lower()}"
    return str(error)
