"""The document's arithmetic and its Markdown."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from amx_emulation import emulate_amx

from benchmarks import plots, report
from benchmarks.ceilings import CEILINGS, Ceilings, limit_seconds
from benchmarks.peers import OURS
from benchmarks.report import BEGIN, END, Group
from benchmarks.shapes import Shape
from benchmarks.tasks import TASKS
from mmfree_compiler.backends.cpu.features import AMX, cpu_features

SHAPE = Shape("370M", hidden=1024, layers=24, intermediate=2816, vocabulary=32000)
READ, MAC = 10e9, 100e9  # a second
PACKED = 100_000_000  # bytes
COMPILED = {"peak_rss_bytes": 1_800_000_000, "checkpoint_bytes": 750_000_000}


def _spread(median: float) -> dict[str, float]:
    return {"median": median, "low": median / 2, "high": median * 2}


def _group(task: str, threads: int, **seconds: float) -> dict[str, Any]:
    return {
        "shape": "370M",
        "threads": threads,
        "task": task,
        "time": "2026-01-02T03:04:05+00:00",
        "versions": {"torch": {"torch": "2.9"}},
        "ceilings": {"read": _spread(READ), "vnni": _spread(MAC)},
        "figures": {
            peer: {
                "seconds": _spread(median),
                "weight_bytes": PACKED if peer == OURS else 16 * PACKED,
                "peak_rss_bytes": 150_000_000 if peer == OURS else 1_700_000_000,
            }
            for peer, median in seconds.items()
        },
        "skipped": {"onnxruntime": "not installed: onnxruntime"},
    }


def _document(*groups: dict[str, Any]) -> dict[str, Any]:
    machine = {"processor": "A CPU", "CPUs this process may use": "2", "CPU features": "avx2"}
    compiled = {**COMPILED, "seconds": {"load": 1.0, "codegen": 2.5}}
    shapes = {"370M": {"shape": asdict(SHAPE), OURS: compiled}}
    return {"machine": machine, "shapes": shapes, "groups": list(groups)}


WHOLE = _document(
    _group("decode-1", 1, mmfree=0.0125, torch=0.25),
    _group("prefill-128", 1, mmfree=0.5, torch=2.0),
    _group("load", 1, mmfree=0.02),
    _group("decode-1", 2, torch=0.125),
)


def test_the_limit_is_the_slower_of_reading_and_arithmetic() -> None:
    rates = {"read": 10.0, "read_prefetched": 20.0, "vnni": 100.0, "maddubs": 50.0}
    assert limit_seconds(rates, weight_bytes=200, multiply_adds=100) == 10
    assert limit_seconds(rates, weight_bytes=200, multiply_adds=2000) == 20
    assert limit_seconds({"read": 10.0}, weight_bytes=200, multiply_adds=10**9) == 20


def test_figures_of_a_group() -> None:
    decode, prefill, *_ = Group.of(WHOLE)
    assert decode.tokens_per_second(OURS) == 80
    assert decode.times("torch") == 20
    assert decode.limit_fraction(OURS) == pytest.approx(PACKED / READ / 0.0125)
    assert prefill.tokens_per_second(OURS) == 256
    work = 128 * SHAPE.body_weights + SHAPE.head_weights
    assert prefill.limit_fraction(OURS) == pytest.approx(work / MAC / 0.5)
    assert prefill.multiply_adds_per_second("torch") == pytest.approx(work / 2)


def test_batches_run_the_head_for_every_sequence() -> None:
    once = TASKS["decode-1"].multiply_adds(SHAPE)
    assert once == SHAPE.body_weights + SHAPE.head_weights
    assert TASKS["decode-8"].multiply_adds(SHAPE) == 8 * once


def test_markdown(golden: Callable[[str, str], None]) -> None:
    golden("benchmark", report.markdown(WHOLE))


def test_publish_replaces_what_is_between_the_markers(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"above\n{BEGIN}\nold\n{END}\nbelow\n")
    report.publish(WHOLE, page)
    once = page.read_text()
    assert once.startswith(f"above\n{BEGIN}\n")
    assert once.endswith(f"{END}\nbelow\n")
    assert "old" not in once
    assert report.markdown(WHOLE) in once
    report.publish(WHOLE, page)
    assert page.read_text() == once


def test_publish_refuses_a_page_without_markers(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("nothing\n")
    with pytest.raises(ValueError, match="has no lines"):
        report.publish(WHOLE, page)
    assert page.read_text() == "nothing\n"


def test_a_group_replaces_the_one_of_its_kind_only() -> None:
    document = _document(_group("decode-1", 2, mmfree=1.0), _group("decode-8", 2, mmfree=1.0))
    report.keep(document, _group("decode-8", 2, mmfree=3.0))
    report.keep(document, _group("decode-8", 1, mmfree=4.0))
    found = [(g.threads, g.task.name, g.seconds[OURS]) for g in Group.of(document)]
    assert found == [(1, "decode-8", 4.0), (2, "decode-1", 1.0), (2, "decode-8", 3.0)]


def test_plots_of_a_document_are_the_same_every_time(tmp_path: Path) -> None:
    plots.draw(WHOLE, tmp_path / "a")
    plots.draw(WHOLE, tmp_path / "b")
    pictures = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    assert set(pictures) == {"cpu-roofline.svg", "cpu-peers.svg"}
    assert pictures == {path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()}


def test_every_ceiling_of_this_machine_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if emulate_amx():  # other tests' emulation has no speed to measure
        real = cpu_features() - AMX
        monkeypatch.setattr("benchmarks.ceilings.cpu_features", lambda: real)
    found = Ceilings(tmp_path, buffer_bytes=1 << 20).measure(threads=1)
    assert set(found) == {name for name, c in CEILINGS.items() if c.runs_here()}
    assert all(math.isfinite(rate) and rate > 0 for rate in found.values())


def test_a_ceiling_needs_all_of_its_features(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.ceilings.machine_arch", lambda: "x86_64")
    monkeypatch.setattr("benchmarks.ceilings.cpu_features", lambda: frozenset({"amx_tile"}))
    assert not CEILINGS["amx"].runs_here()
    assert CEILINGS["read"].runs_here()
    features = frozenset({"amx_tile", "amx_int8"})
    monkeypatch.setattr("benchmarks.ceilings.cpu_features", lambda: features)
    assert CEILINGS["amx"].runs_here()
    monkeypatch.setattr("benchmarks.ceilings.machine_arch", lambda: "aarch64")
    assert not CEILINGS["amx"].runs_here()
