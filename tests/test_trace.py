"""Tracing: free leading dimensions, shared storage, clear errors."""

from __future__ import annotations

import re
import signal
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmfree_compiler.errors import InputError, TraceError
from mmfree_compiler.ops import OPS
from mmfree_compiler.origin import source_line
from mmfree_compiler.trace import trace


class _Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x).sigmoid()
        return out


@pytest.mark.parametrize("shape", [(2, 3, 8), (1, 1, 8), (1, 8), (4, 4, 8)])
def test_leading_dimensions_are_free(shape: tuple[int, ...]) -> None:
    module = _Layer()
    gm = trace(module, (torch.randn(shape),))
    for sizes in ((1, 1), (5, 2)):
        x = torch.randn(*sizes[-len(shape) + 1 :], 8)
        assert torch.equal(gm(x), module(x))


def test_parameters_are_shared_and_nodes_know_their_line() -> None:
    module = _Layer()
    gm = trace(module, (torch.randn(2, 8),))
    assert gm.get_parameter("inner.weight").data_ptr() == module.inner.weight.data_ptr()
    (node,) = gm.graph.find_nodes(op="call_function", target=torch.ops.aten.sigmoid.default)
    assert "test_trace.py" in source_line(node)
    assert source_line(node).endswith("out: Tensor = self.inner(x).sigmoid()")
    assert node.meta["val"].shape[-1] == 4


def test_the_recurrence_stays_one_op() -> None:
    class Scan(nn.Module):
        def forward(self, c: Tensor, forget: Tensor) -> Tensor:
            h: Tensor = torch.ops.mmfree.mlgru_scan(c, forget, None)
            return h

    gm = trace(Scan(), (torch.rand(2, 3, 4), torch.rand(2, 3, 4)))
    assert len(gm.graph.find_nodes(op="call_function", target=OPS["mlgru_scan"].overload)) == 1
    c, forget = torch.rand(1, 9, 4), torch.rand(1, 9, 4)
    assert torch.equal(gm(c, forget), torch.ops.mmfree.mlgru_scan(c, forget))


class _InPlace(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        scale = x.abs().amax(-1, keepdim=True)
        scale.clamp_(min=0.5)
        scale.mul_(2)
        return x / scale


class _ThroughView(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = x * 1.5
        y[..., :2].mul_(3)
        return y


@pytest.mark.parametrize("module", [_InPlace(), _ThroughView()])
def test_the_graph_is_functional(module: nn.Module) -> None:
    x = torch.randn(2, 3, 4)
    gm = trace(module, (x,))
    schemas = [getattr(node.target, "_schema", None) for node in gm.graph.nodes]
    assert not any(schema.is_mutable for schema in schemas if schema)
    assert torch.equal(gm(x), module(x))


def test_training_mode_is_kept() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.Dropout())
    module[0].eval()
    module[1].train()
    trace(module, (torch.randn(2, 4),))
    assert [part.training for part in module] == [False, True]
    assert module.training


class _Fixed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.ones(2, 3, 4)


def _branch(x: Tensor) -> Tensor:
    if x.sum() > 0:
        return x
    return -x


_BRANCHES = "branches on the value of a tensor"
_NUMBER = "needs the value of a tensor as a Python number"
NEEDS_VALUES: list[tuple[Callable[[Tensor], Any], str, str]] = [
    (_branch, _BRANCHES, "choose with torch.where"),
    (lambda x: x if x.max().item() > 0.5 else -x, _BRANCHES, "choose with torch.where"),
    (lambda x: x if (x > 0).any() else -x, _BRANCHES, "choose with torch.where"),
    (lambda x: x[:, : int(x.abs().max())], _NUMBER, "with the tensor itself"),
    (lambda x: [x * k for k in range(int(x[0, 0].abs()))], _NUMBER, "with the tensor itself"),
    (lambda x: [x, -x, x, x][int(x.argmax()) % 4], _NUMBER, "with the tensor itself"),
]


class _Does(nn.Module):
    def __init__(self, computes: Callable[..., Any]) -> None:
        super().__init__()
        self.computes = computes

    def forward(self, x: Tensor) -> Any:
        return self.computes(x)


@pytest.mark.parametrize(("computes", "cause", "hint"), NEEDS_VALUES)
def test_what_needs_the_value_of_a_tensor(
    computes: Callable[[Tensor], Any], cause: str, hint: str
) -> None:
    with pytest.raises(TraceError) as error:
        trace(_Does(computes), (torch.randn(2, 4),))
    assert re.fullmatch(r"\S*test_trace\.py:\d+: .*\w.*[^:]", error.value.thing)
    assert cause in error.value.cause
    assert hint in error.value.hint
    assert error.value.hint.endswith(', or pass fallback="eager" to run the module in torch')
    assert "u0" not in str(error.value)


def test_what_cannot_be_exported_is_a_trace_error() -> None:
    with pytest.raises(
        TraceError, match=r"x\.numpy\(\).*: torch.export failed: RuntimeError: .* in"
    ):
        trace(_Does(lambda x: x + torch.from_numpy(x.numpy())), (torch.randn(2, 4),))


def test_a_fixed_size_is_a_trace_error() -> None:
    with pytest.raises(
        TraceError, match=r"return x \+ torch.ones.* traced where x.shape\[1\] == 3"
    ):
        trace(_Fixed(), (torch.randn(2, 3, 4),))
    assert trace(_Fixed(), (torch.randn(2, 3, 4),), dynamic=False)(torch.zeros(2, 3, 4)).sum() == 24


def test_examples_are_tensors() -> None:
    with pytest.raises(InputError, match="example input 1"):
        trace(_Layer(), (torch.randn(2, 8), [1]))  # type: ignore[arg-type]


class _Pair(nn.Module):
    def forward(self, x: Tensor, y: Tensor, scale: float = 2) -> Tensor:
        return x + y * scale


def test_the_number_of_examples_is_that_of_the_inputs() -> None:
    x = torch.randn(2, 8)
    with pytest.raises(InputError) as error:
        trace(_Pair(), (x,))
    forward = "_Pair.forward(x, y, scale=2)"
    assert error.value.cause == f"1 tensor for {forward}"
    with pytest.raises(InputError, match=re.escape(f"example_inputs: 4 tensors for {forward}. ")):
        trace(_Pair(), (x, x, x, x))


def _raise(x: Tensor) -> Tensor:
    raise ValueError(f"not a batch: {len(x)}.")


@pytest.mark.parametrize(
    ("module", "example", "message"),
    [
        (_Layer(), torch.randn(2, 9), r"RuntimeError: mat1 and mat2 .* at \S*test_trace\.py:\d+: "),
        (_Layer(), torch.ones(2, 8, dtype=torch.int64), r"RuntimeError: .* at \S*test_trace\.py"),
        (
            _Does(_raise),
            torch.randn(2, 9),
            r"ValueError: not a batch: 2\. Pass .*: raise ",
        ),
        (nn.Sequential(nn.Embedding(9, 8)), torch.randn(2, 8), r" at 0 \(Embedding\)$"),
        (nn.Embedding(9, 8), torch.randn(2, 8), " at Embedding$"),
    ],
)
def test_examples_that_the_module_does_not_take(
    module: nn.Module, example: Tensor, message: str
) -> None:
    expected = f"^example_inputs: the module itself fails on them: .*{message}"
    with pytest.raises(InputError, match=expected):
        trace(module, (example,))


class _Counts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(8))

    def forward(self, x: Tensor) -> Tensor:
        self.weight.add_(1)
        return x if x.sum() > 0 else x + self.weight


