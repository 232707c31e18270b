"""Timing the ops of a decode step in ONNX Runtime.

Its own profiler takes several times longer than a small operator: with it, a step of a small model
takes ten times as long, and most of what it shows is its own work. So the calls of each node of the
Program are a model of their own. These models and the whole one run in turns: each finds the caches
as the others left them, as in a step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mmfree_compiler.artifact import Artifact
from mmfree_compiler.backends.explained import Group, Profile, one_token
from mmfree_compiler.backends.onnx.compile.parts import NOTHING, Arrays, Parts
from mmfree_compiler.backends.onnx.facts import MODEL
from mmfree_compiler.backends.onnx.run.engine import Engine
from mmfree_compiler.backends.onnx.run.launcher import OnnxLauncher, Piece, engine_of
from mmfree_compiler.threads import resolve_threads

FEWEST, MOST, MOST_SECONDS = 5, 300, 3.0  # rounds, of which the fastest one counts
REST = "states, the call, and what no op takes alone"

Run = Callable[[], None]
Open = Callable[[NDArray[np.uint8]], Engine]


def profile(artifact: Artifact, threads: int | None) -> Profile:
    """See explained.Profiler: with the usual provider and optimizations."""
    program, (build,) = artifact.program, artifact.entry.builds
    assert program is not None
    launcher = OnnxLauncher.open(artifact, threads)
    token = Piece(np.zeros(1, np.int32), np.zeros((1, 1), np.intp))
    inputs = launcher.inputs(one_token(artifact), launcher.states(1), token)
    parts = Parts(artifact.members[build.members[MODEL]], program)
    # Threads of one model that wait for its next run would take the CPUs from the others.
    opened = partial(engine_of, artifact, threads=threads, waiting=False)
    runs = dict(_runs(parts, opened, inputs))
    nothing = opened(parts.nothing()).prepared(NOTHING)
    between = (each for run in runs.values() for each in (nothing, run))
    step = launcher.engine.prepared(inputs)
    first, second, *seconds = _fastest([step, step, *between])  # one step follows another
    whole = min(first, second)
    groups = _alone(runs, seconds[1::2], min(seconds[::2]))
    rest = whole - sum(groups.values())
    return Profile(whole, groups, {REST: rest}, threads=resolve_threads(threads))


def _alone(names: Iterable[str], seconds: Iterable[float], least: float) -> dict[Group, float]:
    """Without the `least` that any call takes."""
    return {(name,): max(0.0, each - least) for name, each in zip(names, seconds, strict=True)}


def _runs(parts: Parts, opened: Open, inputs: Arrays) -> Iterator[tuple[str, Run]]:
    """A node's first output, and what runs all its calls."""
    inside = [name for name in parts.read() if name not in inputs]
    values = dict(inputs)
    values.update(zip(inside, opened(parts.showing(inside)).run(inputs, inside), strict=True))
    for name, model, read in parts.each(values):
        yield name, opened(model).prepared({row: values[row] for row in read})


def _fastest(runs: Sequence[Run]) -> list[float]:
    """The seconds of each, in rounds of all."""
    rounds: list[list[float]] = []
    until = time.perf_counter() + MOST_SECONDS
    while len(rounds) < FEWEST or (len(rounds) < MOST and time.perf_counter() < until):
        rounds.append([_seconds(run) for run in runs])
    return [float(seconds) for seconds in np.min(rounds, axis=0)]


def _seconds(run: Run) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin
