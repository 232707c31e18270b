"""Equal submodules are traced once, and the graph is the one that tracing each of them makes."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node, map_arg

from mmfree_compiler import trace as tracing
from mmfree_compiler.models import MatMulFreeLM, ModelConfig
from mmfree_compiler.sources import Source
from mmfree_compiler.trace import trace

X = torch.randn(2, 3, 4)


class _Block(nn.Module):
    """Counts how often its forward runs; blocks with different `times` are not equal."""

    runs = ctypes.c_int()  # one of the few things that a trace does not see (docs/passes.md)

    def __init__(self, times: float = 1.5) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self.shift: Any = nn.Buffer(torch.randn(4))
        self.times = times

    def forward(self, x: Tensor, gain: Tensor | None = None) -> Tensor:
        self.runs.value += 1
        y: Tensor = self.inner(x) * self.times + self.shift * x.shape[0]
        return y if gain is None else y * gain


def unshared(module: nn.Module, monkeypatch: pytest.MonkeyPatch, *inputs: Tensor) -> GraphModule:
    with monkeypatch.context() as patch:
        patch.setattr(tracing, "_trace_shared", lambda *_: None)
        return trace(module, inputs)


def described(gm: GraphModule) -> list[Any]:
    """What a graph consists of, its nodes numbered and its tensors by name."""
    nodes = [node for node in gm.graph.nodes if node.op != "get_attr"]
    numbers: dict[Node, Any] = {node: k for k, node in enumerate(nodes)}
    numbers |= {node: str(node.target) for node in gm.graph.find_nodes(op="get_attr")}

    def describe(node: Node) -> Any:
        value = node.meta.get("val")
        arguments = str(map_arg((node.args, node.kwargs), lambda n: f"<{numbers[n]}>"))
        shown = (
            str(getattr(value, "shape", value)),
            list(node.meta.get("nn_module_stack", {}).values()),
        )
        return node.op, str(node.target), arguments, *shown, (node.stack_trace or "")[-60:]

    return [describe(node) for node in nodes]


class _Gained(nn.Module):
    """Blocks with tensors, views and None as arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.gains = nn.Parameter(torch.randn(3, 4))
        self.blocks = nn.ModuleList(_Block() for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        for block, gain in zip(self.blocks, self.gains.unbind(0), strict=True):
            x = block(x, gain=gain)
        y: Tensor = self.blocks[0](x) + self.blocks[1](x, None)
        return y


class _Tied(nn.Module):
    """Two blocks share one weight, with each other and with the root."""

    def __init__(self) -> None:
        super().__init__()
        blocks = [_Block(), _Block(), _Block()]
        self.table = blocks[1].inner.weight = blocks[0].inner.weight
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.blocks(x @ self.table)
        return y


class _Several(nn.Module):
    """Structured arguments and results, one of them not a tensor."""

    def forward(self, pair: tuple[Tensor, int], x: Tensor) -> dict[str, Any]:
        a, k = pair
        return {"sum": a + x * k, "same": x, "none": None}


class _Dicts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList(_Several() for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for k, part in enumerate(self.parts):
            found = part((y, min(k, 1)), x)
            y = found["sum"] + found["same"].amax(-1, keepdim=True)
        return y


def _language_model() -> nn.Module:
    sizes = {
        "model_type": "hgrn_bit",
        "hidden_size": 16,
        "num_hidden_layers": 4,
        "vocab_size": 32,
        "num_heads": 1,
    }
    return Source.of(MatMulFreeLM(ModelConfig.model_validate(sizes)), None).module


SHARED: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "blocks": (lambda: nn.Sequential(*(_Block() for _ in range(4))), X),
    "gained": (_Gained, X),
    "tied": (_Tied, X),
    "dicts": (_Dicts, X),
    "language model": (_language_model, torch.zeros(2, 3, dtype=torch.int64)),
}


@pytest.mark.parametrize("name", SHARED)
def test_the_graph_is_the_same_without_sharing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, x = SHARED[name]
    module = make().eval()
    with torch.no_grad():
        assert tracing._trace_shared(module, (x,), True) is not None  # sharing is what is tested
    gm = trace(module, (x,))
    assert described(gm) == described(unshared(module, monkeypatch, x))
    with torch.no_grad():
        assert torch.equal(gm(x), module(x))
    assert not any("forward" in vars(part) for part in module.modules())


def test_a_forward_runs_once_for_all_equal_modules() -> None:
    module = nn.Sequential(*(_Block() for _ in range(8)))
    before = _Block.runs.value
    trace(module, (X,))
    assert _Block.runs.value == before + 1


def _hooked() -> nn.Module:
    module = nn.Sequential(_Block(), _Block())
    module[1].register_forward_hook(lambda _m, _a, y: y + 1)
    return module


class _Unequal(_Block):
    def __init__(self, factor: Tensor) -> None:
        super().__init__()
        self.factor = [factor]  # neither a parameter nor plain

    def forward(self, x: Tensor, gain: Tensor | None = None) -> Tensor:
        return super().forward(x, gain) * self.factor[0]


class _Writing(_Block):
    def forward(self, x: Tensor, gain: Tensor | None = None) -> Tensor:
        y = super().forward(x, gain)
        x.add_(1)  # the caller sees this
        return y


class _Caller(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([_Writing(), _Writing()])

    def forward(self, x: Tensor) -> Tensor:
        x = x * 2
        y: Tensor = self.blocks[1](self.blocks[0](x) + x) + x
        return y


UNSHARED: dict[str, Callable[[], nn.Module]] = {
    "other attributes": lambda: nn.Sequential(_Block(2.0), _Block(3.0)),
    "other widths": lambda: nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 6), nn.Linear(6, 4)),
    "hooks": _hooked,
    "tensors as attributes": lambda: nn.Sequential(*(_Unequal(torch.randn(4)) for _ in range(3))),
    "writes that others see": _Caller,
    "nothing that repeats": lambda: nn.Sequential(nn.Dropout(), _Block(), nn.Identity()),
}


@pytest.mark.parametrize("name", UNSHARED)
def test_unequal_modules_are_traced_one_by_one(name: str) -> None:
    module = UNSHARED[name]().eval()
    gm = trace(module, (X,))
    with torch.no_grad():
        assert torch.equal(gm(X), module(X))
