"""Running passes one after another, with observers that print and time."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import Any, Protocol, TypeVar

from torch.fx import GraphModule

from mmfree_compiler import debug
from mmfree_compiler.graph_text import listing
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

    The Program that the passes on Programs start from is what "lower" made of the graph; each
    target's own passes have an "input" again. The compiler also calls it when another stage begins:
    "trace" with the module, "check" and "emit" with the final Program.
    """

    def __call__(self, name: str, subject: Any, seconds: float) -> None: ...


def run(
    passes: Iterable[Pass[S]],
    subject: S,
    observers: Iterable[Observer] = (),
    made_by: tuple[str, float] = ("input", 0.0),
) -> S:
    """`subject` after all `passes`, in order; a Program is verified after each.

    `made_by` is the name and the seconds of what made `subject`, to tell the observers.

    MMFREE_DEBUG=1 prints each pass's time to stderr, 2 also its result.
    """
    watching = [*_debug_observers(), _verify, *observers]
    tell(watching, made_by[0], subject, made_by[1])
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
