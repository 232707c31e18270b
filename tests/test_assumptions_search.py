"""The search for the line that changes something: what traced before it traces after it."""

from __future__ import annotations

import linecache
import sys
from types import FrameType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmfree_compiler.assumptions import memory
from mmfree_compiler.assumptions.state import State
from mmfree_compiler.errors import InputError, TraceError
from mmfree_compiler.trace import trace

X = torch.randn(2, 3, 8)


class _Counts(nn.Module):
    def __init__(self, error: BaseException | None = None) -> None:
        super().__init__()
        self.n, self.error = 0, error

    def forward(self, x: Tensor) -> Tensor:
        self.n += 1
        if self.error:
            raise self.error
        return x * self.n


@pytest.mark.parametrize("error", [None, ValueError("a reason")])
def test_a_refused_forward_leaves_the_trace_function(error: Exception | None) -> None:
    with pytest.raises(InputError if error else TraceError):
        trace(_Counts(error), (X,))
    assert sys.gettrace() is None


def _fails(*_: Any) -> None:
    raise AttributeError("cannot be read")


@pytest.mark.parametrize("part", ["restore", "changed", "of"])
def test_an_error_while_comparing_leaves_the_trace_function(
    part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = _Counts()
    before = State.of(module)
    monkeypatch.setattr(State, part, _fails)
    memory._changing_line(module, lambda: module(X), before.held[0][0])
    assert sys.gettrace() is None


def test_an_error_while_comparing_stays_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """The forward goes on, and so does what runs in it: callbacks of the garbage collector."""
    module, finished = _Counts(), []
    before = State.of(module)
    monkeypatch.setattr(State, "changed", _fails)
    search = memory.Search(before.held[0][0].name)
    with memory.watched(module, search):
        finished.append(module(X))
    assert len(finished) == 1
    assert search.found == ""


def test_an_interrupt_leaves_the_trace_function() -> None:
    module = _Counts(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        memory._changing_line(module, lambda: module(X), State.of(module).held[0][0])
    assert sys.gettrace() is None


def test_a_debugger_goes_on() -> None:
    def debugger(_frame: FrameType, _event: str, _argument: Any) -> None: ...

    sys.settrace(debugger)
    try:
        with pytest.raises(TraceError):
            trace(_Counts(), (X,))
        assert sys.gettrace() is debugger
    finally:
        sys.settrace(None)


@pytest.mark.parametrize(
    ("known", "place"), [(False, ""), (True, r"<made>:4: kept\.append\(0\): ")]
)
def test_classes_of_code_without_a_module(
    known: bool, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`exec` in a namespace without a name says that they are built in."""
    source = """
class Keeps(nn.Module):
    def forward(self, x):
        kept.append(0)
        return x + len(kept)
"""
    if known:
        entry = (len(source), None, source.splitlines(True), "<made>")
        monkeypatch.setitem(linecache.cache, "<made>", entry)
    names: dict[str, Any] = {"nn": nn, "kept": []}
    exec(compile(source, "<made>", "exec"), names)
    assert names["Keeps"].__module__ == "builtins"
    with pytest.raises(TraceError, match=place + r"changes Keeps\.forward\.kept"):
        trace(names["Keeps"](), (X,))
    assert names["kept"] == []
