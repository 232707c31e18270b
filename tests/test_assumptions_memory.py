"""Memory: whatever the next call would find changed is refused with its line, and put back."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mmfree_compiler.errors import TraceError
from mmfree_compiler.trace import trace

X = torch.randn(2, 3, 8)
COUNT = 0
SEEN: list[Any] = []


class Config:
    calls = 0

    def __init__(self) -> None:
        self.calls = 0


class _Does(nn.Module):
    """`computes` gets the module, which has a bit of everything, and the input."""

    calls = 0

    def __init__(self, computes: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.computes = computes
        self.n: Any = nn.Buffer(torch.zeros(8))
        self.weight: Any = nn.Parameter(torch.ones(8))
        self.inner = nn.Linear(8, 8)
        self.count: Any = 0
        self.plain = torch.zeros(8)
        self.kept: list[Any] = []
        self.cache: dict[str, Any] = {"a": 1}
        self.names = {"a"}
        self.queue = deque([1, 2], maxlen=2)
        self.array = np.zeros(2)
        self.config = Config()
        self.nested = [{"k": (1, [2])}]

    def forward(self, x: Tensor) -> Tensor:
        return self.computes(self, x)


def _global(_: Any, x: Tensor) -> Tensor:
    global COUNT
    COUNT += 1
    return x * COUNT


def _closure() -> Callable[[Any, Tensor], Tensor]:
    count = 0

    def computes(_: Any, x: Tensor) -> Tensor:
        nonlocal count
        count += 1
        return x * count

    return computes


def _default(_: Any, x: Tensor, kept: list[int] = []) -> Tensor:  # noqa: B006 - what is tested
    kept.append(1)
    return x * len(kept)


def _append_to_seen(x: Tensor) -> None:
    SEEN.append(x)


def _helper(_: Any, x: Tensor) -> Tensor:
    _append_to_seen(x)
    return x * len(SEEN)


def _class(m: Any, x: Tensor) -> Tensor:
    type(m).calls += 1
    return x * int(m.calls)


def _of_config(m: Any, x: Tensor) -> Tensor:
    m.config.calls += 1
    return x * int(m.config.calls)


def _set(m: Any, name: str, value: Any) -> Any:
    setattr(m, name, value)
    return value


def _item(holder: Any, key: Any, value: Any) -> Any:
    holder[key] = value
    return value


CHANGES: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "a counter": lambda m, x: x * _set(m, "count", m.count + 1),
    "a counter in a method's class": _class,
    "a result": lambda m, x: _set(m, "last", x * 2),
    "a first call": lambda m, x: x * 2 if hasattr(m, "last") else _set(m, "last", x),
    "another module's attribute": lambda m, x: x * _set(m.inner, "scale", 2),
    "training mode": lambda m, x: m.inner.train()(x),
    "a buffer": lambda m, x: x * _set(m, "n", m.n + 1),
    "a parameter": lambda m, x: x * _set(m, "weight", nn.Parameter(m.weight * 2)),
    "a new buffer": lambda m, x: (m.register_buffer("new", x * 2), m.new)[1],
    "a tensor": lambda m, x: x * _set(m, "plain", m.plain + 1),
    "a list": lambda m, x: (m.kept.append(x), x * len(m.kept))[1],
    "a dict": lambda m, x: x * _item(m.cache, "b", 2),
    "a dict's value": lambda m, x: x * _item(m.cache, "a", 2),
    "a dict's order": lambda m, x: (m.cache.update(b=m.cache.pop("a")), x)[1],
    "a set": lambda m, x: (m.names.add("b"), x * len(m.names))[1],
    "a queue": lambda m, x: (m.queue.append(3), x * m.queue[0])[1],
    "an array": lambda m, x: x * float(_item(m.array, 0, m.array[0] + 1)),
    "something nested": lambda m, x: x * _item(m.nested[0]["k"][1], 0, 3),
    "an object": _of_config,
    "an object's class": lambda m, x: x * _set(type(m.config), "calls", 5),
    "a global": _global,
    "a list of a function": _default,
    "a global of a helper": _helper,
    "a closure": _closure(),
    "random numbers": lambda _, x: x * random.random(),
    "NumPy's random numbers": lambda _, x: x * float(np.random.rand()),
}


def _everything(module: _Does) -> dict[str, Any]:
    """What the changes above change, as text."""
    parts = {k: str(v) for k, v in vars(module).items() if k not in ("computes", "_modules")}
    inner = {k: str(v) for k, v in vars(module.inner).items()}
    return {
        **parts,
        "inner": inner,
        "config": dict(vars(module.config)),
        "globals": (COUNT, list(SEEN), _Does.calls, Config.calls, _default.__defaults__),
        "random": (random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()),
    }


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_refused_with_its_line_and_undone(name: str) -> None:
    module = _Does(CHANGES[name]).eval()
    before = _everything(module)
    with pytest.raises(TraceError, match=rf"^\S*{__name__}.py:\d+: \S.* changes "):
        trace(module, (X,))
    assert _everything(module) == before
    assert not module._forward_hooks
    assert not module._forward_pre_hooks


def test_the_message_names_the_line_and_the_thing() -> None:
    with pytest.raises(TraceError) as refused:
        trace(_Does(CHANGES["a list"]), (X,))
    assert refused.value.thing.endswith("(m.kept.append(x), x * len(m.kept))[1],")
    assert refused.value.cause.startswith("changes _Does.kept.0,")


class _Append(nn.Module):
    """Writes into what its caller passes or shares."""

    def __init__(self, kept: Any = None) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8)
        self.kept = kept

    def forward(self, x: Tensor, kept: Any = None) -> Tensor:
        y: Tensor = self.inner(x)
        kept = self.kept if kept is None else kept
        if isinstance(kept, list):
            kept.append(y)
        elif isinstance(kept, dict):
            kept[len(kept)] = y
        elif kept is not None:
            kept.sum = kept.sum + y
        return y


class _Caller(nn.Module):
    def __init__(self, make: Callable[[], Any], total: Callable[[Any], Tensor]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Append() for _ in range(3))
        self.make, self.total = make, total

    def forward(self, x: Tensor) -> Tensor:
        kept = self.make()
        for layer in self.layers:
            x = layer(x, kept)
        return x + self.total(kept)


CALLERS: dict[str, tuple[Callable[[], Any], Callable[[Any], Tensor]]] = {
    "list": (list, lambda kept: sum(kept)),
    "list in a tuple": (list, lambda kept: torch.stack(kept).sum(0)),
    "dict": (dict, lambda kept: sum(kept.values())),
    "object": (lambda: SimpleNamespace(sum=torch.zeros(8)), lambda kept: kept.sum),
}


@pytest.mark.parametrize("name", CALLERS)
def test_equal_layers_that_write_into_their_arguments(name: str) -> None:
    module = _Caller(*CALLERS[name]).eval()
    gm = trace(module, (X,))
    with torch.no_grad():
        assert torch.equal(gm(X), module(X))


class _Through(nn.Module):
    """Layers get a function that writes into the caller's list."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Calls() for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        kept: list[Tensor] = []
        for layer in self.layers:
            x = layer(x, kept.append)
        return x + torch.stack(kept).sum(0)


