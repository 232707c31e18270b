"""Finding the fastest settings of a model's kernels on this machine, by trying them."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmfree_compiler import backends, compiler
from mmfree_compiler.backends.interface import Batch, Settings, Tunable
from mmfree_compiler.compiled_model import CompiledModel
from mmfree_compiler.errors import InputError, TargetError
from mmfree_compiler.runtime import Session
from mmfree_compiler.sources import Model
from mmfree_compiler.target import DEFAULT_TARGET, Target

# The calls to time, as (sequences, tokens per sequence).
TASKS = ((1, 1), (8, 1), (1, 128))
ROUNDS = 7
SAMPLE_SECONDS = 0.05  # the least duration of a sample
BETTER = 1.02  # the least gain that counts; smaller ones may be noise

Progress = Callable[[str], None]  # called with each combination of settings before it is tried


@dataclass(frozen=True)
class Trial:
    """One tried value of a setting; `gain` is its speed relative to the best settings so far."""

    setting: str
    value: int
    gain: float


@dataclass(frozen=True)
class Report:
    """The trials in order, and the settings kept. `target` is the variant of this machine."""

    target: str
    build: str
    trials: tuple[Trial, ...]
    settings: Settings


def tune(
    model: Model,
    kind: str = DEFAULT_TARGET,
    threads: int | None = None,
    progress: Progress = lambda _: None,
) -> Report:
    """Find the best settings for a language model's shapes, one setting at a time, and keep them.

    From then on `compile` uses them for these shapes on this machine. Raises InputError if the
    module is not a language model, TargetError if the target has no settings, and the errors of
    `compile`.
    """
    search = _Search.of(model, kind, threads, progress)
    best, trials = dict(search.maker.defaults(search.spec)), []
    for setting, values in search.maker.candidates(search.spec).items():
        others = [value for value in values if value != best[setting]]
        tried = [best, *({**best, setting: value} for value in others)]
        found = search.gains(tried)
        trials += [Trial(setting, *pair) for pair in zip(others, found[1:], strict=True)]
        first = tried[int(np.argmax(found))]
        # Measured again against the best alone: other processes may have disturbed the first run.
        if max(found) > BETTER and search.gains([best, first])[1] > BETTER:
            best = first
    return search.kept(best, tuple(trials))


@dataclass(frozen=True)
class _Search:
    """A compiled model, and the compiler that rebuilds it with other settings."""

    target: Target
    spec: Any
    maker: Tunable
    compiled: CompiledModel
    progress: Progress

    @classmethod
    def of(cls, model: Model, kind: str, threads: int | None, progress: Progress) -> _Search:
        parsed = Target.parse(kind)
        if parsed.options:
            cause = "names a build, and settings are for the best one of this machine"
            raise TargetError(f"target {kind!r}", cause, f"Write {parsed.kind}, without options")
        backend = backends.get(parsed.kind)
        spec, maker = backend.here(), backends.compiler(backend)
        target = Target(kind, str(spec))
        if not isinstance(maker, Tunable):
            raise TargetError(f"target {target}", "has no settings to tune", "Compile it as it is")
        compiled = compiler.compile(model, target, threads=threads, check=False)
        if compiled.artifact.manifest.kind != "lm":
            raise InputError("model", "is not a language model", "Pass a checkpoint folder of one")
        return cls(target, spec, maker, compiled, progress)

    def gains(self, tried: Sequence[Settings]) -> list[float]:
        """The speed with each of `tried`, relative to the first; 0 where this machine refuses it.

        Raises TargetError when it refuses the first.
        """
        first, *others = tried
        sessions = {0: self._session(first)}
        for index, settings in enumerate(others, 1):
            with suppress(TargetError):  # such as more shared memory than a GPU has
                sessions[index] = self._session(settings)
        found = dict(zip(sessions, _gains(list(sessions.values())), strict=True))
        return [found.get(index, 0.0) for index in range(len(tried))]

    def _session(self, settings: Settings) -> Session:
        """A session with other settings that has run every task."""
        self.progress(", ".join(f"{name} {value}" for name, value in settings.items()))
        artifact = self.maker.retuned(self.compiled.artifact, self.spec, settings)
        session = Session(artifact, self.compiled.threads)
        for task in TASKS:
            _step(session, *task)()
        return session

    def kept(self, settings: Settings, trials: tuple[Trial, ...]) -> Report:
        """Keep `settings` for the next compilations."""
        self.maker.keep(self.compiled.program, self.spec, settings)
        return Report(str(self.target), self.compiled.session.launcher.build, trials, settings)


def _gains(sessions: Sequence[Session]) -> list[float]:
    """The speed of each session relative to the first: the geometric mean over the tasks."""
    ratios = []
    for task in TASKS:
        seconds = _seconds([_step(session, *task) for session in sessions])
        ratios.append([seconds[0] / own for own in seconds])
    return [math.prod(own) ** (1 / len(TASKS)) for own in zip(*ratios, strict=True)]


def _step(session: Session, sequences: int, tokens: int) -> Callable[[], object]:
    """A call as in decoding and prefill, with logits of the last token of each sequence."""
    states = session.launcher.states(sequences)
    count = sequences * tokens
    slots = np.repeat(np.arange(sequences, dtype=np.int32), tokens)
    positions = np.tile(np.arange(tokens), sequences)
    last = np.arange(tokens - 1, count, tokens)
    batch = Batch((np.zeros(count, np.int64),), slots, positions, last)
    return lambda: session.launcher.run(batch, states)


def _seconds(steps: Sequence[Callable[[], object]]) -> list[float]:
    """The median seconds of each step. Every round runs all steps, so that load affects each."""
    samples: list[list[float]] = [[] for _ in steps]
    for _ in range(1 + ROUNDS):
        for step, own in zip(steps, samples, strict=True):
            own.append(_sample(step))
    return [statistics.median(own[1:]) for own in samples]  # the first round is a warm-up


def _sample(step: Callable[[], object]) -> float:
    start, count = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - start) < SAMPLE_SECONDS or not count:
        step()
        count += 1
    return elapsed / count
