"""The graphs of the published models' golden cases: mmfree ops only, and the reference's codes."""

from __future__ import annotations

import pytest
import torch
from golden_cases import GoldenCase, golden_cases
from torch import Tensor, nn
from torch.fx import GraphModule

from mmfree_compiler.models import MatMulFreeLM, ModelConfig
from mmfree_compiler.ops import OPS
from mmfree_compiler.passes import GRAPH, left_over, run
from mmfree_compiler.trace import trace

OPS_OF_A_LAYER, OPS_AROUND_LAYERS = 17, 3  # embedding, the last norm_quant and the head


class _Logits(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.model(tokens)[0]
        return logits


@pytest.fixture(scope="module", params=golden_cases(), ids=str)
def case(request: pytest.FixtureRequest) -> GoldenCase:
    found: GoldenCase = request.param
    return found


@pytest.fixture(scope="module")
def graph(case: GoldenCase) -> GraphModule:
    example = torch.zeros(2, 3, dtype=torch.int64)
    return run(GRAPH, trace(_Logits(case.model()), (example,)))


def test_only_mmfree_ops_are_left(case: GoldenCase, graph: GraphModule) -> None:
    assert left_over(graph, set(OPS)) == []
    overloads = {op.overload for op in OPS.values()}
    count = sum(node.target in overloads for node in graph.graph.nodes)
    config = case.model().config
    # A shared convolution and its silu stand between the two norms.
    convolutions = 3 if config.use_short_conv else 0
    layers = config.num_hidden_layers
    assert count == (OPS_OF_A_LAYER + convolutions) * layers + OPS_AROUND_LAYERS


def test_logits_are_the_references(case: GoldenCase, graph: GraphModule) -> None:
    for key in ("b1", "b2"):
        tokens = case.golden[f"input_ids_{key}"]
        case.assert_logits(graph(tokens), f"logits_{key}", tokens)


def test_codes_are_the_references(case: GoldenCase, graph: GraphModule) -> None:
    if not (case.folder / "ternary.safetensors").exists():
        pytest.skip("the bundled cases hold no codes")
    buffers = dict(graph.named_buffers())
    compared = 0
    for key, expected in case.ternary.items():
        name, _, kind = key.partition("|")
        codes = buffers.get(f"model_{name.replace('.', '_')}_weight_codes")
        if kind == "ternary" and codes is not None:
            assert torch.equal(codes, expected)
            compared += 1
    # Of a layer's six weights gate_proj is split in two; a tied head goes by the embedding's name.
    assert compared >= 5 * case.model().config.num_hidden_layers


# Every two of the three in all ways.
@pytest.mark.parametrize(
    ("heads", "separate", "bound"),
    [(1, False, False), (1, True, True), (4, False, True), (4, True, False)],
)
def test_every_kind_of_mixer(heads: int, separate: bool, bound: bool) -> None:
    torch.manual_seed(0)
    config = ModelConfig.of(32, 2, 40).model_copy(
        update={
            "num_heads": heads,
            "use_short_conv": separate,
            "share_conv_kernel": False,
            "use_lower_bound": bound,
        }
    )
    model = _Logits(MatMulFreeLM(config)).eval()
    gm = run(GRAPH, trace(model, (torch.zeros(2, 3, dtype=torch.int64),)))
    assert left_over(gm, set(OPS)) == []
    tokens = torch.randint(0, 40, (1, 6))
    with torch.no_grad():
        # fp32 sums in another order; the seed puts no activation on a .5 edge.
        torch.testing.assert_close(gm(tokens), model(tokens), rtol=1e-4, atol=1e-4)
    gates = gm.graph.find_nodes(op="call_function", target=OPS["mlgru_gates"].overload)
    assert [len(node.args) == 3 and node.args[2] is not None for node in gates] == [bound] * 2
    convolutions = gm.graph.find_nodes(op="call_function", target=OPS["short_conv"].overload)
    assert [node.args[3] for node in convolutions] == [None] * (4 * separate)
