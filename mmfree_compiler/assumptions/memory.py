"""Memory: a graph has none, so a forward must leave everything in Python as it found it."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, Protocol, TypeVar

from torch import nn

from mmfree_compiler.assumptions.state import Holder, State
from mmfree_compiler.errors import TraceError
from mmfree_compiler.origin import in_model, line_of

T = TypeVar("T")
_PRIVATE = re.compile(r"\b_(buffers|modules|parameters)\.")  # where nn.Module keeps its parts


class KeptStateError(TraceError):
    """A forward changes something that its next call could see."""


class Watch:
    """Sees what a call of a module changes; it is put back when the forward returns."""

    def __init__(self) -> None:
        self.changed: tuple[str, Holder] | None = None
        self._before: State | None = None

    def enter(self, module: nn.Module, *_: Any) -> None:
        """A forward pre-hook."""
        self._before = State.of(module)

    def leave(self, *_: Any) -> None:
        """A forward hook."""
        assert self._before is not None
        self.changed = self._before.changed()
        self._before.restore()


class Search:
    """Finds the first line of a forward that changes what the holders called `name` hold."""

    def __init__(self, name: str) -> None:
        self.found = ""
        self._name = name
        self._line = ""  # the last that began, or that goes on since a call has returned

    def enter(self, module: nn.Module, *_: Any) -> None:
        """A forward pre-hook."""
        held = State.of(module).held
        self._state = State(tuple(x for x in held if x[0].name == self._name))
        sys.settrace(self._call)

    def leave(self, *_: Any) -> None:
        """A forward hook."""
        sys.settrace(None)

    def _call(self, frame: FrameType, _event: str, _argument: Any) -> Any:
        return self._step if in_model(frame) else None

    def _step(self, frame: FrameType, event: str, _argument: Any) -> Any:
        # CPython 3.11 can crash on an error of a trace function during garbage collection.
        with suppress(Exception):
            if not self.found and self._state.changed():
                self.found = self._line
        self._line = line_of(frame.f_back if event == "return" else frame)
        return self._step


class Hooks(Protocol):
    """What is called before and after a forward."""

    def enter(self, module: nn.Module, *_: Any) -> None: ...

    def leave(self, *_: Any) -> None: ...


@contextmanager
def watched(module: nn.Module, watch: Hooks) -> Iterator[None]:
    """`watch` sees a call of `module` within."""
    hooks = (
        module.register_forward_pre_hook(watch.enter, prepend=True),
        module.register_forward_hook(watch.leave, always_call=True),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def without_memory(module: nn.Module, call: Callable[[], T]) -> T:
    """The result of `call`, which calls `module`; it may be called again.

    Raises KeptStateError, which names the line, and TraceError on a recurrent layer of torch.
    """
    watch = Watch()
    try:
        with watched(module, watch):
            result = call()
    except Exception:  # possibly a result of the change, which then is what to name
        if watch.changed is None:
            raise
    if watch.changed is None:
        return result
    name, holder = watch.changed
    _refuse_recurrent(module, holder)
    raise KeptStateError(
        _changing_line(module, call, holder) or name,
        f"changes {_PRIVATE.sub('', name)}, which the next call would find changed",
        "Return it, or compute it in __init__",
    )


def _refuse_recurrent(module: nn.Module, holder: Holder) -> None:
    """Raise TraceError if it is a recurrent layer of torch: traced, it renews lists of its own."""
    root, name = type(module).__name__, _PRIVATE.sub("", holder.name)
    for path, layer in module.named_modules():
        if isinstance(layer, nn.RNNBase) and name == f"{root}.{path}".rstrip("."):
            thing = f"layer {path} ({type(layer).__name__})" if path else root
            cause = "is a recurrence with products of float matrices, which no target runs"
            hint = "Use mmfree_compiler.models.MLGRU in its place, and BitLinear for products"
            raise TraceError(thing, cause, hint)


def _changing_line(module: nn.Module, call: Callable[[], object], holder: Holder) -> str:
    search = Search(holder.name)
    with _untraced(), suppress(Exception), watched(module, Watch()), watched(module, search):
        call()
    return search.found


@contextmanager
def _untraced() -> Iterator[None]:
    """Whatever traces within, a debugger or nothing traces afterwards, as before."""
    before = sys.gettrace()
    try:
        yield
    finally:
        sys.settrace(before)
