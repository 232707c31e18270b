"""Finding the fastest settings of a model's kernels on this CPU, by trying them."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mmfree_compiler import compiler
from mmfree_compiler.backends.cpu import retuned
from mmfree_compiler.backends.cpu.isa import ISAS, Isa
from mmfree_compiler.backends.cpu.tuning import CANDIDATES, Tuning, keep
from mmfree_compiler.errors import InputError
from mmfree_compiler.runtime import Session
from mmfree_compiler.runtime.cpu_features import VARIANTS, lacks, processor
from mmfree_compiler.runtime.state import State
from mmfree_compiler.runtime.threads import resolve_threads

# What settings are judged by, as (sequences, tokens of each) of a call.
TASKS = ((1, 1), (8, 1), (1, 128))
ROUNDS = 7
SAMPLE_SECONDS = 0.05  # at least, for a sample of a task
BETTER = 1.02  # what is gained by less may be noise

Progress = Callable[[str], None]  # told of each setting that is tried


@dataclass(frozen=True)
class Trial:
    """One value of a setting; `gain` is the speed of the best settings before times so much."""

    setting: str
    value: int
    gain: float


@dataclass(frozen=True)
class Report:
    """What was tried, in order, and what is kept."""

    processor: str
    variant: str
    threads: int
    trials: tuple[Trial, ...]
    tuning: Tuning


def tune(
    model: compiler.Model, threads: int | None = None, progress: Progress = lambda _: None
) -> Report:
    """Search settings for a language model's shapes, one after the other, and keep the best.

    From then on `compile` takes them for these shapes on this CPU. Raises InputError on a module
    that is no language model, and what `compile` raises.
    """
    variant = next(name for name, variant in VARIANTS.items() if not lacks(variant))
    count = resolve_threads(threads)
    compiled = compiler.compile(model, f"cpu:{variant}", threads=count)
    if compiled.artifact.manifest.kind != "lm":
        raise InputError("model", "no language model", "Tune a checkpoint")
    isa = ISAS[variant]
    best, trials = isa.tuning, []
    for setting in _settings(isa):
        others = [value for value in CANDIDATES[setting] if value != getattr(best, setting)]
        tried = [replace(best, **{setting: value}) for value in others]
        gains = _gains(compiled, [best, *tried], count, progress)
        trials += [Trial(setting, *pair) for pair in zip(others, gains[1:], strict=True)]
        first = [best, *tried][int(np.argmax(gains))]
        # Once more, alone with the best: something else may have run at the first time.
        if max(gains) > BETTER and _gains(compiled, [best, first], count, progress)[1] > BETTER:
            best = first
    keep(compiled.program, variant, best)
    return Report(processor(), variant, count, tuple(trials), best)


def _settings(isa: Isa) -> tuple[str, ...]:
    return ("prefetch",) if isa.matrices else ("prefetch", "tokens")


def _gains(
    compiled: compiler.CompiledModel, tunings: Sequence[Tuning], threads: int, progress: Progress
) -> list[float]:
    """The speed with each of `tunings` over that with the first: the mean over the tasks."""
    sessions = []
    for tuning in tunings:
        progress(str(tuning))
        sessions.append(Session(retuned(compiled.artifact, compiled.program, tuning), threads))
    ratios = []
    for task in TASKS:
        seconds = _seconds([_step(session, *task) for session in sessions])
        ratios.append([seconds[0] / own for own in seconds])
    return [math.prod(own) ** (1 / len(TASKS)) for own in zip(*ratios, strict=True)]


def _step(session: Session, sequences: int, tokens: int) -> Callable[[], object]:
    """A call as decoding and prefill make it; logits of the last token of each sequence."""
    model = session.language_model
    states = State.stack([model.fork(None, 1)] * sequences).array
    ids = np.zeros(sequences * tokens, np.int64)
    slots = np.repeat(np.arange(sequences, dtype=np.int32), tokens)
    return lambda: model.advance(ids, slots, states, first=ids.size - sequences)


def _seconds(steps: Sequence[Callable[[], object]]) -> list[float]:
    """Medians over rounds in which each step has its turn, so that all meet the same machine."""
    samples: list[list[float]] = [[] for _ in steps]
    for _ in range(1 + ROUNDS):
        for step, own in zip(steps, samples, strict=True):
            own.append(_sample(step))
    return [statistics.median(own[1:]) for own in samples]  # the first only warms up


def _sample(step: Callable[[], object]) -> float:
    start, count = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - start) < SAMPLE_SECONDS or not count:
        step()
        count += 1
    return elapsed / count
