"""Measuring a decode step, stage by stage, on this machine."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmfree_compiler.artifact import Artifact, aligned_empty
from mmfree_compiler.backends.cpu.choose import choose
from mmfree_compiler.backends.cpu.compile.bench import ROUNDS, Bench
from mmfree_compiler.backends.cpu.compile.build import Recipe
from mmfree_compiler.backends.cpu.compile.planned import PlannedProgram
from mmfree_compiler.backends.cpu.compile.tuning import Tuning
from mmfree_compiler.backends.cpu.run.launcher import BYTES_PER_THREAD
from mmfree_compiler.backends.cpu.run.states import CpuStates
from mmfree_compiler.backends.cpu.strides import float_stride
from mmfree_compiler.backends.explained import Profile
from mmfree_compiler.threads import resolve_threads


def profile(artifact: Artifact, threads: int | None) -> Profile:
    """See explained.Profiler."""
    bench = _bench(artifact, resolve_threads(threads))
    begun, first = time.perf_counter(), bench.started()
    rounds = [(bench.ticks(), bench.seconds()) for _ in range(ROUNDS)]
    tick = (time.perf_counter() - begun) / (bench.noted() - first)
    stages = tick * np.min([ticks for ticks, _ in rounds], axis=0)
    return Profile(
        float(stages.sum()),
        dict(zip(bench.groups(), stages.tolist(), strict=True)),
        threads=bench.threads,
        rates=bench.rates(seconds for _, seconds in rounds),
    )


def _bench(artifact: Artifact, threads: int) -> Bench:
    """Of the build for this machine."""
    build, planned, tensors = choose(artifact.entry), artifact.program, artifact.entry.tensors
    assert isinstance(planned, PlannedProgram)
    facts = build.facts
    packed = sum(t.nbytes for t in tensors.values() if t.layout == facts.layout)
    team = min(threads, 1 + packed // BYTES_PER_THREAD)
    recipe = Recipe(facts.layout, Tuning(**facts.tuning))
    rows = [artifact.weights, *_rows(artifact)]
    return Bench.of(planned, tensors, (build.name, recipe), rows, facts.memory, team)


def _rows(artifact: Artifact) -> list[NDArray[Any]]:
    """Rows of inputs or of tables, of outputs, the slot and the state of one token."""
    manifest, tensors = artifact.manifest, artifact.entry.tensors
    tables = [artifact.table(name) for name, t in tensors.items() if t.role == "table"]
    zero = np.zeros(1, np.int64)
    rows: list[NDArray[Any]] = [
        table.read(zero, aligned_empty((1, *table.row_shape), np.uint8)) for table in tables
    ]
    floats = [port for port in manifest.inputs if port.dtype == "float32"]
    rows += [np.ones(float_stride(port.width), np.float32) for port in floats]
    rows += [aligned_empty(float_stride(port.width), np.float32) for port in manifest.outputs]
    states = CpuStates.zero(manifest.states, 1)
    return [*rows, np.zeros(1, np.int32), states.array]
