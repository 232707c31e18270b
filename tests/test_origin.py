"""The lines and the modules that messages name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import mmfree_compiler
from mmfree_compiler.errors import TraceError
from mmfree_compiler.origin import made_by, place_of, placed, source_line
from mmfree_compiler.trace import trace


class _Normalizes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(8, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(x)
        return out


# As in `python -c`: nobody can read the lines.
_WITHOUT_SOURCE = """
class Normalizes(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(8, track_running_stats=False)
    def forward(self, x):
        return self.norm(x)
class Alone(nn.Module):
    def forward(self, x):
        return nn.functional.batch_norm(x, None, None, training=True)
"""


def _without_source(name: str) -> nn.Module:
    names = {"__name__": "__main__", "nn": nn}
    exec(compile(_WITHOUT_SOURCE, "<string>", "exec"), names)
    module: nn.Module = names[name]()  # type: ignore[operator]
    return module


@pytest.mark.parametrize(
    ("module", "place"),
    [
        (_Normalizes(), r"\S*test_origin\.py:\d+: out: Tensor = self\.norm\(x\)"),
        (_without_source("Normalizes"), r"norm \(BatchNorm1d\)"),
        (_without_source("Alone"), "Alone"),
        (nn.Sequential(nn.ReLU(), _Normalizes().norm), r"1 \(BatchNorm1d\)"),
        (_Normalizes().norm, "BatchNorm1d"),
    ],
)
def test_the_module_is_named_where_there_is_no_line(module: nn.Module, place: str) -> None:
    with pytest.raises(TraceError, match="running statistics") as error:
        trace(module, (torch.randn(4, 8),))
    assert re.fullmatch(place, error.value.thing)


def test_a_layer_of_torch_in_a_sequence_is_named_by_its_path() -> None:
    graph = trace(nn.Sequential(nn.Sequential(nn.ReLU(), nn.Linear(8, 8))), (torch.randn(4, 8),))
    (linear,) = (node for node in graph.graph.nodes if "linear" in str(node.target))
    assert made_by(linear) == ("0.1 (Linear)", "")
    assert placed(*made_by(linear)) == "in 0.1 (Linear)"
    assert source_line(linear) == place_of(linear) == "0.1 (Linear)"


def test_lines_of_this_package_are_not_the_models() -> None:
    node = torch.fx.Graph().placeholder("x")
    package = Path(mmfree_compiler.__file__).parent
    frames = {package / "models" / "lm.py": "y = f(x)", package / "adapters.py": "return y"}
    node.stack_trace = "".join(
        f'  File "{file}", line 1, in f\n    {code}\n' for file, code in frames.items()
    )
    assert source_line(node).endswith("models/lm.py:1: y = f(x)")


@pytest.mark.parametrize(
    ("module", "line", "sentence"),
    [
        ("net.2 (Linear)", "net.py:9: y = x", "in net.2 (Linear) at net.py:9: y = x"),
        ("", "net.py:9: y = x", "at net.py:9: y = x"),
        ("", "", "at an unknown line"),
    ],
)
def test_places_in_sentences(module: str, line: str, sentence: str) -> None:
    assert placed(module, line) == sentence


@pytest.mark.parametrize(
    ("frames", "line"),
    [
        (['"<stdin>", line 1, in f', '"a.py", line 2, in f\n    if x:'], "a.py:2: if x"),
        (['"a.py", line 2, in f\n    y = x', '"<string>", line 1, in g'], "a.py:2: y = x"),
        (['"<string>", line 11, in forward'], "<string>:11"),
    ],
)
def test_frames_without_code(frames: list[str], line: str) -> None:
    node = torch.fx.Graph().placeholder("x")
    assert (source_line(node), place_of(node)) == ("", "x")
    node.stack_trace = "".join(f"  File {frame}\n" for frame in frames)
    assert source_line(node) == place_of(node) == line
