"""Timing the ops of a decode step in the interpreter."""

from __future__ import annotations

import time
from collections import defaultdict
from itertools import pairwise
from statistics import median

import torch

from mmfree_compiler.artifact import Artifact
from mmfree_compiler.backends.explained import Group, Profile, one_token
from mmfree_compiler.backends.numpy_states import NumpyStates
from mmfree_compiler.backends.reference.interpreter import interpret
from mmfree_compiler.backends.reference.launcher import ReferenceLauncher

FEWEST, MOST_SECONDS = 5, 1.0  # of steps, after a first one
_IN_FRONT: Group = ()  # of the first node


def profile(artifact: Artifact) -> Profile:
    """See explained.Profiler: the median of each op's times in some steps."""
    launcher = ReferenceLauncher.open(artifact)
    states = launcher.states(1)
    _step(launcher, states)
    steps: list[dict[Group, float]] = []
    until = time.perf_counter() + MOST_SECONDS
    while len(steps) < FEWEST or time.perf_counter() < until:
        steps.append(_step(launcher, states))
    times = {group: median(step[group] for step in steps) for group in steps[0]}
    others = {"reading inputs": times.pop(_IN_FRONT)}
    decode = sum(times.values()) + sum(others.values())
    return Profile(decode, times, others, threads=torch.get_num_threads())


def _step(launcher: ReferenceLauncher, states: NumpyStates) -> dict[Group, float]:
    """The seconds of each node in a step, all its iterations together."""
    batch = one_token(launcher.artifact)
    begins = [(_IN_FRONT, time.perf_counter())]
    interpret(
        launcher.program,
        batch,
        states.arrays,
        lambda node: begins.append((node.outputs[:1], time.perf_counter())),
    )
    begins.append((_IN_FRONT, time.perf_counter()))
    seconds: dict[Group, float] = defaultdict(float)
    for (group, begin), (_, end) in pairwise(begins):
        seconds[group] += end - begin
    return seconds
