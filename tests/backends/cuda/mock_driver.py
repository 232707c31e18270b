"""Runs Python with the driver of mock_driver.c.

In a process of its own, since cuda-bindings looks for a driver once.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mmfree_compiler.backends.cpu.compile.toolchains import TOOLCHAINS, host_triple

SOURCE = Path(__file__).with_suffix(".c")
# Every script begins with this. `said(function)` is the error that a call raises.
PRELUDE = """
import gc, os, sys
import numpy as np
from cuda.bindings import driver as cu
from mmfree_compiler.backends.cuda.run import device as devices, driver
from mmfree_compiler.backends.cuda.run.graphs import Graph
from mmfree_compiler.backends.cuda.run.kernels import Kernel, Module
from mmfree_compiler.backends.cuda.run.memory import DeviceMemory, PinnedMemory, allocate
from mmfree_compiler.backends.cuda.run.streams import Event, Stream

def said(function, *arguments):
    try:
        return f"no error: {function(*arguments)!r}"
    except Exception as error:  # what was raised is what is tested
        return f"{type(error).__name__}: {error}"
"""


@dataclass(frozen=True)
class Ran:
    """What a script printed, the calls of the driver, and what it left unfreed, by kind."""

    printed: list[str]
    calls: list[str]
    left: dict[str, int]

    def of(self, *names: str) -> list[str]:
        """The lines of calls of these functions; "run" is a kernel that a graph runs."""
        return [line for line in self.calls if line.split(" ")[0] in names]


@cache
def _library() -> tempfile.TemporaryDirectory[str]:
    """The folder of the compiled driver, for as long as the tests run."""
    folder = tempfile.TemporaryDirectory()
    # The system's compiler is far faster, where there is one.
    found = (TOOLCHAINS[name] for name in ("system", "zig") if TOOLCHAINS[name].find())
    command = [*next(found).command(host_triple()), "-shared", "-fPIC", "-w", str(SOURCE)]
    subprocess.run([*command, "-o", f"{folder.name}/libcuda.so.1"], check=True)
    return folder


def run(script: str, **variables: str) -> Ran:
    """Run a script with the driver, told `variables`."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        found = {"LD_LIBRARY_PATH": _library().name, "MOCK_LOG": str(log)}
        result = subprocess.run(
            [sys.executable, "-c", PRELUDE + script],
            env=os.environ | found | variables,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        calls = [line for line in log.read_text().splitlines() if not line.startswith("left ")]
        ends = [line.split() for line in log.read_text().splitlines()[len(calls) :]]
    return Ran(result.stdout.splitlines(), calls, {kind: int(count) for _, kind, count in ends})
