"""The arithmetic and the Markdown of the GPU benchmark."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu import __main__ as command
from benchmarks.gpu import document, report
from benchmarks.gpu.figures import Fit, Group, dram_rate
from benchmarks.gpu.memory import needed
from benchmarks.shapes import Shape
from mmfree_compiler.artifact import read_artifact

PACKED = {"370M": 80_000_000, "1.3B": 300_000_000}
MEMORY = {"device_bytes": 300_000_000, "constant_bytes": 150_000_000, "state_bytes": 100_000}


def _figure(seconds: float, nbytes: int, time: str = "2026-01-02T03:04:05") -> dict[str, Any]:
    spread = {"median": seconds, "low": seconds / 2, "high": seconds * 2}
    facts = {"time": time, "versions": {"torch": "2.9"}, "weight_bytes": nbytes}
    return {"seconds": spread, **facts}


def _group(shape: str, task: str, ours: float, **others: float) -> dict[str, Any]:
    figures = {peer: _figure(seconds, 8 * PACKED[shape]) for peer, seconds in others.items()}
    figures |= {"mmfree": _figure(ours, PACKED[shape]), "dram": _figure(1e-3, 4_000_000_000)}
    return {"shape": shape, "task": task, "figures": figures, "skipped": {}}


def _document() -> dict[str, Any]:
    found = document.empty()
    found["machine"] = {"system": "Linux", "GPU 0": "a GPU"}
    load = _group("370M", "load", 0.05)
    load["figures"]["mmfree"] |= MEMORY
    groups = [
        load,
        _group("370M", "decode-1", 120e-6, graph=1.2e-3),
        _group("1.3B", "decode-1", 230e-6, graph=2.3e-3),
        _group("1.3B", "prefill-512", 2e-3, eager=40e-3),
    ]
    groups[3]["skipped"] = {"compile": "was silent for 300 s"}
    groups[3]["figures"]["eager"]["time"] = "2026-01-01T00:00:00"
    del groups[1]["figures"]["dram"]
    for group in groups:
        document.keep(found, group)
    return found


def test_figures_of_a_group() -> None:
    groups = Group.of(_document())
    _, _, decode, prefill = groups
    assert (decode.task.name, prefill.task.name) == ("decode-1", "prefill-512")
    assert decode.times("graph") == pytest.approx(10)
    assert decode.tokens_per_second("mmfree") == pytest.approx(1 / 230e-6)
    assert decode.read_rate("mmfree") == pytest.approx(3e8 / 230e-6)
    shape = Shape.of("1.3B")
    operations = 2 * (512 * shape.body_weights + shape.head_weights)
    assert prefill.operations_per_second("mmfree") == pytest.approx(operations / 2e-3)
    assert (decode.together("graph"), prefill.together("eager")) == (True, False)
    assert dram_rate(groups) == pytest.approx(4e12)
    assert dram_rate([]) is None


def test_the_fit_of_time_to_bytes() -> None:
    fit = Fit.of([(1e6, 3e-6), (2e6, 4e-6), (3e6, 5e-6)])
    assert fit is not None
    assert fit.start == pytest.approx(2e-6)
    assert fit.rate == pytest.approx(1e12)
    assert Fit.of([(1e6, 3e-6), (1e6, 4e-6)]) is None


def test_markdown(golden: Callable[[str, str], None]) -> None:
    golden("benchmark-gpu", report.markdown(_document()))


def test_merged_files_become_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"above\n{report.BEGIN}\nold\n{report.END}\nbelow\n")
    monkeypatch.setattr(command, "PAGE", page)
    halves = [tmp_path / "a.json", tmp_path / "b.json"]
    whole = _document()
    for path, groups in zip(halves, (whole["groups"][:2], whole["groups"][2:]), strict=True):
        document.write(whole | {"groups": groups}, path)
    command.main(merge=",".join(map(str, halves)))
    between = f"{report.BEGIN}\n\n{report.markdown(whole)}\n\n{report.END}"
    assert page.read_text() == f"above\n{between}\nbelow\n"


def test_what_a_model_needs(tiny_artifact: Path) -> None:
    artifact = read_artifact(tiny_artifact)
    found = needed(artifact)
    (state,) = artifact.manifest.states
    assert found["state_bytes"] == 4 * state.count * state.shape[0]
    assert (
        0
        <= len(artifact.members["weights.bin"]) - found["constant_bytes"]
        < 64 * len(artifact.entry.tensors)
    )
