"""The lines and the modules that messages name."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor, nn

from mmfree_compiler.errors import TraceError
from mmfree_compiler.origin import place_of, source_line
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
