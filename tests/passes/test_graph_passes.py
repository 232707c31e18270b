"""Each graph pass on its own text, and every graph equal to its module."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.fx import GraphModule
from zoo import Proj
from zoo_parts import Gated, Mixer, Tiny

from mmfree_compiler.checking import Checker
from mmfree_compiler.errors import MmfreeError
from mmfree_compiler.graph_text import listing, notes
from mmfree_compiler.notes import Note
from mmfree_compiler.ops import OPS
from mmfree_compiler.passes import GRAPH, left_over, run
from mmfree_compiler.trace import trace


@pytest.fixture(scope="module")
def stages() -> dict[str, str]:
    """The text of one layer of a language model after each pass, by the pass's name."""
    torch.manual_seed(0)
    found: dict[str, str] = {}

    def keep(name: str, subject: GraphModule, seconds: float) -> None:  # noqa: ARG001
        found[name] = listing(subject)

    tokens = torch.zeros(2, 3, dtype=torch.int64)
    run(GRAPH, trace(Tiny(layers=1), (tokens,)), [keep])
    return found


@pytest.mark.parametrize("name", [step.name for step in GRAPH])
def test_text_after_pass(
    name: str, stages: dict[str, str], golden: Callable[[str, str], None]
) -> None:
    golden(name, stages[name])


def test_a_layer_is_seventeen_ops(stages: dict[str, str]) -> None:
    ops = [
        line.split(" = ")[1].split("(")[0]
        for line in stages["lower_pointwise"].splitlines()
        if " = " in line
    ]
    layer = """norm_quant ternary_linear ternary_linear ternary_linear mlgru_gates mlgru_scan
        gated_norm norm_quant ternary_linear add norm_quant ternary_linear ternary_linear swiglu
        norm_quant ternary_linear add"""
    expected = ["embedding", *layer.split(), "norm_quant", "ternary_linear"]
    assert [op.removeprefix("mmfree.") for op in ops if op != "getitem"] == expected


MODULES: dict[str, Callable[[], tuple[nn.Module, torch.Tensor]]] = {
    "lm": lambda: (Tiny(), torch.randint(0, 40, (2, 5))),
    "mlgru": lambda: (Mixer(32), torch.randn(2, 5, 32)),
    "glu": lambda: (Gated(32, 24), torch.randn(2, 5, 32)),
    "sequence": lambda: (
        nn.Sequential(Proj(32, 16), nn.SiLU(inplace=True), nn.Dropout(), Proj(16, 8)),
        torch.randn(2, 5, 32),
    ),
    "rows": lambda: (nn.Sequential(Proj(32, 16), nn.Tanh(), Proj(16, 8)), torch.randn(5, 32)),
}


@pytest.mark.parametrize("name", MODULES)
def test_graph_equals_module(name: str) -> None:
    torch.manual_seed(0)
    module, x = MODULES[name]()
    module.eval()
    gm = run(GRAPH, trace(module, (x,)), Checker.of(module, (x,), "passes").observers)
    assert left_over(gm, set(OPS)) == []
    # Sizes that the trace did not see, batch and length of 1 among them.
    for other in (x[:1, :1] if name != "rows" else x[:1], torch.cat([x, x], dim=0)):
        with torch.no_grad():
            # fp32 rounding of another order of the same sums; these seeds sit on no .5 edge.
            torch.testing.assert_close(gm(other), module(other), rtol=1e-4, atol=1e-4)


def test_a_pass_that_changes_values_is_named() -> None:
    class Doubles:
        name = "doubles"

        def __call__(self, gm: GraphModule) -> GraphModule:
            for node in gm.graph.nodes:
                if node.target is torch.ops.mmfree.silu.default:
                    node.target = torch.ops.mmfree.tanh.default
            gm.recompile()
            return gm

    x = torch.randn(2, 5, 32)
    module = nn.Sequential(Proj(32, 16), nn.SiLU(), Proj(16, 8))
    with pytest.raises(MmfreeError, match="pass doubles: output 0 differs"):
        run((*GRAPH, Doubles()), trace(module, (x,)), Checker.of(module, (x,), "passes").observers)


def test_debug_prints_times_and_graphs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    x = torch.randn(2, 5, 32)
    printed = {}
    for level in ("0", "1", "2", "yes", "²"):
        monkeypatch.setenv("MMFREE_DEBUG", level)
        run(GRAPH, trace(Proj(32, 16), (x,)))
        printed[level] = capsys.readouterr().err
    assert printed["0"] == printed["yes"] == printed["²"] == ""
    assert len(printed["1"].splitlines()) == len(GRAPH) + 1
    assert "mmfree.ternary_linear(" in printed["2"]


def test_notes_say_what_each_pass_did() -> None:
    x = torch.randn(2, 5, 32)
    gm = run(GRAPH, trace(Mixer(32), (x,)))
    found = notes(gm)
    assert Note("detect_bitlinear", "bit_linear", "int8 rows, eps 1e-05") in found
    assert "1 row of codes, one reduction" in [note.text for note in found]
    made = {"detect_norm", "detect_mlgru", "detect_gated_norm", "ternarize", "fuse_norm_quant"}
    assert made <= {note.pass_name for note in found}
    assert [note.pass_name for note in found].count("detect_mlgru") == 1