def test_trying_the_examples_changes_no_parameter() -> None:
    module = _Counts()
    with pytest.raises(TraceError, match="branches on the value"):
        trace(module, (torch.randn(2, 8),))
    assert module.weight.eq(0).all()


def test_an_example_of_one_row_is_tried_as_it_is() -> None:
    """Tracing doubles it: what then fails is not the module on its example."""
    with pytest.raises(TraceError, match=r"torch\.export failed"):
        trace(_Does(lambda x: x.reshape(1, 8)), (torch.randn(1, 8),))


@pytest.mark.parametrize(
    "name", ['a"b', 'a", "b', "line\nline", "back\\slash", "end\\", "nul\0", "\ud800"]
)
def test_names_that_torch_writes_into_code(name: str) -> None:
    module = nn.Sequential(OrderedDict({name: nn.Linear(8, 8)}))
    with pytest.raises(TraceError, match=r"parameter .*: has a quotation mark, a backslash or a"):
        trace(module, (torch.randn(2, 8),))


def test_names_that_are_no_identifiers() -> None:
    module = nn.Sequential(OrderedDict({"a b <'c'> \u202e": nn.Linear(8, 8)}))
    assert trace(module, (torch.randn(2, 8),))(torch.ones(1, 8)).shape == (1, 8)


class _Interrupted(nn.Module):
    """Ctrl-C comes while Python runs a weak reference's callback, where exceptions are dropped."""

    def forward(self, x: Tensor) -> Tensor:
        thing = nn.Identity()
        watching = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGINT))
        del thing
        assert watching() is None
        return 2 * x


def test_ctrl_c_is_not_lost_in_callbacks() -> None:
    with pytest.raises(KeyboardInterrupt):
        trace(_Interrupted(), (torch.zeros(2, 3),))


@pytest.mark.parametrize(
    "layer",
    [nn.ReLU(inplace=True), nn.Hardtanh(inplace=True), nn.LeakyReLU(0.2, inplace=True)],
    ids=str,
)
def test_any_activation_in_place(layer: nn.Module) -> None:
    """Whatever is done in place becomes ATen's operation of the same name that is not."""
    x, module = torch.randn(2, 3, 4), nn.Sequential(nn.Linear(4, 4), layer)
    gm = trace(module, (x,))
    assert not [n for n in gm.graph.nodes if str(n.target).endswith("_.default")]
    with torch.no_grad():
        assert torch.equal(gm(x), module(x))


class _Asks(nn.Module):
    def __init__(self, asks: Callable[[], bool]) -> None:
        super().__init__()
        self.asks = asks

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if self.asks() else x + 1


@pytest.mark.parametrize(
    "asks",
    [
        torch.compiler.is_exporting,
        torch.compiler.is_compiling,
        torch.compiler.is_dynamo_compiling,
        lambda: not not torch.compiler.is_exporting(),  # noqa: SIM208 - what is tested
    ],
)
def test_a_module_is_not_told_that_it_is_traced(asks: Callable[[], bool]) -> None:
    module, x = nn.Sequential(_Asks(asks), _Asks(asks)), torch.randn(2, 3, 4)
    assert torch.equal(trace(module, (x,))(x), x + 1 + 1)
    assert torch.compiler.is_compiling() is False
