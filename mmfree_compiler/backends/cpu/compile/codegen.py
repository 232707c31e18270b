"""Compiling a Program to a shared library: TIR functions, LLVM, the link with the thread pool."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import tvm

from mmfree_compiler import debug
from mmfree_compiler.artifact import TensorEntry
from mmfree_compiler.backends.cpu.compile import multiply
from mmfree_compiler.backends.cpu.compile.isa import Isa
from mmfree_compiler.backends.cpu.compile.kernel import Kernel, emit
from mmfree_compiler.backends.cpu.compile.planned import PlannedProgram
from mmfree_compiler.backends.cpu.compile.toolchain import link
from mmfree_compiler.backends.cpu.layouts import LAYOUTS
from mmfree_compiler.interrupts import uninterrupted
from mmfree_compiler.temporary import temporary_folder

# Tokens per prefill call: whole tiles of matrix units, and enough of them to pay for unpacking.
CHUNK = 128
# These take more than half of TVM's time. Without them the object is the same, to the byte or, in
# prefill, except for some scalar instructions: emitted buffers are already compact, branches are
# already hoisted, there are no virtual threads, and `tirx.StmtSimplify` simplifies all of it again.
# That one takes half of the rest; without it prefill takes five times as long.
IDLE_PASSES = (
    "s_tir.CompactBufferAllocation",
    "s_tir.HoistIfThenElse",
    "s_tir.InjectPermutedLayout",
    "s_tir.InjectVirtualThread",
    "s_tir.RenormalizeSplitPattern",
    "s_tir.StmtSimplify",
    "tirx.RemoveNoOp",
)


def shows_code() -> bool:
    """Whether the user asked to see the generated code."""
    return debug.level() >= 3


def library(program: PlannedProgram, isa: Isa, tensors: Mapping[str, TensorEntry]) -> bytes:
    """The ELF library of one variant: functions "decode" and "prefill" (see run/launcher.py).

    `tensors` are the constants' places in weights.bin; their data is not read. Raises
    ToolchainError if the link fails.
    """
    return linked(compiled(program, isa, tensors), isa)


def linked(executable: tvm.runtime.Executable, isa: Isa) -> bytes:
    """The ELF library of compiled functions. Raises ToolchainError if the link fails."""
    with temporary_folder() as folder:
        code, output = folder / "kernels.o", folder / "kernels.so"
        executable.mod.write_to_file(str(code))
        link([code], output, isa.triple)
        return output.read_bytes()


def compiled(
    program: PlannedProgram, isa: Isa, tensors: Mapping[str, TensorEntry]
) -> tvm.runtime.Executable:
    """The functions of `library`: TVM's executable; its module has the object and the assembly."""
    kernels = (Kernel("decode", program, isa, 1), Kernel("prefill", program, isa, CHUNK))
    functions = {kernel.name: emit(kernel, tensors) for kernel in kernels}
    if not isa.matrices:
        layouts = {c.layout.name for c in program.constants.values()} & LAYOUTS.keys()
        functions |= multiply.functions(isa, layouts)
    if shows_code():
        for function in functions.values():
            print(function.script(), file=sys.stderr)
    return executable(functions, isa)


def executable(functions: Mapping[Any, tvm.tirx.PrimFunc], isa: Isa) -> tvm.runtime.Executable:
    """TIR functions compiled for an instruction set."""
    context = tvm.transform.PassContext(disabled_pass=list(IDLE_PASSES))
    with uninterrupted(), context:  # Ctrl-C in one of TVM's callbacks would raise a RuntimeError
        return tvm.compile(tvm.IRModule(dict(functions)), target=tvm.target.Target(isa.llvm))
