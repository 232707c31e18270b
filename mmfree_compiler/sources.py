"""The input of a compilation: a checkpoint or a module, with metadata for the artifact."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from mmfree_compiler.backends import files
from mmfree_compiler.backends.own_files import Imported
from mmfree_compiler.checking import Case, cases_like, cases_of_ids
from mmfree_compiler.errors import ArtifactError, CheckpointError, InputError
from mmfree_compiler.models import MLGRU, MatMulFreeLM, load_checkpoint
from mmfree_compiler.notes import Note
from mmfree_compiler.runtime.tokenizer import Tokenizer
from mmfree_compiler.runtime.tokenizer_rules import check_tokenizer

Model = str | os.PathLike[str] | nn.Module

# How the layers of a MatMulFreeLM quantize (docs/numerics.md).
QUANTIZATION = {
    "weights": "ternary, one scale per tensor: s = 1 / max(mean|w|, 1e-5), round half to even",
    "activations": "int8, one scale per token: 127 / max(max|x|, 1e-5), round half to even",
}


@dataclass(frozen=True)
class Source:
    """A module to compile, as a function of rows alone; lowering adds the states of its scans.

    `traced` are the inputs to trace it with, `compared` the calls to compare outputs on. `model`,
    `quantization`, `tokenizer` (a tokenizer.json) and `notes` go into the artifact.
    """

    module: nn.Module = field(repr=False)
    traced: tuple[Tensor, ...] = field(repr=False)
    compared: tuple[Case, ...] = field(repr=False)
    model: dict[str, object] = field(default_factory=dict)
    quantization: dict[str, str] = field(default_factory=dict)
    tokenizer: bytes | None = field(default=None, repr=False)
    notes: tuple[Note, ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, model: Model, example_inputs: tuple[Tensor, ...] | None) -> Source:
        """Load `model` if it is a path. Raises CheckpointError, InputError, ToolchainError."""
        if not isinstance(model, nn.Module):
            imported = files.imported(_path(model))
            if imported is not None:
                return _of_others(imported, example_inputs)
        module = model if isinstance(model, nn.Module) else load_checkpoint(_path(model))
        if isinstance(module, MatMulFreeLM):
            return _language_model(module)
        _check_tensors(example_inputs)
        if not example_inputs:
            raise InputError(
                f"module {type(module).__name__}",
                "is not a MatMulFreeLM, so its inputs are unknown",
                "Pass example_inputs=(x,)",
            )
        inputs = tuple(example_inputs)
        rows = _Stateless(module) if isinstance(module, MLGRU) else module
        return cls(rows, inputs, tuple(cases_like(rows, inputs)))


def check_examples(inputs: tuple[Tensor, ...]) -> None:
    """Raise InputError on example inputs that only torch can run."""
    for k, x in enumerate(inputs):
        thing, rows = f"example input {k}", x.is_floating_point()
        if x.dtype not in (torch.float32, torch.int64):
            hint = "Pass float32" if rows else "Pass float32, or int64 for token ids"
            raise InputError(thing, f"is {x.dtype}", hint)
        if rows and not x.dim():
            raise InputError(thing, "is a tensor without dimensions", "Pass (..., width)")
        if not x.numel():
            raise InputError(thing, f"is empty, of shape {tuple(x.shape)}", "Pass at least one row")


def _check_tensors(inputs: object) -> None:
    """Raise InputError unless `inputs` are a tuple of tensors; None counts as an empty one."""
    thing, hint = "example_inputs", "Pass example_inputs=(x,)"
    if inputs is not None and not isinstance(inputs, tuple | list):
        raise InputError(thing, f"is a {type(inputs).__name__}, not a tuple of tensors", hint)
    for k, x in enumerate(inputs or ()):
        if not isinstance(x, Tensor):
            raise InputError(thing, f"item {k} is of type {type(x).__name__}, not a tensor", hint)


def _path(model: object) -> Path:
    if not isinstance(model, (str, os.PathLike)):
        cause = "is neither a path nor an nn.Module"
        hint = "Pass a checkpoint folder, a .onnx file or an nn.Module"
        raise InputError(f"model {model!r}", cause, hint)
    return Path(model)


def _of_others(read: Imported, example_inputs: tuple[Tensor, ...] | None) -> Source:
    """What was read from a file of another form; its inputs are known."""
    _check_tensors(example_inputs)
    inputs = tuple(example_inputs or read.examples)
    check_examples(inputs)
    with torch.no_grad():
        read.module(*inputs)  # a file may contradict itself, which no check of the graph would find
    return Source(
        read.module,
        inputs,
        tuple(cases_like(read.module, inputs)),
        model=dict(read.model),
        quantization=dict(read.quantization),
        tokenizer=read.tokenizer,
    )


def _language_model(module: MatMulFreeLM) -> Source:
    vocab_size = module.config.vocab_size
    path = module.tokenizer_path
    tokenizer, notes = _tokenizer(path, vocab_size) if path else (None, ())
    return Source(
        _Stateless(module),
        traced=(torch.zeros(2, 3, dtype=torch.int64),),
        compared=cases_of_ids(vocab_size),
        model=module.config.model_dump(),
        quantization=QUANTIZATION,
        tokenizer=tokenizer,
        notes=(*module.notes, *notes),
    )


class _Stateless(nn.Module):
    """A module that returns (rows, state) as a function of its rows alone."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        rows: Tensor = self.module(x)[0]
        return rows


def _tokenizer(path: Path, vocab_size: int) -> tuple[bytes, tuple[Note, ...]]:
    """tokenizer.json at `path`, and what is not followed in it.

    Raises CheckpointError when it cannot be read, is not valid, or does not fit the model.
    """
    try:
        text = path.read_bytes()
        if not Tokenizer.available():
            return text, ()
        tokenizer = Tokenizer(text)
        check_tokenizer(tokenizer, vocab_size)
    except ArtifactError as error:
        raise CheckpointError(str(path), error.cause, "Take the model's own tokenizer") from error
    except OSError as error:
        cause = f"cannot be read: {error.strerror or error}"
        raise CheckpointError(str(path), cause, "Check that it exists and is readable") from error
    off = tokenizer.switched_off
    return text, tuple(Note("load", path.name, f"{setting} is switched off") for setting in off)
