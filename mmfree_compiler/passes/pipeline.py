"""Running passes one after another, with observers that print, time and check."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor
from torch.fx import GraphModule

from mmfree_compiler import debug
from mmfree_compiler.errors import MmfreeError
from mmfree_compiler.explain import listing
from mmfree_compiler.program import Program
from mmfree_compiler.program_rules import verify
from mmfree_compiler.program_text import listing as program_listing

S = TypeVar("S")


class Pass(Protocol[S]):
    """A frozen dataclass: its `name`, its options as fields, one call."""

    @property
    def name(self) -> str: ...

    def __call__(self, subject: S, /) -> S: ...


class Observer(Protocol):
    """Called with the subject before the first pass ("input"), and after each with its seconds.

    The compiler also calls it when another stage begins: "check" and "trace" with the module,
    "check" and "emit" with the final Program.
    """

    def __call__(self, name: str, subject: Any, seconds: float) -> None: ...


def run(passes: Iterable[Pass[S]], subject: S, observers: Iterable[Observer] = ()) -> S:
    """`subject` after all `passes`, in order; a Program is verified after each.

    MMFREE_DEBUG=1 prints each pass's time to stderr, 2 also its result.
    """
    watching = [*_debug_observers(), _verify, *observers]
    tell(watching, "input", subject)
    for step in passes:
        start = time.perf_counter()
        subject = step(subject)
        tell(watching, step.name, subject, time.perf_counter() - start)
    return subject


def tell(observers: Iterable[Observer], name: str, subject: Any, seconds: float = 0.0) -> None:
    """Call all `observers`."""
    for observer in observers:
        observer(name, subject, seconds)


def _debug_observers() -> tuple[Observer, ...]:
    times = (print_times,) if debug.level() >= 1 else ()
    subjects = (print_subject,) if debug.level() >= 2 else ()
    return (*times, *subjects)


def print_times(name: str, subject: Any, seconds: float) -> None:
    """One line per pass on stderr."""
    size = f"{len(subject.graph.nodes):6} nodes" if isinstance(subject, GraphModule) else ""
    print(f"{name:<20} {seconds * 1e3:9.1f} ms {size}", file=sys.stderr)


def print_subject(name: str, subject: Any, seconds: float) -> None:
    """The graph or Program after each pass, on stderr."""
    shown = listing(subject) if isinstance(subject, GraphModule) else program_listing(subject)
    print(f"--- {name} ({seconds:.3f} s)\n{shown}", file=sys.stderr)


def _verify(name: str, subject: Any, seconds: float) -> None:  # noqa: ARG001 - an Observer
    if isinstance(subject, Program):
        verify(subject, name)


def no_noise() -> float:
    """Rounding moves no output."""
    return 0.0


@dataclass(frozen=True)
class Tolerance:
    """How far outputs may differ, in parts of their norm.

    A pass may move a value by fp32 rounding; where that crosses a .5 edge one activation code of
    127 flips, and the next layers' codes with it. The noise of int8 codes bounds what comes of it:
    `bound` is enough for models that damp it. Deep models of random weights amplify it. `noise`
    says how far rounding alone moves the outputs of this model; it is called only when outputs
    differ by more than `bound`. A wrong weight, eps or gate moves them by tens of percent.
    """

    bound: float = 2e-2
    noise: Callable[[], float] = no_noise

    def accepts(self, error: float) -> bool:
        return error <= self.bound or error <= min(_MOST_NOISE, _NOISE_MARGIN * self.noise())


_NOISE_MARGIN = 3  # one sample of the noise, and another of the difference
_MOST_NOISE = 0.5  # beyond it any two models would be alike


@dataclass
class NumericCheck:
    """An observer that runs each graph or Program and compares its outputs with the previous ones.

    `run` is how: a subject in, its outputs out. `expected` are the outputs to begin with, if any.
    Raises MmfreeError that names the pass when outputs differ by more than `tolerance`.
    """

    run: Callable[[Any], list[Tensor]] = field(repr=False)
    expected: list[Tensor] | None = field(default=None, repr=False)
    tolerance: Tolerance = Tolerance()

    def __call__(self, name: str, subject: Any, seconds: float) -> None:  # noqa: ARG002
        with torch.no_grad():
            outputs = self.run(subject)
        hint = "This is a bug in the pass; MMFREE_DEBUG=2 prints its result"
        compare(outputs, self.expected or outputs, self.tolerance, f"pass {name}", hint)
        self.expected = outputs


def compare(
    found: list[Tensor], expected: list[Tensor], tolerance: Tolerance, thing: str, hint: str
) -> None:
    """Raise MmfreeError, about `thing`, when an output differs by more than `tolerance`."""
    for k, (new, old) in enumerate(zip(found, expected, strict=True)):
        error = relative_error(new, old)
        if not tolerance.accepts(error):
            cause = f"output {k} differs from what it was by {error:.2e} of its norm"
            raise MmfreeError(thing, cause, hint)


def relative_error(new: Tensor, old: Tensor) -> float:
    """The norm of the difference over that of `old`; infinite where only one is finite."""
    new, old = new.double().flatten(), old.double().flatten()
    finite = old.isfinite()
    if new.numel() != old.numel() or not torch.equal(new.isfinite(), finite):
        return math.inf
    new, old = new[finite], old[finite]
    return float((new - old).norm() / old.norm().clamp(1e-30))
