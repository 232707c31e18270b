"""Running passes one after another, with observers that print, time and check."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.utils import _pytree as pytree

from mmfree_compiler import debug
from mmfree_compiler.errors import MmfreeError
from mmfree_compiler.explain import listing

S = TypeVar("S")


class Pass(Protocol[S]):
    """A frozen dataclass: its `name`, its options as fields, one call."""

    @property
    def name(self) -> str: ...

    def __call__(self, subject: S, /) -> S: ...


class Observer(Protocol):
    """Sees the subject before the first pass (as "input") and after each, with its seconds."""

    def __call__(self, name: str, subject: Any, seconds: float) -> None: ...


def run(passes: Iterable[Pass[S]], subject: S, observers: Iterable[Observer] = ()) -> S:
    """`subject` after all `passes`, in order.

    MMFREE_DEBUG=1 prints each pass's time to stderr, 2 also what it made.
    """
    watching = [*_debug_observers(), *observers]
    _tell(watching, "input", subject, 0.0)
    for step in passes:
        start = time.perf_counter()
        subject = step(subject)
        _tell(watching, step.name, subject, time.perf_counter() - start)
    return subject


def _tell(observers: Iterable[Observer], name: str, subject: Any, seconds: float) -> None:
    for observer in observers:
        observer(name, subject, seconds)


def _debug_observers() -> tuple[Observer, ...]:
    return (print_times, print_subject)[: debug.level()]


def print_times(name: str, subject: Any, seconds: float) -> None:
    """One line a pass on stderr."""
    size = f"{len(subject.graph.nodes):6} nodes" if isinstance(subject, GraphModule) else ""
    print(f"{name:<20} {seconds * 1e3:9.1f} ms {size}", file=sys.stderr)


def print_subject(name: str, subject: Any, seconds: float) -> None:
    """The graph or Program after each pass, on stderr."""
    shown = listing(subject) if isinstance(subject, GraphModule) else subject
    print(f"--- {name} ({seconds:.3f} s)\n{shown}", file=sys.stderr)


class NumericCheck:
    """An observer that runs each graph on `inputs` and compares it with the one before.

    A pass may move a value by fp32 rounding; where that crosses a .5 edge one activation code of
    127 flips, and the next layers' codes with it. The noise of int8 codes bounds what comes of it,
    so that outputs may differ by `tolerance` of their norm; a wrong weight, eps or gate moves them
    by tens of percent.

    Raises MmfreeError that names the pass when outputs differ by more.
    """

    def __init__(self, inputs: tuple[Tensor, ...], tolerance: float = 2e-2) -> None:
        self.inputs, self.tolerance = inputs, tolerance
        self.before: list[Tensor] | None = None

    def __call__(self, name: str, subject: Any, seconds: float) -> None:  # noqa: ARG002
        with torch.no_grad():
            outputs = [x for x in pytree.tree_leaves(subject(*self.inputs)) if torch.is_tensor(x)]
        for k, (old, new) in enumerate(zip(self.before or outputs, outputs, strict=True)):
            error = float((new.double() - old.double()).norm() / old.double().norm().clamp(1e-30))
            if not error <= self.tolerance:
                raise MmfreeError(
                    f"pass {name}",
                    f"output {k} moved by {error:.2e} of its norm",
                    "This is a bug of the pass: MMFREE_DEBUG=2 prints the graphs",
                )
        self.before = outputs
