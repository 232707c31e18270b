"""Where a compiled model's time goes: `python benchmarks/shares.py model.mmfree`.

A session with one thread repeats each task. A timer interrupts it, and each sample counts for the
stage and the part of it that the interrupted instruction belongs to (disassembly.py). Stages are
those of docs/targets/cpu.md, and the last one is the head. It needs Linux on x86-64 and objdump.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import tempfile
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.disassembly import Function, functions, return_addresses
from benchmarks.native import compiled
from benchmarks.peers.mmfree import Mmfree
from mmfree_compiler.runtime import Session

SOURCE = Path(__file__).with_name("sampling.c")
INTERVAL = 1000  # microseconds of CPU time
PARTS = ("rows", "products", "epilogue")

Place = tuple[int, str]  # a stage, from 0, and a part of it
OUTSIDE: Place = (-1, "outside")  # the runtime above the kernels, NumPy and Python


def main(
    model: Annotated[Path, typer.Argument(help="A model.mmfree.")],
    tasks: Annotated[str, typer.Option()] = "decode-1,decode-8,prefill-128",
    seconds: Annotated[float, typer.Option(help="Length of each measurement.")] = 10.0,
    output: Annotated[Path, typer.Option()] = Path("build/bench/shares.json"),
) -> None:
    """Print the shares of each task's time; write them as JSON."""
    opened, found = Mmfree(model, threads=1), {}
    with tempfile.TemporaryDirectory() as folder:
        sampler, kernels = Sampler(Path(folder)), Kernels(opened.session)
        for task in tasks.split(","):
            kind, _, size = task.partition("-")
            step = opened.steps[kind](int(size))
            places = Counter(map(kernels.place, sampler.samples(step, seconds)))
            found[task] = places
            Console().print(_table(task, places))
    output.parent.mkdir(parents=True, exist_ok=True)
    written = {task: _json(places) for task, places in found.items()}
    output.write_text(json.dumps(written, indent=1) + "\n")


class Sampler:
    """sampling.c, compiled into `folder`."""

    def __init__(self, folder: Path) -> None:
        self._code = compiled(SOURCE, folder)
        self._code.sampling_start.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_int]
        self._code.sampling_stop.restype = ctypes.c_int64
        self._words = ctypes.c_int.in_dll(self._code, "sampling_words").value

    def samples(self, step: Callable[[], object], seconds: float) -> NDArray[np.uint64]:
        """What the handler noted while `step` was repeated, a row of addresses per sample.

        The first is the instruction's; the others are the top of the stack.
        """
        room = int(2e6 * seconds / INTERVAL)
        buffer = np.zeros((room, self._words), np.uint64)
        step()
        if self._code.sampling_start(buffer.ctypes.data, room, INTERVAL):
            raise OSError("the system gives no timer")
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            step()
        return buffer[: self._code.sampling_stop()]


class Kernels:
    """The code of a session's library, by address."""

    def __init__(self, session: Session) -> None:
        self._first, self._last = _mapped()
        self._functions = functions(_disassembled(session))
        self._starts = [function.first for function in self._functions]
        self._callers = return_addresses(self._functions)

    def place(self, sample: NDArray[np.uint64]) -> Place:
        """The stage and the part that a sample counts for."""
        at, *stack = (int(word) - self._first for word in sample)
        if not 0 <= at < self._last - self._first:
            return OUTSIDE
        function = self._function(at)
        # A function for products alone belongs to the stage that called it.
        callers = self._callers.get(function.first, set())
        caller = next((word for word in stack if word in callers), at)
        return self._function(caller).stage(caller), function.part(at)

    def _function(self, at: int) -> Function:
        return self._functions[max(bisect_right(self._starts, at) - 1, 0)]


def _mapped() -> tuple[int, int]:
    """The addresses of the loaded library: of its first byte, and behind its last."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    ranges = [line.split()[0].split("-") for line in lines if "mmfree-kernels" in line]
    return int(ranges[0][0], 16), int(ranges[-1][1], 16)


def _disassembled(session: Session) -> str:
    code = session.artifact.members[f"kernels/{session.launcher.build}.so"]
    with tempfile.NamedTemporaryFile(suffix=".so") as file:
        file.write(code.tobytes())
        file.flush()
        command = ["objdump", "-d", "--no-show-raw-insn", file.name]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _table(task: str, places: Counter[Place]) -> Table:
    table, total = Table(task, *PARTS, "together", box=None), places.total()
    stages = sorted({stage for stage, part in places if part in PARTS})
    for stage in stages:
        counts = [places[stage, part] for part in PARTS]
        table.add_row(f"stage {stage + 1}", *(f"{x / total:.1%}" for x in (*counts, sum(counts))))
    counts = [sum(places[stage, part] for stage in stages) for part in PARTS]
    table.add_row("all stages", *(f"{x / total:.1%}" for x in (*counts, sum(counts))))
    return table


def _json(places: Counter[Place]) -> dict[str, float]:
    total = places.total()
    return {f"stage {stage + 1}, {part}": n / total for (stage, part), n in sorted(places.items())}


if __name__ == "__main__":
    typer.run(main)
