"""From a Program to a shared library: TIR functions, LLVM, the link with the thread pool."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import tvm

from mmfree_compiler.backends.cpu import multiply
from mmfree_compiler.backends.cpu.isa import Isa
from mmfree_compiler.backends.cpu.kernel import Kernel, emit
from mmfree_compiler.backends.cpu.toolchain import link
from mmfree_compiler.interrupts import uninterrupted
from mmfree_compiler.layouts import LAYOUTS
from mmfree_compiler.program import Program

CHUNK = 128  # tokens a prefill call takes: unpacking the weights hides behind the products


def library(program: Program, isa: Isa, offsets: dict[str, int]) -> bytes:
    """The ELF library of one variant: functions "decode" and "prefill" (see runtime/cpu.py).

    `offsets` are the constants' places in weights.bin, in bytes. Raises ToolchainError when the
    link fails.
    """
    kernels = (Kernel("decode", program, isa, 1), Kernel("prefill", program, isa, CHUNK))
    functions = {kernel.name: emit(kernel, offsets) for kernel in kernels}
    if not isa.matrices:
        layouts = {c.layout for c in program.constants.values()} & LAYOUTS.keys()
        functions |= multiply.functions(isa, layouts)
    if int(os.environ.get("MMFREE_DEBUG") or 0) >= 3:
        for function in functions.values():
            print(function.script(), file=sys.stderr)
    with uninterrupted():  # Ctrl-C inside a callback of TVM's would come out as a RuntimeError
        executable = tvm.compile(tvm.IRModule(functions), target=tvm.target.Target(isa.llvm))
    with tempfile.TemporaryDirectory(prefix="mmfree-") as folder:
        code, output = Path(folder, "kernels.o"), Path(folder, "kernels.so")
        executable.mod.write_to_file(str(code))
        link([code], output, isa.triple)
        return output.read_bytes()
