"""Calling a library of profiling.py: how long its functions take."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmfree_compiler.artifact import TensorEntry, aligned_empty
from mmfree_compiler.backends.cpu.compile import profiling
from mmfree_compiler.backends.cpu.compile.build import Job, Recipe
from mmfree_compiler.backends.cpu.compile.isa import tuned
from mmfree_compiler.backends.cpu.compile.planned import PlannedProgram
from mmfree_compiler.backends.cpu.facts import MemoryPlan
from mmfree_compiler.backends.cpu.run.ffi import tvm_ffi
from mmfree_compiler.backends.cpu.run.library import load_library, readable
from mmfree_compiler.backends.cpu.run.scratch import arenas
from mmfree_compiler.backends.cpu.strides import LINE
from mmfree_compiler.backends.explained import Group, Rates
from mmfree_compiler.building import cache
from mmfree_compiler.wording import counted

ROUNDS = 60  # the fastest one of each counts: other processes only make a round slower
ROUND_SECONDS = 0.004

Tensors = Mapping[str, TensorEntry]


@dataclass(frozen=True)
class Bench:
    """The functions of profiling.library, and `arguments` for one token of one sequence.

    `cells` are the int64 numbers of scratch (see profiling). `program` reads one layout, and its
    constants are at the places of `tensors`. `title` is the name of the variant.
    """

    program: PlannedProgram
    tensors: Tensors
    library: Any
    arguments: list[Any]
    cells: NDArray[np.int64]
    threads: int
    title: str

    @classmethod
    def of(
        cls,
        planned: PlannedProgram,
        tensors: Tensors,
        compiled: tuple[str, Recipe],
        rows: Iterable[NDArray[Any]],
        memory: MemoryPlan,
        threads: int,
    ) -> Bench:
        """For the variant and the recipe `compiled`.

        `rows` are the weights and what else a decode step's function takes in front of its arenas.
        """
        name, recipe = compiled
        job = Job.of(planned, tensors, {name: recipe})
        program, isa = job.read_by(name), tuned(name, recipe.tuning)
        key = cache.key(job.key(name), profiling.__name__)
        code = cache.get(key, lambda: profiling.library(program, isa, tensors))
        library = load_library(np.frombuffer(code, np.uint8))
        notes, stages = profiling.notes_bytes(program), sum(1 for _ in program.stages())
        scratch = aligned_empty(notes + LINE * threads, np.uint8)
        weights, *others = [*rows, *arenas(memory, threads)[:-1], scratch]
        arguments = [tvm_ffi.from_dlpack(readable(weights))]
        arguments += [tvm_ffi.from_dlpack(array.reshape(-1)) for array in others]
        cells = scratch[:notes].view(np.int64)[: profiling.HEADER + stages + 1]
        return cls(program, tensors, library, arguments, cells, threads, name)

    def groups(self) -> list[Group]:
        """The nodes of each stage."""
        stages = self.program.stages()
        return [tuple(node.outputs[0] for node in stage.nodes) for stage in stages]

    def call(self, name: str) -> None:
        """One call of a function."""
        self.library[name](*self.arguments, 1, 0, self.threads)

    def started(self) -> int:
        """The ticks at the end of a first decode step."""
        self.cells[:] = 0
        self.call(profiling.TIMED)
        return self.noted()

    def noted(self) -> int:
        """The ticks at the end of the last decode step."""
        return int(self.cells[0])

    def ticks(self) -> NDArray[np.float64]:
        """Ticks of each stage in a decode step, the mean of many."""
        ticks = self.cells[profiling.HEADER :]
        ticks[:] = 0
        calls = self._repeated(profiling.TIMED)
        return ticks[:-1] / len(calls)

    def seconds(self) -> list[float]:
        """Seconds of a call of each function of `work`, the fastest of many."""
        return [min(self._repeated(name)) for name in self.work()]

    def _repeated(self, name: str) -> list[float]:
        """The seconds of each of some calls."""
        found: list[float] = []
        while sum(found) < ROUND_SECONDS:
            start = time.perf_counter()
            self.call(name)
            found.append(time.perf_counter() - start)
        return found

    def work(self) -> dict[str, int]:
        """What a call of each function but the decode step reads or computes."""
        found = {profiling.COMPUTE: profiling.computed() * self.threads}
        if any(constant.role == "ternary" for constant in self.program.constants.values()):
            nbytes = profiling.read_span(self.program, self.tensors)[1]
            found[profiling.READ] = nbytes * profiling.readings(nbytes)
            found[profiling.MULTIPLY] = profiling.multiplied(self.program) * self.threads
        return found

    def rates(self, rounds: Iterable[list[float]]) -> Rates:
        """What bounds the same threads, by the fastest of `rounds` of `seconds`."""
        fastest = np.min(list(rounds), axis=0).tolist()
        work = self.work().items()
        found = {name: amount / s for (name, amount), s in zip(work, fastest, strict=True)}
        return Rates(
            f"measured on this machine with {counted(self.threads, 'thread')}: reading all "
            f"weights in turn, {self.title} products of weights in the first cache, fp32 products "
            "and sums in registers",
            nbytes=found.get(profiling.READ) or None,
            integers=found.get(profiling.MULTIPLY),
            floats=found[profiling.COMPUTE],
        )