class _Calls(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8)

    def forward(self, x: Tensor, keep: Callable[[Tensor], None]) -> Tensor:
        y: Tensor = self.inner(x)
        keep(y)
        return y


def test_equal_layers_that_call_what_they_are_passed() -> None:
    module = _Through().eval()
    gm = trace(module, (X,))
    with torch.no_grad():
        assert torch.equal(gm(X), module(X))


@pytest.mark.parametrize("make", [list, dict, lambda: SimpleNamespace(sum=torch.zeros(8))])
def test_equal_layers_that_share_what_they_write_into(make: Callable[[], Any]) -> None:
    kept = make()
    with pytest.raises(TraceError, match=r"kept.*: changes "):
        trace(nn.Sequential(_Append(kept), _Append(kept)), (X,))
    assert str(kept) == str(make())


class Recurrent(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.inner = nn.ModuleList([layer])

    def forward(self, x: Tensor) -> Any:
        return self.inner[0](x)[0]


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_of_torch_are_named(kind: type[nn.Module]) -> None:
    hint = "Use mmfree_compiler.models.MLGRU in its place"
    what = "is a recurrence with products of float matrices, which no target runs"
    inside = rf"layer inner.0 \({kind.__name__}\): {what}. {hint}"
    with pytest.raises(TraceError, match=inside):
        trace(Recurrent(kind(8, 8)), (torch.ones(2, 3, 8),))
    with pytest.raises(TraceError, match=f"^{kind.__name__}: {what}"):
        trace(kind(8, 8), (torch.ones(2, 3, 8),))


def test_a_recurrent_layer_that_does_not_run_is_not_refused() -> None:
    """What else changes something is named instead."""

    class Idle(Recurrent):
        def forward(self, x: Tensor) -> Any:
            return x + 1

    class Changed(Recurrent):
        def forward(self, x: Tensor) -> Any:
            self.last = x
            return x + 1

    x = (torch.ones(2, 8),)
    assert trace(Idle(nn.LSTM(8, 8)), x)
    with pytest.raises(TraceError, match=r"changes Changed\.last"):
        trace(Changed(nn.LSTM(8, 8)), x)
