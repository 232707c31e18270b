"""The audit: it finds products of float matrices, with their lines, wherever they are left."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from left_over import WIDTH, Attending, Branching, LeftOver, rows
from torch import Tensor, nn

import mmfree_compiler as mmf
from mmfree_compiler.explaining import Explanation
from mmfree_compiler.explaining.audit import audit_graph, audit_run
from mmfree_compiler.models.modules import BitLinear

X = rows(2, 3)
_PLAIN = nn.Linear(8, 8)
Explain = Callable[[nn.Module], Explanation]


def refused(module: nn.Module) -> Explanation:
    return mmf.explain(module, "reference", example_inputs=(X,))


def in_parts(module: nn.Module) -> Explanation:
    return mmf.compile(module, "reference", example_inputs=(X,), fallback="eager").explain()


def left(explanation: Explanation) -> list[str]:
    assert explanation.audit is not None
    return [product.op for product in explanation.audit.products]


def test_nothing_is_left_of_a_bitlinear() -> None:
    found = mmf.compile(BitLinear(32, 16), "reference", example_inputs=(X,)).explain()
    assert left(found) == []
    assert found.audit is not None
    assert found.audit.examined > 0
    assert "no product of float matrices is left" in found.summary


@pytest.mark.parametrize("explained", [refused, in_parts])
def test_a_float_product_is_named_with_its_line(explained: Explain) -> None:
    found = explained(LeftOver().eval())
    assert left(found) == ["aten.linear"]
    assert found.audit is not None
    (product,) = found.audit.products
    file, _, rest = product.source.partition(":")
    assert Path(file).name == "left_over.py"
    assert "y = self.plain(self.first(x))" in rest
    assert "not quantized" in product.why
    assert "1 product of float matrices left: aten.linear" in str(found)


@pytest.mark.parametrize("explained", [refused, in_parts])
def test_a_float_product_is_named_with_its_module(explained: Explain) -> None:
    """Where no line of the model called it, nothing is said of torch's own lines."""
    for module, name in ((LeftOver(), "plain"), (nn.Sequential(BitLinear(32, 8), _PLAIN), "1")):
        found = explained(module.eval())
        assert found.audit is not None
        (product,) = found.audit.products
        assert product.module == f"{name} (Linear)"
    assert product.source == ""
    assert "aten.linear in 1 (Linear): its rows" in str(found)


@pytest.mark.filterwarnings("ignore:Sequential runs in torch")
def test_a_part_that_cannot_be_traced_is_named_too() -> None:
    found = refused(nn.Sequential(nn.Linear(32, 32), Branching()).eval())
    assert found.audit is not None
    assert [product.module for product in found.audit.products] == [
        "0 (Linear)",
        "1.first (BitLinear)",
        "1.plain (Linear)",
        "1.last (BitLinear)",
    ]


@pytest.mark.parametrize("explained", [refused, in_parts])
def test_products_of_rows_with_rows(explained: Explain) -> None:
    assert left(explained(Attending().eval())) == ["aten.matmul"] * 2


@pytest.mark.filterwarnings("ignore:Branching runs in torch")
def test_a_module_that_cannot_be_traced_is_watched() -> None:
    """Its call runs in a copy: the module stays as it was."""
    module = Branching().eval()
    model = mmf.compile(module, "reference", example_inputs=(X,), fallback="eager")
    calls = module.calls
    products = ["aten.mm", "aten.addmm", "aten.mm"]  # those of BitLinears too
    assert left(model.explain()) == products
    assert module.calls == calls
    found = refused(module)
    assert "branches on the value of a tensor" in found.failed
    assert left(found) == products


def test_the_audit_counts_the_calls_of_compiled_parts_too() -> None:
    """Parts are compiled of a graph that was examined whole."""
    whole, parts = (explained(LeftOver().eval()).audit for explained in (refused, in_parts))
    assert whole == parts


class _Chooses(nn.Module):
    """A layer that runs if a value says so: it cannot be traced."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Any:
        return self.layer(x) if x.sum() > 0 else x


@pytest.mark.parametrize(
    "layer",
    [
        nn.LSTM(WIDTH, WIDTH, batch_first=True),
        nn.TransformerEncoderLayer(WIDTH, 4, 8, batch_first=True),
    ],
)
def test_layers_that_torch_may_run_in_one_kernel(layer: nn.Module) -> None:
    audit = audit_run(_Chooses(layer).eval(), (X.abs(),))
    assert audit is not None
    assert audit.products
    assert all(product.module.startswith("layer") for product in audit.products)


@pytest.mark.filterwarnings("ignore:The tensor attributes")
@pytest.mark.parametrize(
    ("layer", "op"), [(nn.LSTM, "lstm"), (nn.GRU, "gru"), (nn.RNN, "rnn_tanh")]
)
def test_recurrent_layers_in_a_graph(layer: type[nn.Module], op: str) -> None:
    module = layer(WIDTH, 8, batch_first=True).eval()
    graph = torch.export.export(module, (X,)).graph_module
    assert [product.op for product in audit_graph(graph).products] == [f"aten.{op}.input"]


def test_what_was_reached_of_a_refused_model() -> None:
    found = refused(LeftOver().eval())
    assert found.failed.startswith("1 operation: not supported by the target")
    assert [step.stage for step in found.passes] == ["graph"] * len(found.passes)
    assert {row.op: row.targets for row in found.coverage}["aten.linear"] == ()
    assert not found.targets


def test_products_of_integers_do_not_count() -> None:
    graph = torch.fx.Graph()
    x = graph.placeholder("x")
    x.meta["val"] = torch.zeros(2, 2, dtype=torch.int32)
    graph.output(graph.call_function(torch.ops.aten.mm.default, (x, x)))
    gm = torch.fx.GraphModule(nn.Module(), graph)
    assert audit_graph(gm).products == ()
    x.meta["val"] = torch.zeros(2, 2)
    assert [product.op for product in audit_graph(gm).products] == ["aten.mm"]
