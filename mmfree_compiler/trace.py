"""Tracing an nn.Module to a functional ATen graph that shares the module's parameters."""

from __future__ import annotations

import inspect
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.utils import _pytree as pytree

from mmfree_compiler import repeats
from mmfree_compiler.adapters import adapted
from mmfree_compiler.assumptions.examples import check_number, check_runs
from mmfree_compiler.assumptions.exporting import Unaware
from mmfree_compiler.assumptions.memory import KeptStateError, watched, without_memory
from mmfree_compiler.assumptions.operations import check_operations
from mmfree_compiler.assumptions.sizes import check_sizes, unknown
from mmfree_compiler.errors import InputError, TraceError
from mmfree_compiler.inplace import functional, writes_through
from mmfree_compiler.interrupts import uninterrupted
from mmfree_compiler.modes import evaluating
from mmfree_compiler.origin import name_modules, raising_place
from mmfree_compiler.wording import described

# Loggers that write down failures which are raised too -> the level from which they may.
_LOUD = {
    "torch.fx.experimental.symbolic_shapes": logging.ERROR,
    "torch._subclasses.fake_tensor": logging.CRITICAL,
}
_ENDS_STRINGS = re.compile(r'["\\\x00-\x1f\ud800-\udfff]')
# What code that needs a value gets told, by whether it compares the value.
_NEEDS = {
    True: (
        "branches on the value of a tensor, which is not known before the model runs",
        "Compute both sides and choose with torch.where",
    ),
    False: (
        "needs the value of a tensor as a Python number, which is not known before the model runs",
        "Compute with the tensor itself, and take sizes from shapes",
    ),
}


def trace(
    module: nn.Module, example_inputs: tuple[Tensor, ...], dynamic: bool = True
) -> GraphModule:
    """Trace `module` in inference mode into a functional graph of ATen and mmfree ops.

    `example_inputs` are positional: float tensors (..., width), integer tensors (...). With
    `dynamic`, all leading dimensions are dynamic. Parameters and buffers are `get_attr` nodes that
    share the module's storage; every node keeps `val` (a fake tensor) and its stack trace.

    Raises TraceError, which names a line of the module, when torch.export cannot trace it or what
    was traced holds for some sizes only, and on names of parameters that torch cannot handle;
    InputError when an example is not a tensor or the module does not take the examples.
    """
    for k, example in enumerate(example_inputs):
        if not isinstance(example, Tensor):
            cause = f"is of type {type(example).__name__}, not a tensor"
            raise InputError(f"example input {k}", cause)
    check_number(module, example_inputs)
    _check_names(module)
    inputs = tuple(_grown(x) for x in example_inputs) if dynamic else example_inputs
    # no_grad saves a third of the time: nothing is recorded for a backward pass.
    # Ctrl-C is deferred: torch prints and drops exceptions that its Python callbacks raise.
    with evaluating(module), torch.no_grad(), uninterrupted(), unknown():
        try:
            shared = _trace_shared(module, inputs, dynamic)
            graph = shared or functional(_export(module, inputs, dynamic))
        except KeptStateError:  # possibly used up by the call that traced it
            raise
        except TraceError:
            check_runs(module, example_inputs)
            raise
    name_modules(graph, module)
    return graph


def _check_names(module: nn.Module) -> None:
    """Raise TraceError on names that end the strings which torch writes them into as code."""
    for name, _ in (*module.named_parameters(), *module.named_buffers()):
        if _ENDS_STRINGS.search(name):
            cause = "has a quotation mark, a backslash or a control character in its name"
            raise TraceError(f"parameter {name!r}", cause, "Name its module in another way")


def _trace_shared(
    module: nn.Module, inputs: tuple[Tensor, ...], dynamic: bool
) -> GraphModule | None:
    """Trace equal submodules once; None if there are no equal ones or copies may be inexact."""
    try:
        with repeats.shared(module) as sharing:
            if not sharing.signatures:
                return None
            program = _export_once(module, inputs, dynamic)
        _check(program)
        if writes_through(program):  # possibly one module's write into another's values
            return None
        return repeats.inline(functional(program), sharing)
    except TraceError:
        raise
    except Exception:  # tracing without sharing succeeds, or fails in the user's own code
        return None


def _export(module: nn.Module, inputs: tuple[Tensor, ...], dynamic: bool) -> ExportedProgram:
    try:
        program = _export_once(module, inputs, dynamic)
    except TraceError:
        raise
    except Exception:  # torch.export raises many types, and so does a layer's own code
        try:
            with adapted(module) as plain:
                program = _export_once(plain, inputs, dynamic)
        except TraceError:
            raise
        except Exception as error:
            raise _untraceable(error, module) from error
    _check(program)
    return program


def _untraceable(error: Exception, module: nn.Module) -> TraceError:
    """What torch.export raised, in the words of somebody who wrote the module."""
    place = raising_place(error, module)
    if isinstance(error, GuardOnDataDependentSymNode):
        return TraceError(place, *_NEEDS[bool(getattr(error.cond, "is_Relational", False))])
    hint = "Write its forward in torch ops, and its recurrences with torch.ops.mmfree.mlgru_scan"
    return TraceError(place, f"torch.export failed: {described(error)}", hint)


def _check(program: ExportedProgram) -> None:
    """Raise TraceError unless the program computes what its module does at every call."""
    check_operations(program)
    check_sizes(program, writes_through(program))


def _export_once(module: nn.Module, inputs: tuple[Tensor, ...], dynamic: bool) -> ExportedProgram:
    bound = inspect.signature(module.forward).bind(*inputs).arguments
    hints = pytree.tree_map(_free_leading, dict(bound)) if dynamic else None
    export = partial(torch.export.export, module, inputs, dynamic_shapes=hints, strict=False)
    with _quiet(), watched(module, Unaware()):
        return without_memory(module, export)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch from printing: what it says about a failed export is in the error."""
    levels = {logging.getLogger(name): level for name, level in _LOUD.items()}
    before = {logger: logger.level for logger in levels}
    silent = mock.patch("torch.export._trace.print", create=True)
    try:
        for logger, level in levels.items():
            logger.setLevel(level)
        with warnings.catch_warnings(action="ignore"), silent:
            yield
    finally:
        for logger, level in before.items():
            logger.setLevel(level)


def _leading(x: Tensor) -> int:
    """Number of leading dimensions: rows of floats have a width, token ids do not."""
    return x.dim() - 1 if x.is_floating_point() else x.dim()


def _grown(x: Tensor) -> Tensor:
    """`x` with leading dimensions of 1 doubled: torch.export would fix a size of 1."""
    times = [2 if k < _leading(x) and size == 1 else 1 for k, size in enumerate(x.shape)]
    return x.repeat(times)


def _free_leading(x: Tensor) -> tuple[Any, ...]:
    return tuple(Dim.AUTO if k < _leading(x) else Dim.STATIC for k in range(x.dim()))
