"""What the device library becomes; only the processes of triton_process.py import this."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import triton
from library_kernels import FUNCTIONS, every_function, single
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas
from triton.compiler import ASTSource

POINTERS = dict.fromkeys(["x", "y", "z", "weights", "out", "scales"], "*fp32")
SIGNATURE = POINTERS | {"q": "*i8", "sums": "*i32"}
KERNELS: list[tuple[Any, dict[str, Any]]] = [
    (every_function, {**FUNCTIONS, "BLOCK": 1024}),
    (single, {"K": 2047, "BLOCK": 2048}),
]


def instructions(capability: int) -> tuple[set[str], int]:
    """All PTX instructions of the library for sm_<capability>, and the bytes that ptxas spills."""
    target = GPUTarget("cuda", capability, 32)
    found: set[str] = set()
    spilled = 0
    for kernel, constants in KERNELS:
        signature = {name: SIGNATURE.get(name, "constexpr") for name in kernel.arg_names}
        by_place = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
        source = ASTSource(kernel, signature, by_place)
        ptx = triton.compile(source, target, {"enable_fp_fusion": False}).asm["ptx"]
        found |= instructions_of(ptx)
        spilled += spilled_bytes(ptx, capability)
    return found, spilled


def instructions_of(ptx: str) -> set[str]:
    """The names of a kernel's instructions."""
    return set(re.findall(r"\b[a-z]\w*(?:\.\w+)+(?=\s)", ptx))


def spilled_bytes(ptx: str, capability: int) -> int:
    """What ptxas spills when it assembles a kernel."""
    (architecture,) = re.findall(r"\.target (\w+)", ptx)
    with TemporaryDirectory() as folder:
        path = Path(folder, "kernel.ptx")
        path.write_text(ptx)
        tool = [get_ptxas(capability).path, "-v", "--fmad=false", f"--gpu-name={architecture}"]
        command = [*tool, str(path), "-o", str(path.with_suffix(".cubin"))]
        log = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    return sum(int(size) for size in re.findall(r"(\d+) bytes spill", log))
