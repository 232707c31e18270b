"""Peers in processes of their own, and the document that their figures go into."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu import __main__ as command
from benchmarks.gpu import document
from benchmarks.gpu.peers import PEERS, GpuJob, GpuPeer
from benchmarks.gpu.running import ShapeRun
from benchmarks.gpu.sampling import Sampler
from benchmarks.gpu.tasks import TASKS
from benchmarks.shapes import Shape
from mmfree_compiler.errors import InputError

SHAPE = Shape.of("370M")
FAKE = "tests.benchmarks.fake_gpu_worker"


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Peers of fake_gpu_worker.py, all of which are installed but "int_mm"."""
    tasks = frozenset({"decode-4", "prefill-512"})
    packages = {"int_mm": ("no-such-distribution",), "compile": ("numpy",)}
    for name in PEERS:
        files, slow = name in ("mmfree", "cpu"), name == "compile"
        fake = GpuPeer(name, name, "", packages.get(name, ()), tasks, "", files, slow)
        monkeypatch.setitem(PEERS, name, fake)
    return ["mmfree", "eager", "graph", "compile", "int_mm", "cpu"]


def test_each_failure_loses_one_figure(fakes: list[str], tmp_path: Path) -> None:
    task, said = TASKS["decode-4"], list[str]()
    with ShapeRun(SHAPE, tmp_path, tmp_path / "x", said.append, FAKE) as run:
        run.prepare(fakes)
        run.open_slow(fakes, [task])
        group = run.measured(task, fakes, repeat=3)
        assert run.measured(TASKS["load"], fakes, repeat=3)["figures"] == {}
    assert run.prepared == {"mmfree": {"folder": str(tmp_path), "compiled": str(tmp_path / "x")}}
    assert set(group["figures"]) == {"mmfree", "compile"}
    figure = group["figures"]["mmfree"]
    assert figure["samples"] == [2.0, 3.0, 4.0]  # the first one warmed it up
    assert (figure["seconds"]["median"], figure["weight_bytes"]) == (3.0, 4)
    assert set(group["figures"]["compile"]["versions"]) == {"numpy"}
    assert group["skipped"] == {
        "eager": "ended with exit status 1: ValueError: no such model",
        "graph": "ended with exit status 3: out of luck",
        "int_mm": "not installed: no-such-distribution",
        "cpu": "ended with exit status 1: ValueError: no compiler",
    }
    assert sorted(said) == sorted(
        f"370M, decode-4: without {peer}: {reason}" for peer, reason in group["skipped"].items()
    )


def test_a_job_survives_its_text(tmp_path: Path) -> None:
    for compiled, task in ((None, None), (tmp_path / "a", TASKS["decode-16"])):
        job = GpuJob("mmfree", SHAPE, tmp_path, compiled, task)
        assert GpuJob.parse(job.text) == job


def test_a_sample_fills_its_time() -> None:
    counts: list[int] = []
    times = iter([0.0, 0.08, 1.0, 1.2, 2.0, 2.5, 3.0, 3.4])
    sample = Sampler(counts.append, lambda: next(times))
    assert sample() == pytest.approx(0.5 / 8)
    assert sample() == pytest.approx(0.4 / 8)
    assert counts == [1, 4, 8, 8]


def _group(task: str, skipped: dict[str, str], **seconds: float) -> dict[str, Any]:
    figures = {peer: {"seconds": {"median": value}} for peer, value in seconds.items()}
    return {"shape": "370M", "task": task, "figures": figures, "skipped": skipped}


def test_documents_are_merged_figure_by_figure(tmp_path: Path) -> None:
    before, after = document.empty(), document.empty()
    document.keep(before, _group("decode-4", {"graph": "hangs"}, mmfree=1.0, eager=5.0))
    document.keep(before, _group("load", {}, mmfree=9.0))
    document.keep(after, _group("decode-4", {"eager": "hangs"}, mmfree=2.0, graph=3.0))
    after["machine"] = {"system": "new"}
    paths = [tmp_path / "before.json", tmp_path / "after.json"]
    for found, path in zip((before, after), paths, strict=True):
        document.write(found, path)
    merged = document.read(paths)
    load, decode = merged["groups"]
    assert (load["task"], decode["task"]) == ("load", "decode-4")
    medians = {peer: figure["seconds"]["median"] for peer, figure in decode["figures"].items()}
    assert medians == {"mmfree": 2.0, "eager": 5.0, "graph": 3.0}
    assert decode["skipped"] == {}  # each was measured in one of them
    assert merged["machine"] == {"system": "new"}


def test_unknown_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"unknown: decode-5. Known: load, decode-1"):
        command.main(tasks="decode-5", folder=tmp_path, json=tmp_path / "x.json", publish=False)
